"""Real vLLM on this machine, started, watched and ended by `ManagedEngine`. Wants `deploy/vllm-cpu-env.sh`."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from server.engines import EngineFailed, EngineSpec, ManagedEngine
from tests.server.engines.test_process import alive, wait_until

pytestmark = pytest.mark.vllm

PYTHON = os.environ.get("TW_VLLM_PYTHON") or str(Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python")
READY_S = 300


def post(engine: ManagedEngine, path: str, body: dict) -> dict:
    data = json.dumps({"model": "student", **body}).encode()
    request = urllib.request.Request(engine.url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, pending = set(), [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found.update(below)
        pending += below
    return found


@pytest.fixture(scope="module")
def engine(tiny_model, tmp_path_factory):
    assert Path(PYTHON).exists(), f"{PYTHON} is not there; run deploy/vllm-cpu-env.sh or set TW_VLLM_PYTHON"
    log = tmp_path_factory.mktemp("vllm") / "student.log"
    spec = EngineSpec("student", "vllm", str(tiny_model), log_path=log, python=PYTHON)
    running = ManagedEngine(spec)
    running.start()
    try:
        running.wait_ready(READY_S)
        yield running
    finally:
        running.stop()


def test_it_answers(engine):
    body = {"messages": [{"role": "user", "content": "Anna has 12 apples."}], "max_tokens": 8, "temperature": 0}
    answer = post(engine, "/chat/completions", {**body, "logprobs": True})
    assert answer["model"] == "student"
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["logprobs"]["content"]) == 8


def test_the_embedded_engine_answers_the_same(engine, embedded_url):
    """Both serve the same weights in float32, so greedy answers and their log-probabilities agree."""
    chat = {"messages": [{"role": "user", "content": "Ben has 3 pears."}], "max_tokens": 16, "temperature": 0}
    bodies = [
        ("/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}),
        ("/completions", {"prompt": "Anna has", "max_tokens": 9, "temperature": 0, "return_token_ids": True}),
        ("/completions", {"prompt": [50, 60], "max_tokens": 30, "temperature": 0, "stop": [" 5", "e"]}),
        ("/chat/completions", {**chat, "stop_token_ids": list(range(6, 200)), "return_token_ids": True}),
        (
            "/chat/completions",
            {
                **chat,
                "messages": [*chat["messages"], {"role": "assistant", "content": "So 3"}],
                "continue_final_message": True,
                "add_generation_prompt": False,
                "return_token_ids": True,
            },
        ),
    ]
    for path, body in bodies:
        theirs = post(engine, path, body)
        data = json.dumps({"model": "student", **body}).encode()
        request = urllib.request.Request(embedded_url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            ours = json.load(response)
        told, said = theirs["choices"][0], ours["choices"][0]
        assert said.get("message", {}).get("content") == told.get("message", {}).get("content"), body
        for field in ("text", "finish_reason", "stop_reason", "token_ids", "prompt_token_ids"):
            assert said.get(field) == told.get(field), (field, body)
        assert ours["usage"] == {name: theirs["usage"][name] for name in ours["usage"]}
        assert ours.get("prompt_token_ids") == theirs.get("prompt_token_ids")
        if said["logprobs"]:
            for mine, other in zip(said["logprobs"]["content"], told["logprobs"]["content"], strict=True):
                # vLLM shows a token that is half a character as nothing.
                assert mine["token"].replace("�", "") == other["token"].replace("�", "")
                assert mine["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
                pairs = zip(mine["top_logprobs"], other["top_logprobs"], strict=True)
                assert all(one["logprob"] == pytest.approx(two["logprob"], abs=1e-3) for one, two in pairs)


def test_killed_it_comes_back_and_stopped_it_leaves_nothing(engine):
    first = engine.state().pid
    tree = {first} | descendants(first)
    assert len(tree) > 1  # vLLM's EngineCore is a process of its own
    url = engine.url
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: engine.state().status == "restarting", 30)
    engine.wait_ready(READY_S)
    assert [pid for pid in tree if alive(pid)] == []
    assert (engine.url, engine.state().restarts) == (url, 1)
    assert post(engine, "/completions", {"prompt": "Anna", "max_tokens": 2})["usage"]["completion_tokens"] == 2

    second = engine.state().pid
    tree = {second} | descendants(second)
    core = max(tree - {second})
    os.kill(core, signal.SIGKILL)  # the server notices, or answers /health with an error; either way it is brought back
    wait_until(lambda: engine.state().restarts == 2, 120)
    engine.wait_ready(READY_S)
    tree |= {engine.state().pid} | descendants(engine.state().pid)

    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 15
    assert [pid for pid in tree if alive(pid)] == []
    with pytest.raises(urllib.error.URLError):
        post(engine, "/completions", {"prompt": "Anna"})


def test_an_argument_that_vllm_does_not_know(tiny_model):
    spec = EngineSpec("student", "vllm", str(tiny_model), python=PYTHON, args=("--no-such-argument",))
    engine = ManagedEngine(spec)
    engine.start()
    try:
        with pytest.raises(EngineFailed, match="does not know one of its arguments"):
            engine.wait_ready(READY_S)
    finally:
        engine.stop()
