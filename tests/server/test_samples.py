"""Samples beside the draft: asked for only where the policy wants them, in one request where the student can, and never
a reason for an answer to fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from policies.samples import TEMPERATURE, SampleWish
from tests.server.gateways import ScriptedPolicy, running_gateway
from tests.upstreams import fault_upstream

WISH = SampleWish(count=3, max_tokens=8)


@dataclass
class WantsSamples(ScriptedPolicy):
    samples: SampleWish | None = WISH


@dataclass
class Student:
    """Answers with as many choices as asked for; or with one only, or with an error, or late."""

    ones: bool = False
    refuses_several: bool = False
    samples_fail: bool = False
    samples_take_s: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @property
    def sampled(self) -> list[dict[str, Any]]:
        return [body for body in self.asked if body.get("temperature") == TEMPERATURE]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        count = body.get("n", 1)
        if body.get("temperature") == TEMPERATURE:
            await asyncio.sleep(self.samples_take_s)
            if self.samples_fail or (self.refuses_several and count > 1):
                return web.json_response({"error": {"message": "no", "type": "x", "code": None}}, status=400)
            count = 1 if self.ones else count
            texts = [f"The answer is {7 + i % 2}." for i in range(count)]
        else:
            texts = ["The answer is 7."]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 4, "completion_tokens": 5 * count, "total_tokens": 4 + 5 * count}
        return web.json_response({"object": "chat.completion", "choices": choices, "usage": usage})


@asynccontextmanager
async def serving(student: Student) -> AsyncIterator[Student]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", student.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    student.url = f"{site.name}/v1"
    try:
        yield student
    finally:
        await runner.cleanup()


async def ask(
    tmp_path: Path, student: Student, policy: ScriptedPolicy, count: int = 1, **body: Any
) -> list[dict[str, Any]]:
    """The decision records of `count` requests."""
    records = []
    async with (
        serving(student),
        fault_upstream(name="teacher") as teacher,
        running_gateway(tmp_path, student.url, teacher.url, policy=policy, timeouts={"samples_s": 0.3}) as gateway,
    ):
        for _ in range(count):
            status, headers, _ = await gateway.chat("How many?", **body)
            assert status == 200
            records.append(await gateway.record(headers))
    return records


async def test_the_policy_sees_the_samples_and_their_tokens_are_written_down(tmp_path: Path) -> None:
    student, policy = Student(), WantsSamples()
    (record,) = await ask(tmp_path, student, policy, seed=3, max_tokens=100)
    (observation,) = policy.seen
    assert observation.draft is not None
    assert observation.draft.samples == ("The answer is 7.", "The answer is 8.", "The answer is 7.")
    (asked,) = student.sampled
    assert {name: asked.get(name) for name in ("n", "max_tokens", "seed", "logprobs", "stream")} == {
        "n": 3, "max_tokens": 8, "seed": None, "logprobs": None, "stream": None
    }  # fmt: skip
    assert (record["sample_tokens"], record["student_tokens"]) == (15, 5)


@pytest.mark.parametrize("student", [Student(ones=True), Student(refuses_several=True)], ids=["ones", "refuses"])
async def test_a_student_that_makes_one_at_a_time_is_asked_so(tmp_path: Path, student: Student) -> None:
    policy = WantsSamples()
    await ask(tmp_path, student, policy, count=2)
    assert [len(each.draft.samples) for each in policy.seen if each.draft] == [3, 3]
    # The first request learns that one question gets one answer; the second knows.
    kinds = [body.get("n", 1) for body in student.sampled]
    assert kinds == ([3, 1, 1] if student.ones else [3, 1, 1, 1]) + [1, 1, 1]


@pytest.mark.parametrize(
    ("student", "tokens"), [(Student(samples_fail=True), 0), (Student(samples_take_s=5.0), 24)], ids=["fails", "late"]
)
async def test_samples_that_do_not_come_are_unknown(tmp_path: Path, student: Student, tokens: int) -> None:
    policy = WantsSamples()
    (record,) = await ask(tmp_path, student, policy)
    assert policy.seen[0].draft is not None
    assert policy.seen[0].draft.samples == ()
    # Of what was broken off nobody knows how much was written: as much as it can have been.
    assert (record["route"], record["sample_tokens"]) == ("student", tokens)


async def test_no_other_policy_asks_for_samples(tmp_path: Path) -> None:
    student, policy = Student(), ScriptedPolicy()
    (record,) = await ask(tmp_path, student, policy)
    assert (len(student.asked), record["sample_tokens"]) == (1, 0)


async def test_a_request_for_several_texts_has_no_samples(tmp_path: Path) -> None:
    student, policy = Student(), WantsSamples()
    await ask(tmp_path, student, policy, n=2)
    assert len(student.asked) == 1
