"""Log-probabilities from a vLLM server: what is asked, what is read, what is told when it goes wrong."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import llama, settings, tokenizer
from training.distill.errors import CannotDistill, DistillationFailed
from training.distill.examples import Row
from training.distill.run import distil
from training.distill.teachers import LocalTeacher, VllmTeacher

SIZE = len(tokenizer())
ROWS = [Row((5, 6, 7, 8, 9), 2, 0), Row((11, 12), 1, 1)]


class FakeVllm:
    """Answers `/v1/completions` with prompt_logprobs of a tiny model, as vLLM does: the k best and the prompt's own."""

    def __init__(self) -> None:
        self.model = llama(SIZE, seed=2).eval()
        self.asked: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.most = 1000
        self.keys: list[str | None] = []

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens, k = body["prompt"], min(body["prompt_logprobs"], self.most)
        with torch.no_grad():
            log_p = torch.log_softmax(self.model(torch.tensor([tokens])).logits[0].float(), -1)
        places: list[dict[str, Any] | None] = [None]
        for place, own in enumerate(tokens[1:]):
            values, ids = log_p[place].topk(k)
            found = {
                str(i): {"logprob": v, "rank": r}
                for r, (i, v) in enumerate(zip(ids.tolist(), values.tolist(), strict=True), 1)
            }
            found[str(own)] = {
                "logprob": float(log_p[place, own]),
                "rank": int((log_p[place] >= log_p[place, own]).sum()),
            }
            places.append(found)
        return {"choices": [{"text": "", "prompt_logprobs": places}]}


@pytest.fixture
def vllm() -> Iterator[tuple[FakeVllm, str]]:
    fake = FakeVllm()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.asked.append(body)
            fake.keys.append(self.headers.get("authorization"))
            status = fake.failures.pop(0) if fake.failures else 200
            text = json.dumps(fake.answer(body) if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_gives_what_the_model_in_process_gives(vllm: tuple[FakeVllm, str]) -> None:
    fake, url = vllm
    local = LocalTeacher(fake.model, SIZE, 0, 2, 100).top_k(ROWS, 4)
    remote = VllmTeacher(url, "big", SIZE).top_k(ROWS, 4)
    torch.testing.assert_close(remote, local)
    assert fake.asked[0] == {
        "model": "big", "prompt": [5, 6, 7, 8, 9], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 4,
    }  # fmt: skip


def test_a_server_that_fails_for_a_moment_is_asked_again(vllm: tuple[FakeVllm, str]) -> None:
    fake, url = vllm
    fake.failures = [503, 429]
    pauses: list[float] = []
    assert len(VllmTeacher(url, "big", SIZE, sleep=pauses.append).top_k(ROWS[:1], 4)) == 1
    assert pauses == [2.0, 4.0]
    fake.failures = [503] * 4
    with pytest.raises(DistillationFailed, match="does not answer"):
        VllmTeacher(url, "big", SIZE, sleep=pauses.append).top_k(ROWS[:1], 4)


def test_refusals_and_short_answers_are_told(vllm: tuple[FakeVllm, str]) -> None:
    fake, url = vllm
    fake.failures = [400]
    with pytest.raises(CannotDistill, match="refused: 400"):
        VllmTeacher(url, "big", SIZE).top_k(ROWS[:1], 4)
    fake.most = 2
    with pytest.raises(CannotDistill, match="--max-logprobs 4"):
        VllmTeacher(url, "big", SIZE).top_k(ROWS, 4)
    with pytest.raises(CannotDistill, match="words below 10"):
        VllmTeacher(url, "big", 10).top_k(ROWS, 2)


def test_the_key_comes_from_the_environment(vllm: tuple[FakeVllm, str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, url = vllm
    with pytest.raises(CannotDistill, match="A_KEY is not set"):
        VllmTeacher(url, "big", SIZE, "A_KEY")
    monkeypatch.setenv("A_KEY", "secret")
    VllmTeacher(url, "big", SIZE, "A_KEY").top_k(ROWS[:1], 2)
    assert fake.keys == ["Bearer secret"]


def test_a_student_learns_from_a_server(vllm: tuple[FakeVllm, str], folder: Path) -> None:
    _, url = vllm
    value = settings(folder, training={"steps": 30, "evaluate_every": 30})
    value["teacher"] = {"url": url, "top_k": 16, "cache": str(folder / "cache")}
    report = distil(config_of(value), "kd", surroundings(), lambda _name: None)
    curve = [row["val_kl"] for row in report["stages"]["kd"]["curves"] if "val_kl" in row]
    assert curve[-1] < 0.6 * curve[0]
