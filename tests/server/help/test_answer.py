"""The loop between student and teacher: what either may do wrong, and what the client sees of it."""

import json
import math
from typing import Any

import pytest

from server.errors import UpstreamBadAnswer
from server.generation_request import Endpoint
from server.help.shapes import Shapes
from server.help.suits import HelpOff, why_not
from server.help.wire import completion_entries
from tests.server.help.models import HELP_ID, Ledger, Model, asked, mixed, run

TEXT = "The answer is 42."


def told(answer: Any) -> list[tuple[str, int, str, str]]:
    return [(each.by, each.tokens, each.reason, each.ended) for each in answer.segments]


async def test_the_teacher_writes_where_the_student_asks() -> None:
    student, teacher = Model("student", TEXT, asks_at={4}), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher, tokens=6)
    assert (await run(answer))[0] == TEXT
    assert told(answer) == [
        ("student", 4, "begin", "help"),
        ("teacher", 6, "asked", "length"),
        ("student", 8, "handed_back", "stop"),
    ]
    # 17 characters and the student's own end, but not the token it asked with.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 18)
    assert (answer.teacher_calls, answer.helped) == (1, True)
    assert teacher.bodies[0]["max_tokens"] == 6
    assert HELP_ID in student.bodies[0]["stop_token_ids"]


async def test_a_doubted_token_is_the_teachers_and_never_goes_out() -> None:
    student, teacher = Model("student", TEXT, doubts_at={14}), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher, by="policy", tokens=2, watched_tokens=4)
    assert (await run(answer))[0] == TEXT
    assert told(answer)[:2] == [("student", 14, "begin", "help"), ("teacher", 2, "doubted", "length")]
    assert answer.segments[1].score == pytest.approx(5.0, abs=0.001)
    assert "stop_token_ids" not in student.bodies[0]


async def test_refused_the_student_goes_on_without_asking_and_may_ask_later() -> None:
    student, teacher = Model("student", TEXT, asks_at={4, 13}), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher, Ledger([False, True]), tokens=2, retry_tokens=5)
    assert (await run(answer))[0] == TEXT
    assert told(answer) == [
        ("student", 4, "begin", "help"),
        ("teacher", 0, "asked", "refused"),
        ("student", 5, "handed_back", "length"),
        ("student", 4, "handed_back", "help"),
        ("teacher", 2, "asked", "length"),
        ("student", 3, "handed_back", "stop"),
    ]
    assert student.bodies[1]["logit_bias"] == {str(HELP_ID): -100.0}
    assert student.bodies[1]["max_tokens"] == 5
    assert "logit_bias" not in student.bodies[2]


async def test_refused_a_doubted_student_is_not_interrupted() -> None:
    student, teacher = Model("student", TEXT, doubts_at={4, 6}), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher, Ledger([False]), by="policy")
    assert (await run(answer))[0] == TEXT
    assert len(student.bodies) == 1
    assert told(answer) == [("teacher", 0, "doubted", "refused"), ("student", 18, "begin", "stop")]


@pytest.mark.parametrize(
    ("instead", "ended"),
    [
        ([], "empty"),
        (["The right answer is ", "a number and I like it"], "repeated"),
        (["The answer is 42", " of course"], "repeated"),
    ],
)
async def test_a_teacher_that_says_nothing_or_the_same_again_is_dropped(instead: list[str], ended: str) -> None:
    before = "The right answer is a " if instead[:1] == ["The right answer is "] else "We know: The answer is 42"
    student = Model("student", before + " and no more.", asks_at={len(before)})
    teacher = Model("teacher", "", instead=instead, unknown_stop=True)
    ledger = Ledger()
    answer = mixed(asked(), student, teacher, ledger, tokens=64)
    if ended == "empty":
        teacher.instead = []
        teacher._bill = lambda count: {"choices": []}  # type: ignore[method-assign]
    assert (await run(answer))[0] == student.text
    assert told(answer)[1] == ("teacher", 0, "asked", ended)
    assert [help_.outcome for help_ in ledger.given] == ["settled"]


async def test_a_teacher_that_says_only_that_it_is_over_ends_the_answer() -> None:
    student, teacher = Model("student", TEXT + " And so on.", asks_at={len(TEXT)}), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher)
    assert (await run(answer))[0] == TEXT
    assert answer.line.finish == "stop"


async def test_a_teacher_that_ends_before_the_first_word_is_not_believed() -> None:
    student, teacher = Model("student", TEXT, asks_at={0}), Model("teacher", "")
    answer = mixed(asked(), student, teacher)
    assert (await run(answer))[0] == TEXT
    assert told(answer)[1][3] == "empty"


@pytest.mark.parametrize(("fails_after", "outcome", "kept"), [(0, "settled", 0), (4, "settled", 4)])
async def test_a_teacher_that_dies_leaves_what_it_wrote(fails_after: int, outcome: str, kept: int) -> None:
    student, teacher = Model("student", TEXT, asks_at={4}), Model("teacher", TEXT, fails_after=fails_after)
    ledger = Ledger()
    answer = mixed(asked(), student, teacher, ledger)
    assert (await run(answer))[0] == TEXT
    assert told(answer)[1] == ("teacher", kept, "asked", "failed")
    assert [(help_.outcome, help_.written) for help_ in ledger.given] == [(outcome, kept)]


async def test_a_student_that_dies_in_the_middle_is_the_clients_to_hear_of() -> None:
    student = Model("student", TEXT, fails_after=5)
    answer = mixed(asked(), student, Model("teacher", TEXT))
    with pytest.raises(UpstreamBadAnswer):
        await run(answer)
    answer.close("failed")
    assert told(answer) == [("student", 5, "begin", "failed")]


async def test_help_at_the_very_last_token_writes_one() -> None:
    student, teacher = Model("student", TEXT, asks_at={4}), Model("teacher", TEXT)
    answer = mixed(asked(max_tokens=5), student, teacher, tokens=6)
    assert (await run(answer))[0] == TEXT[:5]
    assert (answer.line.finish, answer.usage.completion_tokens) == ("length", 5)
    assert teacher.bodies[0]["max_tokens"] == 1


async def test_a_client_that_leaves_during_a_help_closes_both_and_is_billed() -> None:
    student, teacher, ledger = Model("student", TEXT, asks_at={4}), Model("teacher", TEXT * 9), Ledger()
    student.text = teacher.text
    answer = mixed(asked(), student, teacher, ledger, tokens=100)
    await answer.begin()
    text = ""
    async for out in answer.pieces():
        text += out.text
        if len(text) > 60:
            break
    answer.close()
    assert [help_.outcome for help_ in ledger.given] == ["settled"]
    assert told(answer)[-1][3] == "left"
    assert (student.closed, teacher.closed) == (1, 1)


async def test_helps_end_with_the_answers_share_of_them() -> None:
    student, teacher = Model("student", TEXT, asks_at=set(range(1, 17, 3))), Model("teacher", TEXT)
    answer = mixed(asked(), student, teacher, tokens=1, max_segments=2)
    assert (await run(answer))[0] == TEXT
    assert answer.teacher_calls == 2
    assert str(HELP_ID) in student.bodies[-1]["logit_bias"]


async def test_the_token_it_asks_with_is_shown_nowhere() -> None:
    for endpoint in ("chat", "completions"):
        fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if endpoint == "chat" else {"logprobs": 2}
        request = asked(endpoint, **fields)
        student, teacher = Model("student", TEXT, asks_at={4, 10}), Model("teacher", TEXT)
        answer = mixed(request, student, teacher, tokens=3)
        text, outs = await run(answer)
        shapes = Shapes(request, "<help>")
        whole = shapes.whole(outs, "stop", None, answer.usage)
        assert text == TEXT
        assert b"help" not in whole
        logprobs = json.loads(whole)["choices"][0]["logprobs"]
        tokens = [e["token"] for e in logprobs["content"]] if endpoint == "chat" else logprobs["tokens"]
        assert "".join(tokens) == TEXT


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_a_watched_student_that_would_ask_is_as_sure_as_its_words_are(endpoint: Endpoint) -> None:
    """Its token is banned, and most of the probability is that token's: neither doubt nor certainty is in that."""
    student, teacher = Model("student", TEXT, would_ask_at={4, 10}, doubts_at={10}), Model("teacher", TEXT)
    answer = mixed(asked(endpoint), student, teacher, by="policy", token_id=HELP_ID, tokens=3)
    assert (await run(answer))[0] == TEXT
    assert [(by, tokens) for by, tokens, *_ in told(answer)] == [("student", 10), ("teacher", 3), ("student", 5)]
    # The likeliest may be the banned one: the next is to be seen as well.
    assert student.bodies[0]["top_logprobs" if endpoint == "chat" else "logprobs"] == 2


@pytest.mark.parametrize(
    ("tops", "largest"),
    [
        ({"a": 0.3}, 0.3),
        ({"a": 0.3, "b": 0.5}, 0.5),
        ({"<help>": 0.7}, 1.0),
        ({"<help>": 0.4, "b": 0.5}, 0.5 / 0.6),
        ({"<help>": 0.4, "a": 0.3}, 0.3 / 0.6),
        ({"<help>": 1.0, "a": 1e-9}, 1.0),
    ],
)
def test_what_a_banned_token_would_have_had_is_the_others(tops: dict[str, float], largest: float) -> None:
    told = {token: math.log(p) for token, p in tops.items()}
    said = {"tokens": ["a"], "token_logprobs": [told.get("a", math.log(0.3))], "top_logprobs": [told]}
    (entry,) = completion_entries(said)
    assert math.exp(entry.largest("<help>")) == pytest.approx(largest, abs=0.01)
    assert entry.largest() == max(told.values())


async def test_a_stop_string_over_a_seam_ends_the_answer_before_it() -> None:
    student, teacher = Model("student", TEXT, asks_at={12}), Model("teacher", TEXT)
    answer = mixed(asked(stop="is 42"), student, teacher, tokens=2)
    assert (await run(answer))[0] == "The answer "
    assert (answer.line.finish, answer.line.stop_reason) == ("stop", "is 42")
    assert all("stop" not in body for body in (*student.bodies, *teacher.bodies))


async def test_a_student_that_asks_although_it_must_not_comes_to_an_end() -> None:
    class Stubborn(Model):
        def _events(self, path: str, body: dict[str, Any]) -> Any:
            yield self._chunk(True, body, "", "<help>", -1.0, "stop", HELP_ID)
            yield self._bill(1)

    answer = mixed(asked(), Stubborn("student", TEXT), Model("teacher", TEXT), Ledger([False] * 99))
    assert (await run(answer))[0] == ""
    assert answer.line.finish == "stop"


async def test_a_seed_never_draws_the_same_numbers_twice() -> None:
    student, teacher = Model("student", TEXT, asks_at={4}), Model("teacher", TEXT)
    await run(mixed(asked(seed=5), student, teacher, tokens=2))
    assert [body["seed"] for body in (*student.bodies, *teacher.bodies)] == [5, 7, 6]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),
        ({"n": 2}, HelpOff.CHOICES),
        ({"tools": [{"type": "function"}]}, HelpOff.TOOLS),
        ({"tool_choice": "none"}, None),
        ({"response_format": {"type": "json_object"}}, HelpOff.JSON),
        ({"response_format": {"type": "text"}}, None),
        ({"structured_outputs": {"regex": "a"}}, HelpOff.JSON),
        ({"min_tokens": 5}, HelpOff.PARAMETER),
        ({"stop": [""]}, HelpOff.PARAMETER),
        ({"max_tokens": 0}, HelpOff.NO_TOKENS),
    ],
)
def test_what_cannot_be_helped(fields: dict[str, Any], why: HelpOff | None) -> None:
    assert why_not(asked(**fields)) == why
