"""What the gateway believes that prefix caches hold: told to policies from the second turn on, compared with what the
upstreams say, and worked out only where somebody may want it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.observation import Prompt
from router.record import CachedRecord, DecisionRecord, Reason, StepRecord
from router.session import Role
from server.answers import Usage, read_usage
from server.conversations import Conversations, cached_record
from server.generation_request import GenerationRequest, read_request
from tests.server.gateways import Running, ScriptedPolicy, running_gateway
from tests.server.help.test_gateway import helping
from tests.server.test_decision_log import record
from tests.server.test_gateway import content
from tests.upstreams import Answer, scripted_pair

FIRST = [{"role": "user", "content": "What is 17 + 26? " * 10}]
SECOND = [*FIRST, {"role": "assistant", "content": "It is 43."}, {"role": "user", "content": "Sure?"}]
THIRD = [*SECOND, {"role": "assistant", "content": "Quite sure."}, {"role": "user", "content": "Why?"}]


def student(body: Mapping[str, Any]) -> Answer:
    return Answer(("It", " is", " 42", "."), (-0.1,) * 4, prompt_tokens=30 * len(body["messages"]))


def teacher(body: Mapping[str, Any]) -> Answer:
    cached = None if len(body["messages"]) == 1 else 32
    return Answer(("It", " is"), prompt_tokens=31 * len(body["messages"]), cached_tokens=cached)


async def talk(gateway: Running, *models: str, conversation: str = "", **body: Any) -> list[dict[str, Any]]:
    """Records of a conversation whose turns go to these models."""
    headers = {"x-tw-conversation": conversation} if conversation else None
    records = []
    for messages, model in zip((FIRST, SECOND, THIRD), models, strict=False):
        if body.get("stream"):
            _, answered, _ = await gateway.stream("", messages=messages, model=model)
        else:
            _, answered, _ = await gateway.chat("", headers, messages=messages, model=model)
        records.append(await gateway.record(answered))
    return records


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_policy_is_told_what_each_model_holds(tmp_path: Path, streamed: bool) -> None:
    async with scripted_pair(student, teacher) as pair:
        policy = ScriptedPolicy(lambda observation: 1.0 if observation.prompt.turn == 1 else -1.0)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100% of requests."
        ) as gateway:
            records = await talk(gateway, "auto", "auto", "auto", stream=streamed)
    first, second, third = [each.prompt for each in policy.seen]
    assert (first.student_cached_tokens, first.teacher_cached_tokens) == (None, None)
    # The client got the teacher's answer: of the student's draft nothing stands in the next prompt.
    assert second.teacher_cached_tokens == 31 + 2
    if not (streamed and second.student_cached_tokens is None):  # a draft may be left before its usage comes
        assert second.student_cached_tokens == 30
    # Then the student's answer was kept, and the teacher holds what it held.
    assert (third.student_cached_tokens, third.teacher_cached_tokens) == (30 * 3 + 4, 31 + 2)
    assert third.last_route == "student"
    assert records[0]["cached"] is None
    assert records[2]["cached"] == {
        "student_tokens": 94, "teacher_tokens": 33, "student_hits": None, "teacher_hits": None
    }  # fmt: skip


async def test_what_an_upstream_says_of_its_cache_stands_beside_what_was_believed(tmp_path: Path) -> None:
    async with (
        scripted_pair(student, teacher) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, budget="No limit on the teacher.") as gateway,
    ):
        whole = await talk(gateway, "teacher", "teacher", conversation="mine")
        parts = await talk(gateway, "teacher", "teacher", stream=True)
    expected = {"student_tokens": 0, "teacher_tokens": 33, "student_hits": None, "teacher_hits": 32}
    assert [each["cached"] for each in whole] == [each["cached"] for each in parts] == [None, expected]


async def test_no_more_is_believed_than_the_prompt_can_hold(tmp_path: Path) -> None:
    """A name that comes again for another conversation, in the middle of it."""
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    async with scripted_pair(lambda body: Answer(("x",), prompt_tokens=9000), teacher) as pair:
        policy = ScriptedPolicy()
        async with running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=policy) as gateway:
            await talk(gateway, "auto", conversation="again")
            await gateway.chat("", {"x-tw-conversation": "again"}, messages=short)
    assert policy.seen[1].prompt.student_cached_tokens == len("a\nb\nc") + 16 * 4


async def test_of_a_helped_answer_the_student_holds_all_and_the_teacher_nobody_knows_what(tmp_path: Path) -> None:
    async with helping(tmp_path) as (gateway, _):
        _, first, data = await gateway.chat("", messages=FIRST)
        assert (await gateway.record(first))["route"] == "mixed"
        reply = {"role": "assistant", "content": content(data)}
        _, second, _ = await gateway.chat("", messages=[*FIRST, reply, {"role": "user", "content": "Sure?"}])
        cached = (await gateway.record(second))["cached"]
    assert cached == {"student_tokens": 5 + 7, "teacher_tokens": None, "student_hits": None, "teacher_hits": None}


# What is remembered


def asked(messages: list[dict[str, str]]) -> GenerationRequest:
    import orjson

    return read_request("chat", orjson.dumps({"model": "auto", "messages": messages}))


def ended(route: str, **more: Any) -> DecisionRecord:
    return replace(record("dec"), conversation="c", route=route, steps=(), reason=Reason.POLICY_STUDENT, **more)


DEFERRED = (StepRecord("defer", "escalate", 1.0, 0.0, 0.9),)


def held(known: Conversations, messages: list[dict[str, str]] = SECOND) -> tuple[int | None, int | None]:
    prompt = known.told("c", asked(messages))
    return prompt.student_cached_tokens, prompt.teacher_cached_tokens


@pytest.mark.parametrize(
    ("first", "usage", "expected"),
    [
        (ended("student"), {"student": Usage(50, 5)}, (55, 0)),
        (ended("student"), {}, (None, 0)),  # it did not say
        (ended("teacher", teacher_calls=1), {"teacher": Usage(60, 6)}, (0, 66)),
        (ended("teacher", teacher_calls=1), {"teacher": Usage(600, 60, estimated=True)}, (0, None)),
        (replace(ended("teacher", teacher_calls=1), steps=DEFERRED), {"teacher": Usage(60, 6)}, (None, 66)),
        (
            ended("student", teacher_calls=1),
            {"student": Usage(50, 5), "teacher": Usage(60, 6)},
            (55, None),
        ),  # it failed
        (ended("mixed", teacher_calls=2), {"student": Usage(50, 5)}, (55, None)),  # it helped
        (replace(ended("teacher"), reason=Reason.STUDENT_FAILED), {}, (None, 0)),
    ],
)
def test_the_first_turn_says_who_holds_what(
    first: DecisionRecord, usage: dict[Role, Usage], expected: tuple[int | None, int | None]
) -> None:
    known = Conversations(one_teacher=True)
    known.note(first, 1, usage)
    assert held(known) == expected


def test_a_conversation_whose_beginning_nobody_saw_is_known_by_the_side_that_answered() -> None:
    known = Conversations(one_teacher=True)
    assert known.told("c", asked(SECOND)) == asked(SECOND).prompt
    known.note(ended("student"), 2, {"student": Usage(50, 5)})
    assert held(known, THIRD) == (55, None)


def test_a_name_that_begins_anew_is_another_conversation() -> None:
    known = Conversations(one_teacher=True)
    known.note(ended("teacher", teacher_calls=1), 1, {"teacher": Usage(60, 6)})
    known.note(ended("student"), 1, {"student": Usage(20, 2)})
    assert held(known) == (22, 0)


def test_of_several_teachers_nothing_is_believed() -> None:
    known = Conversations(one_teacher=False)
    known.note(ended("teacher", teacher_calls=1), 1, {"teacher": Usage(60, 6)})
    assert held(known) == (0, None)


def test_errors_and_requests_without_a_conversation_leave_no_trace() -> None:
    known = Conversations(one_teacher=True)
    known.note(ended("student", status=502), 1, {"student": Usage(50, 5)})
    known.note(replace(ended("student"), conversation=""), 1, {"student": Usage(50, 5)})
    assert held(known) == (None, None)
    assert known.told("", asked(SECOND)).last_route is None


def test_only_the_latest_conversations_are_remembered() -> None:
    known = Conversations(one_teacher=True, most=2)
    for name in ("a", "b", "a", "c"):
        known.note(replace(ended("student"), conversation=name), 1, {"student": Usage(50, 5)})
    assert [known.told(name, asked(SECOND)).last_route for name in "abc"] == ["student", None, "student"]


# What upstreams say


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"cached_tokens": 32, "audio_tokens": 0}, 32),
        ({"cached_tokens": 0}, 0),
        (None, None),
        ({}, None),
        ({"cached_tokens": None}, None),
        ({"cached_tokens": True}, None),
        ({"cached_tokens": -1}, None),
        ({"cached_tokens": 41}, None),  # more than there is
        ({"cached_tokens": "32"}, None),
        ([32], None),
    ],
)
def test_only_sensible_numbers_of_cached_tokens_are_taken(details: object, cached: int | None) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 2, "prompt_tokens_details": details}
    assert read_usage({"usage": usage}) == Usage(40, 2, cached)


def test_nothing_is_written_down_where_nothing_is_known() -> None:
    plain = Prompt("p", "p", 2, "student")
    assert cached_record(plain, {"student": Usage(5, 1)}) is None
    assert cached_record(plain, {"student": Usage(5, 1, 0)}) == CachedRecord(student_hits=0)
    assert cached_record(replace(plain, teacher_cached_tokens=3), {}) == CachedRecord(teacher_tokens=3)
