"""Estimators read one text as they read it among others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policies.estimators import NgramLinear
from policies.prompt_features import NGRAMS

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
