"""Estimators read one text as they read it among others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policies.estimators import DenseLinear, Forest, NgramLinear
from policies.joint import JointEstimators
from policies.prompt_features import NGRAMS
from policies.text_estimators import StageEstimators

RNG = np.random.default_rng(0)
# Most n-grams were never seen in training, and texts repeat those that were.
LINEAR = NgramLinear(
    np.where(RNG.random(NGRAMS) < 0.5, RNG.random(NGRAMS) * 7, 0.0).astype(np.float32),
    RNG.normal(size=(NGRAMS, 2)).astype(np.float32),
    RNG.normal(size=2),
)
texts = st.lists(
    st.lists(st.integers(0, 40) | st.integers(0, NGRAMS - 1), max_size=30).map(lambda each: np.array(each, np.int64)),
    min_size=2,
    max_size=5,
)


@given(texts)
def test_a_text_alone_is_read_as_it_is_among_others(ngrams: list[np.ndarray]) -> None:
    together = LINEAR(ngrams)
    alone = np.concatenate([LINEAR([each]) for each in ngrams])
    np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-12)


def _stage(plain: int, trees: int) -> StageEstimators:
    """Of `plain` features; its trees compare all it sees, each twice."""
    seen = plain + 2
    nodes = 3 + 4 * np.arange(trees)
    feature, children = np.zeros(4 * trees + 3, np.int32), np.repeat(np.arange(4 * trees + 3, dtype=np.int32), 2)
    for node in nodes - 3:  # a root, a node on its left, and their leaves
        feature[node : node + 2] = RNG.integers(0, seen, 2)
        children[2 * node : 2 * node + 4] = [node + 1, node + 2, node + 3, node + 2]
    forest = Forest(
        feature,
        RNG.normal(size=len(feature)),
        children.astype(np.int32),
        RNG.normal(size=len(feature)),
        (nodes - 3).astype(np.int32),
        np.array([0, trees // 2], np.int32),
        RNG.normal(size=2),
        np.array(2, np.int32),
    )
    linear = DenseLinear(RNG.normal(size=seen), RNG.random(seen) + 0.1, RNG.normal(size=(seen, 2)), RNG.normal(size=2))
    return StageEstimators(LINEAR, linear, forest)


@given(texts, texts)
def test_both_stages_read_together_say_what_they_say_one_after_the_other(
    prompt_ngrams: list[np.ndarray], draft_ngrams: list[np.ndarray]
) -> None:
    rows = min(len(prompt_ngrams), len(draft_ngrams))
    prompt_ngrams, draft_ngrams = prompt_ngrams[:rows], draft_ngrams[:rows]
    prompt, draft = _stage(5, 12), _stage(5 + 7 + 2, 8)
    prompts, drafts = RNG.normal(size=(rows, 5)), RNG.normal(size=(rows, 7))
    before = prompt(prompts, prompt_ngrams)
    after = draft(np.concatenate([prompts, drafts, before[:, :2]], axis=1), draft_ngrams)
    together = JointEstimators(prompt, draft)(prompts, drafts, prompt_ngrams, draft_ngrams)
    expected = np.concatenate([before, after, prompts, drafts], axis=1)
    np.testing.assert_allclose(together, expected, rtol=1e-9, atol=1e-12)
