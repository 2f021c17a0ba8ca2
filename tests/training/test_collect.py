"""`tw collect` against an upstream in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from policies.outcomes import read_outcomes
from policies.samples import SampleWish
from training.asking import Asking, Endpoint
from training.collecting import CannotCollect, collect, read_questions
from training.grades import named_grade

QUICK = Asking(concurrency=2, attempts=3, first_wait_s=0.001, timeout_s=5)
Answer = Callable[[dict[str, Any]], web.Response]


def completion(text: str, **more: Any) -> web.Response:
    tokens = [
        {
            "token": "x",
            "logprob": -0.5,
            "top_logprobs": [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -2}],
        }
    ]
    choice = {
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": tokens},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return web.json_response({"model": "m", "choices": [choice], "usage": usage, **more})


class Upstream:
    """Answers by `answer`; counts what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda body: completion("5" if body["model"] == "student" else "The answer is 4.")
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization"))
        return self.answer(body)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    upstream.url = f"http://{host}:{port}/v1"
    yield upstream
    await runner.cleanup()


def prompts(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TWO = (
    {"id": "a", "prompt": "2 + 2?", "reference": "4", "group": "sums", "split": "test"},
    {"id": "b", "messages": [{"role": "user", "content": "2 * 2?"}], "reference": 4},
)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def run(upstream: Upstream, path: Path, out: Path, grade: str = "numeric", how: Asking = QUICK):
    student = Endpoint("student", upstream.url, "student", price_in=1.0, price_out=2.0)
    teacher = Endpoint("teacher", upstream.url, "teacher", key="sk-secret")
    judge = Endpoint("judge", upstream.url, "judge")
    graded = named_grade(grade, judge, how)
    return await collect(read_questions(path), out, student, teacher, graded, how, grade_name=grade)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
async def test_both_models_are_asked_and_graded(upstream: Upstream, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"table.{suffix}"
    counts = await run(upstream, prompts(tmp_path / "p.jsonl", *TWO), out)
    assert (counts.rows, counts.asked, counts.failed) == (2, 2, 0)
    first, second = read_outcomes(out)
    assert (first.id, first.prompt, first.split, first.group) == ("a", "2 + 2?", "test", "sums")
    assert (first.student_quality, first.teacher_quality) == (0.0, 1.0)
    assert (first.student_response, first.teacher_response) == ("5", "The answer is 4.")
    assert first.student_logprobs == (-0.5,)
    assert first.student_entropies is not None
    assert first.student_finish_reason == "stop"
    assert (first.student_cost, first.teacher_cost) == (pytest.approx(20e-6), None)
    assert second.last_user == "2 * 2?"
    assert _names(tmp_path) == {"p.jsonl", out.name}
    assert "Bearer sk-secret" in upstream.keys
    assert None in upstream.keys


async def test_a_second_run_asks_only_what_is_missing(upstream: Upstream, tmp_path: Path) -> None:
    path, out = prompts(tmp_path / "p.jsonl", *TWO), tmp_path / "t.jsonl"

    def broken(body: dict[str, Any]) -> web.Response:
        if body["model"] == "teacher" and "*" in body["messages"][0]["content"]:
            return web.json_response({"error": {"message": "overloaded"}}, status=503)
        return completion("4")

    upstream.answer = broken
    counts = await run(upstream, path, out)
    assert (counts.failed, counts.first_error) == (1, "b: teacher: HTTP 503: overloaded")
    assert [row.teacher_quality for row in read_outcomes(out)] == [1.0, None]
    assert sum(body["model"] == "teacher" for body in upstream.asked) == 1 + QUICK.attempts

    upstream.answer = lambda _: completion("4")
    upstream.asked.clear()
    counts = await run(upstream, path, out)
    assert (counts.rows, counts.asked, counts.failed) == (2, 1, 0)
    assert {body["messages"][0]["content"] for body in upstream.asked} == {"2 * 2?"}
    assert [row.teacher_quality for row in read_outcomes(out)] == [1.0, 1.0]


async def test_a_killed_run_keeps_what_it_paid_for(upstream: Upstream, tmp_path: Path) -> None:
    path, out = prompts(tmp_path / "p.jsonl", *TWO), tmp_path / "t.jsonl"

    def hang_up(body: dict[str, Any]) -> web.Response:
        if "*" in body["messages"][0]["content"]:
            raise asyncio.CancelledError
        return completion("4")

    upstream.answer = hang_up
    await run(upstream, path, out, how=Asking(concurrency=1, attempts=1, first_wait_s=0.001, timeout_s=5))
    partial = tmp_path / "t.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"id": "b", "half a li')
    upstream.answer = lambda _: completion("4")
    upstream.asked.clear()
    counts = await run(upstream, path, out)
    assert (counts.asked, counts.failed) == (1, 0)
    assert len(upstream.asked) == 2


async def test_other_models_do_not_go_on_with_an_old_run(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.partial").write_text('{"settings": {"student": ["elsewhere", "s"]}}\n')
    with pytest.raises(CannotCollect, match="begun with other models, URLs or grading"):
        await run(upstream, prompts(tmp_path / "p.jsonl", *TWO), tmp_path / "t.jsonl")


async def test_no_answer_at_all_writes_no_table(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answer = lambda _: web.Response(text="<html>gateway</html>", content_type="text/html")
    with pytest.raises(
        CannotCollect, match=r"no prompt was answered by both models; the first: .*not a chat completion"
    ):
        await run(upstream, prompts(tmp_path / "p.jsonl", *TWO), tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()


async def test_an_api_without_log_probabilities_is_asked_again_without(upstream: Upstream, tmp_path: Path) -> None:
    def refuse(body: dict[str, Any]) -> web.Response:
        if "logprobs" in body:
            return web.json_response({"error": {"message": "logprobs is not supported"}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "4"}}]})

    upstream.answer = refuse
    await run(upstream, prompts(tmp_path / "p.jsonl", TWO[0]), tmp_path / "t.jsonl")
    (row,) = read_outcomes(tmp_path / "t.jsonl")
    assert (row.student_response, row.student_logprobs, row.student_quality) == ("4", None, 1.0)


async def test_the_gateway_answering_by_the_other_side_is_no_answer(upstream: Upstream, tmp_path: Path) -> None:
    def routed(body: dict[str, Any]) -> web.Response:
        response = completion("4")
        response.headers.update({"x-tw-route": "student", "x-tw-reason": "budget_exhausted"})
        return response

    upstream.answer = routed
    with pytest.raises(CannotCollect, match="the gateway answered by its student: budget_exhausted"):
        await run(upstream, prompts(tmp_path / "p.jsonl", TWO[0]), tmp_path / "t.jsonl")


async def test_a_judge_gives_tenths(upstream: Upstream, tmp_path: Path) -> None:
    def judged(body: dict[str, Any]) -> web.Response:
        if body["model"] != "judge":
            return completion(body["model"])
        return completion("3" if "student" in body["messages"][0]["content"] else "Grade: 10")

    upstream.answer = judged
    await run(upstream, prompts(tmp_path / "p.jsonl", TWO[0]), tmp_path / "t.jsonl", grade="judge")
    (row,) = read_outcomes(tmp_path / "t.jsonl")
    assert (row.student_quality, row.teacher_quality) == (0.3, 1.0)


def length_grade(response: str, reference: str) -> float:
    return float(len(response) > len(reference))


async def test_a_function_of_ones_own_grades(upstream: Upstream, tmp_path: Path) -> None:
    grade = "tests.training.test_collect:length_grade"
    await run(upstream, prompts(tmp_path / "p.jsonl", TWO[0]), tmp_path / "t.jsonl", grade=grade)
    (row,) = read_outcomes(tmp_path / "t.jsonl")
    assert (row.student_quality, row.teacher_quality) == (0.0, 1.0)


async def test_a_missing_reference_is_said(upstream: Upstream, tmp_path: Path) -> None:
    path = prompts(tmp_path / "p.jsonl", {"id": "a", "prompt": "2 + 2?"})
    with pytest.raises(CannotCollect, match="prompt 'a' has no reference"):
        await run(upstream, path, tmp_path / "t.jsonl")


@pytest.mark.parametrize("name", ["clever", "no.such.module:f", "json:none"])
def test_an_unknown_grade_is_said(name: str) -> None:
    with pytest.raises(CannotCollect, match=f"--grade {name}"):
        named_grade(name, Endpoint("judge", "", ""), QUICK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no prompts in it"),
        ("{", "row 1: not JSON"),
        ("[]", "row 1: expected a JSON object"),
        ('{"id": "a"}', "row 1: needs prompt"),
        ('{"id": "a", "messages": []}', "row 1: needs prompt"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "row 2: id 'a' occurs twice"),
        ('{"id": "a", "prompt": "x", "split": "dev"}', "split must be train, val or test"),
        ('{"id": [1], "prompt": "x"}', "id must be text"),
        ('{"id": "a", "prompt": "x", "reference": [1]}', "reference must be text"),
    ],
)
def test_prompts_that_cannot_be_read_are_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(CannotCollect, match=said):
        read_questions(path)


def test_the_key_is_in_no_repr() -> None:
    assert "sk-secret" not in repr(Endpoint("student", "http://x", "m", "sk-secret"))


async def test_the_command_end_to_end(upstream: Upstream, tmp_path: Path) -> None:
    import sys

    path = prompts(tmp_path / "p.jsonl", *TWO)
    command = (
        sys.executable, "-m", "server", "collect", "--prompts", str(path), "--out", str(tmp_path / "t.jsonl"),
        "--student-url", upstream.url, "--teacher-url", upstream.url, "--grade", "numeric", "--json",
    )  # fmt: skip
    program = "from server.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *command[3:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    assert json.loads(out) == {"rows": 2, "asked": 2, "failed": 0, "first_error": None}
    missing = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "collect", "--prompts", "/none", "--out", str(tmp_path / "u.jsonl"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await missing.communicate()
    assert missing.returncode == 2
    assert b"/none: no such file" in error


def several(count: int) -> web.Response:
    """An answer of `count` choices that differ."""
    choices = [{"message": {"role": "assistant", "content": f"{4 + i}"}, "finish_reason": "stop"} for i in range(count)]
    usage = {"prompt_tokens": 1, "completion_tokens": 2 * count}
    return web.json_response({"model": "m", "choices": choices, "usage": usage})


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_samples_are_kept_beside_the_answer(upstream: Upstream, tmp_path: Path, most: int) -> None:
    """Whether the server makes all of them at once, some, or one whatever it is asked."""
    plain, out = upstream.answer, tmp_path / "t.parquet"
    upstream.answer = lambda body: several(min(body.get("n", 1), most)) if body["temperature"] else plain(body)
    how = replace(QUICK, samples=SampleWish(3, 8))
    await run(upstream, prompts(tmp_path / "p.jsonl", *TWO), out, how=how)
    said = {1: ("4", "4", "4"), 2: ("4", "5", "4"), 3: ("4", "5", "6")}[most]
    assert [row.student_samples for row in read_outcomes(out)] == [said, said]
    sampled = [body for body in upstream.asked if body["temperature"]]
    assert {(body["model"], body["max_tokens"], body.get("logprobs")) for body in sampled} == {("student", 8, None)}
    assert len(sampled) == 2 * {1: 3, 2: 2, 3: 1}[most]


@pytest.mark.parametrize(("refusal", "asked"), [(400, 2), (503, QUICK.attempts)])
async def test_samples_that_do_not_come_are_null(upstream: Upstream, tmp_path: Path, refusal: int, asked: int) -> None:
    plain, out = upstream.answer, tmp_path / "t.jsonl"
    upstream.answer = lambda body: web.json_response({}, status=refusal) if body["temperature"] else plain(body)
    how = replace(QUICK, samples=SampleWish(3, 8))
    counts = await run(upstream, prompts(tmp_path / "p.jsonl", *TWO), out, how=how)
    assert counts.failed == 0
    assert [row.student_samples for row in read_outcomes(out)] == [None, None]
    assert len([body for body in upstream.asked if body["temperature"]]) == 2 * asked


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
async def test_what_prefix_caches_held_is_carried_on(upstream: Upstream, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"t.{suffix}"
    asked = ({**TWO[0], "student_cached_tokens": 12, "teacher_cached_tokens": 0}, TWO[1])
    await run(upstream, prompts(tmp_path / "p.jsonl", *asked), out)
    found = [(row.student_cached_tokens, row.teacher_cached_tokens) for row in read_outcomes(out)]
    assert found == [(12, 0), (None, None)]


@pytest.mark.parametrize("wrong", ["12", 1.5, -1, True])
def test_cached_tokens_of_questions_are_counts(tmp_path: Path, wrong: object) -> None:
    path = prompts(tmp_path / "p.jsonl", {**TWO[0], "teacher_cached_tokens": wrong})
    with pytest.raises(CannotCollect, match="row 1: teacher_cached_tokens must be a whole number of tokens"):
        read_questions(path)
