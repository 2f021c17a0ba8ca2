"""What is compiled says what Python says; and it is there where it could be made."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_build import SOURCES, CannotCompile, compiled, source_hash
from policies import compiled as seam
from policies import draft_features, prompt_features
from policies.action import Step
from policies.artifact import load_policy
from policies.compiled import native
from policies.draft_features import DRAFT_FEATURES, read_draft, read_draft_in_python
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores
from policies.prompt_features import FEATURES_VERSION, PROMPT_FEATURES, read_prompt, read_prompt_in_python
from policies.text_estimators import Estimators
from policies.wheels import WheelsPolicy

ROOT = Path(__file__).parents[2]

needs_native = pytest.mark.skipif(native is None, reason="nothing is compiled here")

# Everything that a reader looks for, whole and broken, among whatever Unicode holds.
PIECES = (
    "the answer is ", "Answer: ", "answers", "final answer", "####", "(C)", "B", "boxed{7}",
    " 12", "-3.5", "$1,234.50", "0.1", "9,,,1", "7,.5", "1.", "12345678901234567", "9" * 400, "=", "2 + 2 = 4", "3*3=8",
    "\n", "\n\n", " \n\t", "A. one\n", "B. two\n", "C) none of these\n", "D) both\n",
    "maybe ", "I think ", "assumed ", "sorry, I cannot ", "I don't know", "so ", "because ", "how many ", "WHY ",
    "é", "日本。", "質問ですか？", "\x1c", "\x00", "\x85", "\u3000", "\u2029", "\ud800", "\U0001f600",
    "İs", "\u212a", "ſ", "٣", "²",  # what is lower case, or a digit, to Python alone
    "```", "__", "?", "\\", ".", ")", "'", " ",
)  # fmt: skip
TEXT = st.text(st.characters(codec=None), max_size=200) | st.lists(
    st.sampled_from(PIECES) | st.characters(codec=None), max_size=60
).map("".join)
LOGPROBS = st.lists(
    st.floats(-5.0, 0.0) | st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([-0.1, 0.0, -0.693, -30.0]),
    max_size=40,
).map(tuple)
PROMPTS = st.builds(
    Prompt,
    text=TEXT,
    last_user=st.text(max_size=20),
    turn=st.integers(1, 10**9),
    last_route=st.sampled_from([None, "student", "teacher"]),
    student_cached_tokens=st.none() | st.integers(0, 10**6),
)
DRAFTS = st.builds(
    Draft,
    text=TEXT,
    logprobs=LOGPROBS,
    entropies=LOGPROBS,
    finish_reason=st.sampled_from([None, "stop", "length"]),
    complete=st.booleans(),
)


def test_what_can_be_compiled_here_is_compiled(tmp_path: Path) -> None:
    """Fails where a compiler is at hand and its work is missing: a gateway would be slow and nobody would know."""
    found = [importlib.util.find_spec(f"policies.{Path(source).stem}") is not None for source in SOURCES]
    if any(found):
        assert all(found), "run make venv"
        for source in SOURCES:
            module = importlib.import_module(f"policies.{Path(source).stem}")
            assert source_hash(ROOT, source) == module.MADE_FROM, f"{source} has changed since: run make venv"
        assert prompt_features._READER is not None, "MADE_FOR in policies/_native.pyx knows other features"
        assert draft_features._READER is not None
        return
    with pytest.raises(CannotCompile):
        compiled(ROOT, SOURCES[0], tmp_path)


def test_features_of_another_version_are_left_to_python() -> None:
    assert seam.reader(FEATURES_VERSION + 1, PROMPT_FEATURES, {}) is None
    assert seam.reader(FEATURES_VERSION, PROMPT_FEATURES[1:], {}) is None


@needs_native
@given(PROMPTS)
@settings(max_examples=300, deadline=None)
def test_prompts_are_read_alike(prompt: Prompt) -> None:
    found, expected = read_prompt(prompt), read_prompt_in_python(prompt)
    assert apart(PROMPT_FEATURES, found.dense, expected.dense) == {}
    np.testing.assert_array_equal(found.ngrams, expected.ngrams, strict=True)
    assert (found.numbers, found.text, found.options) == (expected.numbers, expected.text, expected.options)


@needs_native
@given(PROMPTS, DRAFTS)
@settings(max_examples=600, deadline=None)
def test_drafts_are_read_alike(prompt: Prompt, draft: Draft) -> None:
    view = read_prompt_in_python(prompt)
    (found, ngrams), (expected, expected_ngrams) = read_draft(draft, view), read_draft_in_python(draft, view)
    assert apart(DRAFT_FEATURES, found, expected) == {}
    np.testing.assert_array_equal(ngrams, expected_ngrams, strict=True)


@needs_native
def test_long_texts_are_read_alike() -> None:
    for text in ("two words, 3.5 numbers\n" * 2000, "1" * 40_000, "日本語 " * 9000, "=" * 20_000, "a" * 100_000):
        prompt, draft = Prompt(text, text), Draft(text, (-0.5,) * 9000)
        view, expected = read_prompt(prompt), read_prompt_in_python(prompt)
        assert apart(PROMPT_FEATURES, view.dense, expected.dense) == {}
        assert apart(DRAFT_FEATURES, read_draft(draft, view)[0], read_draft_in_python(draft, view)[0]) == {}


def apart(names: tuple[str, ...], found: np.ndarray, expected: np.ndarray) -> dict[str, tuple[float, float]]:
    """The features that differ."""
    assert found.shape == expected.shape == (len(names),)
    different = ~np.isclose(found, expected, rtol=1e-12, atol=1e-12)
    return {names[i]: (float(found[i]), float(expected[i])) for i in np.flatnonzero(different)}


# Scores


def shipped(*, in_python: bool = False, **changes: object) -> WheelsPolicy:
    policy = load_policy(ROOT / "server" / "shipped" / "policy")
    assert isinstance(policy, WheelsPolicy)
    policy = replace(policy, **changes)  # type: ignore[arg-type]
    if in_python:
        vars(policy)["_compiled"] = {}
    return policy


OBSERVATIONS = st.lists(
    st.builds(
        Observation,
        step=st.sampled_from([Step.ROUTE, Step.DEFER]),
        prompt=PROMPTS,
        draft=st.none() | DRAFTS,
        budget=st.builds(BudgetState, share=st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.0, 1.0)),
    ),
    min_size=1,
    max_size=5,
)


@needs_native
@pytest.mark.parametrize("steps", [(Step.DEFER,), (Step.ROUTE, Step.DEFER)])
@given(observations=OBSERVATIONS)
@settings(max_examples=100, deadline=None)
def test_scores_are_alike(steps: tuple[Step, ...], observations: list[Observation]) -> None:
    # With a price on drafts, so that the score at the first step has all its terms.
    policy, reference = (shipped(steps=steps, draft_cost=0.1, in_python=each) for each in (False, True))
    assert set(policy._compiled) == {Step.ROUTE, Step.DEFER}
    assert numbers(policy.score_batch(observations)) == pytest.approx(
        numbers(reference.score_batch(observations)), rel=1e-9, abs=1e-9
    )


def numbers(scores: list[Scores]) -> list[float]:
    return [number for each in scores for number in (each.score, *each.details.values())]


@needs_native
def test_arrays_that_do_not_fit_are_left_to_python() -> None:
    policy = shipped()
    forest = policy.estimators.prompt.forest
    for broken in (
        replace(forest, feature=forest.feature + 1000),  # would be read behind the last feature
        replace(forest, children=forest.children + len(forest.feature)),
        replace(forest, roots=forest.roots + len(forest.feature)),
        replace(forest, starts=forest.starts + len(forest.roots)),
        replace(forest, threshold=forest.threshold[:-1]),
        replace(forest, threshold=forest.threshold.astype(np.float32)),
    ):
        estimators = Estimators(replace(policy.estimators.prompt, forest=broken), policy.estimators.draft)
        assert replace(policy, estimators=estimators)._compiled == {}


@needs_native
def test_an_ngram_outside_the_table_is_refused() -> None:
    policy = shipped()
    forward = policy._compiled[Step.ROUTE]
    features = np.zeros(len(PROMPT_FEATURES))
    for index in (-1, 1 << 15):
        with pytest.raises(IndexError):
            forward(features, np.array([index]), np.empty(0), np.empty(0, np.int64), 0.0, 0.0)
    with pytest.raises(ValueError, match="another size"):
        forward(features[1:], np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), 0.0, 0.0)
