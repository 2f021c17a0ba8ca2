from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores
from server.frames import Frames, frame
from server.scoring.wire import batch_frame, observation_of, observation_row, outcome_row

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
drafts = st.builds(
    Draft,
    text=texts,
    logprobs=st.lists(numbers, max_size=3).map(tuple),
    entropies=st.lists(numbers, max_size=3).map(tuple),
    finish_reason=st.none() | st.sampled_from(["stop", "length"]),
    complete=st.booleans(),
    samples=st.lists(texts, max_size=3).map(tuple),
)
prompts = st.builds(
    lambda before, last, apart, *more: Prompt(last if apart else before + last, last, *more),
    texts,
    texts,
    st.booleans(),
    st.integers(1, 9),
    st.none() | st.sampled_from(["student", "teacher"]),
    st.none() | st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
)
observations = st.builds(
    Observation, st.sampled_from(Step), prompts, st.none() | drafts, st.builds(BudgetState, numbers, numbers)
)


@given(st.lists(observations, max_size=4), st.integers(1, 50))
def test_what_is_sent_in_pieces_of_any_size_arrives_as_it_was(sent: list[Observation], size: int) -> None:
    stream = batch_frame(sent) + frame({"then": "another"})
    frames = Frames()
    found = [content for at in range(0, len(stream), size) for content in frames.feed(stream[at : at + size])]
    assert len(found) == 2
    assert [observation_of(row) for row in found[0]] == sent
    assert found[1] == {"then": "another"}


def test_a_last_message_that_is_not_the_end_of_the_text_is_sent_whole() -> None:
    sent = Observation(Step.ROUTE, Prompt("question\nanswer so far", "question"))
    (rows,) = Frames().feed(batch_frame([sent]))
    assert observation_of(rows[0]) == sent


def test_rows_are_what_they_were_where_nothing_is_known_of_prefix_caches() -> None:
    """A worker from before that sends such rows to a child that it starts after an upgrade; and what comes to stand
    behind them in later versions is passed over."""
    plain = Observation(Step.ROUTE, Prompt("a", "a", 2, "student"))
    assert len(observation_row(plain)) == 8
    told = observation_row(replace(plain, prompt=replace(plain.prompt, teacher_cached_tokens=7)))
    assert told[:8] == observation_row(plain)
    assert told[8:] == [None, 7]
    assert observation_of([*told, "more, from a later version"]).prompt == Prompt("a", "a", 2, "student", None, 7)


def test_lone_surrogates_become_question_marks() -> None:
    sent = Observation(Step.DEFER, Prompt("a\ud800b", "a\ud800b"), Draft("\udfff"))
    (rows,) = Frames().feed(batch_frame([sent]))
    arrived = observation_of(rows[0])
    assert (arrived.prompt, arrived.draft) == (Prompt("a?b", "a?b"), Draft("?"))


def test_an_outcome_is_a_score_or_why_there_is_none() -> None:
    assert outcome_row(Scores(1.5, {"gain": 0.25})) == [1.5, {"gain": 0.25}]
    assert outcome_row(ValueError("no such word")) == [None, "ValueError: no such word"]
