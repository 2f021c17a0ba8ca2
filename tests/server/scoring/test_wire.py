from hypothesis import given
from hypothesis import strategies as st

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores
from server.frames import Frames, frame
from server.scoring.wire import batch_frame, observation_of, outcome_row

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
    lambda before, last, apart, turn, route: Prompt(last if apart else before + last, last, turn, route),
    texts,
    texts,
    st.booleans(),
    st.integers(1, 9),
    st.none() | st.sampled_from(["student", "teacher"]),
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


def test_lone_surrogates_become_question_marks() -> None:
    sent = Observation(Step.DEFER, Prompt("a\ud800b", "a\ud800b"), Draft("\udfff"))
    (rows,) = Frames().feed(batch_frame([sent]))
    arrived = observation_of(rows[0])
    assert (arrived.prompt, arrived.draft) == (Prompt("a?b", "a?b"), Draft("?"))


def test_an_outcome_is_a_score_or_why_there_is_none() -> None:
    assert outcome_row(Scores(1.5, {"gain": 0.25})) == [1.5, {"gain": 0.25}]
    assert outcome_row(ValueError("no such word")) == [None, "ValueError: no such word"]
