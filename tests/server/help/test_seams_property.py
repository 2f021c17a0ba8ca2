"""No text is lost or doubled at any seam, wherever the seams fall: held against the plain concatenation."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.help.answer import MixedAnswer
from server.help.delivery import events
from server.help.shapes import Shapes
from tests.server.help.models import Ledger, Model, asked, mixed, run

TEXT = st.text(st.sampled_from("ab \n.éñ日🙂\t"), min_size=1, max_size=40)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    text = draw(TEXT)
    size = len(text.encode())
    places = st.sets(st.integers(0, size), max_size=8)
    return {
        "text": text,
        "student_cuts": sorted(draw(st.sets(st.integers(1, size), max_size=20))),
        "teacher_cuts": sorted(draw(st.sets(st.integers(1, size), max_size=20))),
        "asks": draw(places),
        "doubts": draw(places),
        "by": draw(st.sampled_from(["student", "policy"])),
        "k": draw(st.integers(1, 5)),
        "watched": draw(st.integers(1, 4)),
        "batch": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "trims": (draw(st.booleans()), draw(st.booleans())),
        "grants": draw(st.lists(st.booleans(), max_size=6)),
        "endpoint": draw(st.sampled_from(["chat", "completions"])),
        "stop": draw(st.lists(st.text("ab .日", min_size=1, max_size=3), max_size=2)),
        "stream": draw(st.booleans()),
        "unknown_stop": draw(st.booleans()),
        "per_chunk": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
    }


def until_stop(text: str, stops: list[str]) -> str:
    """What an answer is that ends before the first stop string; of two at one place, nothing depends on which."""
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


async def streamed(answer: MixedAnswer, shapes: Shapes, endpoint: str) -> str:
    await answer.begin()
    sent = b"".join([event async for event in events(answer, shapes)])
    answer.close()
    found = [json.loads(event[6:]) for event in sent.split(b"\n\n")[:-2]]
    choices = [chunk["choices"][0] for chunk in found]
    assert sent.endswith(b"data: [DONE]\n\n")
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    return "".join(choice["delta"]["content"] if endpoint == "chat" else choice["text"] for choice in choices)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_what_the_client_gets_is_the_concatenation_of_what_was_written(case: dict[str, Any]) -> None:
    text, trims = case["text"], case["trims"] if case["endpoint"] == "chat" else (False, False)
    if any(trims):
        text = "x" + text  # a template that trims would make a text of white space alone an empty message
    student = Model(
        "student", text, case["student_cuts"], set(case["asks"]), case["doubts"], case["batch"][0], trims[0]
    )
    teacher = Model("teacher", text, case["teacher_cuts"], per_batch=case["batch"][1], trims=trims[1])
    student.per_chunk, teacher.per_chunk = case["per_chunk"]
    student.unknown_stop = teacher.unknown_stop = case["unknown_stop"]
    request = asked(case["endpoint"], stop=case["stop"], stream=case["stream"])
    ledger = Ledger(list(case["grants"]))
    answer = mixed(
        request, student, teacher, ledger, by=case["by"], tokens=case["k"], watched_tokens=case["watched"],
        retry_tokens=4,
    )  # fmt: skip
    expected = until_stop(text, case["stop"])
    if case["stream"]:
        got = asyncio.run(streamed(answer, Shapes(request, "<help>"), case["endpoint"]))
    else:
        _, outs = asyncio.run(run(answer))
        whole = json.loads(Shapes(request, "<help>").whole(outs, "stop", None, answer.usage))["choices"][0]
        got = whole["message"]["content"] if case["endpoint"] == "chat" else whole["text"]
    assert got == expected
    assert answer.line.finish == "stop"
    assert {help_.outcome for help_ in ledger.given} <= {"settled", "released"}
    assert answer.line.used == sum(segment.tokens for segment in answer.segments)


@settings(max_examples=60, deadline=None)
@given(st.text("ab .", min_size=1, max_size=40), st.sets(st.integers(0, 40), max_size=8), st.integers(1, 5),
       st.integers(1, 50), st.sampled_from(["student", "policy"]), st.integers(1, 4))  # fmt: skip
def test_max_tokens_holds_over_all_seams(text: str, places: set[int], k: int, most: int, by: str, watched: int) -> None:
    """One token per character here, so that the limit can be counted in characters."""
    student = Model("student", text, asks_at=set(places), doubts_at=places)
    teacher = Model("teacher", text)
    request = asked("completions", max_tokens=most)
    answer = mixed(request, student, teacher, by=by, tokens=k, watched_tokens=watched)
    got, _ = asyncio.run(run(answer))
    assert got == text[:most]
    assert answer.line.used <= most
    assert answer.line.finish == ("length" if len(text) >= most else "stop")
