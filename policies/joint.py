"""The estimators of the prompt and of the draft, read together: what numpy costs a call is paid once for both.

A gateway scores a few requests at a time, and then calls cost more than sums. So what both stages do alike is done on
arrays that hold both: their n-gram tables one behind the other, their features side by side, their trees in one forest.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from policies.estimators import DenseLinear, Forest, NgramLinear
from policies.prompt_features import Floats, Ints

if TYPE_CHECKING:
    from policies.text_estimators import StageEstimators


class JointEstimators:
    """Says what `prompt` and then `draft` say, up to rounding."""

    def __init__(self, prompt: "StageEstimators", draft: "StageEstimators") -> None:
        self._ngrams = _behind(prompt.ngrams, draft.ngrams)
        self._table = len(prompt.ngrams.idf)
        self._biases = prompt.ngrams.bias, draft.ngrams.bias
        self._linear = _beside(prompt.linear, draft.linear)
        self._forest = _together(prompt.forest, draft.forest, len(prompt.linear.mean))
        self._of_prompt = len(prompt.linear.bias), len(prompt.forest.base)

    def __call__(
        self, prompts: Floats, drafts: Floats, prompt_ngrams: Sequence[Ints], draft_ngrams: Sequence[Ints]
    ) -> Floats:
        """Dense features (B, P) and (B, D), hashed n-grams of B texts each -> (B, F): estimates from the prompt,
        estimates with the draft, dense features."""
        rows = len(prompts)
        counted = self._ngrams([*prompt_ngrams, *(each + self._table for each in draft_ngrams)])
        first, second = counted[:rows] + self._biases[0], counted[rows:] + self._biases[1]
        features = np.concatenate([prompts, first, prompts, drafts, first, second], axis=1)
        linear, trees = self._linear(features), self._forest(features)
        a, b = self._of_prompt
        return np.concatenate(
            [first, linear[:, :a], trees[:, :b], second, linear[:, a:], trees[:, b:], prompts, drafts], axis=1
        )


def _behind(first: NgramLinear, second: NgramLinear) -> NgramLinear:
    """One table for the n-grams of both, without bias: those of the second begin where the first's end."""
    return NgramLinear(
        np.concatenate([first.idf, second.idf]),
        np.concatenate([first.weights, second.weights]),
        np.zeros_like(first.bias),
    )


def _beside(first: DenseLinear, second: DenseLinear) -> DenseLinear:
    (rows, columns), (more_rows, more_columns) = first.weights.shape, second.weights.shape
    weights = np.zeros((rows + more_rows, columns + more_columns))
    weights[:rows, :columns] = first.weights
    weights[rows:, columns:] = second.weights
    return DenseLinear(
        np.concatenate([first.mean, second.mean]),
        np.concatenate([first.std, second.std]),
        weights,
        np.concatenate([first.bias, second.bias]),
    )


def _together(first: Forest, second: Forest, features: int) -> Forest:
    """The second's features stand behind the first's, of which there are `features`."""
    nodes, trees = len(first.feature), len(first.roots)
    return Forest(
        np.concatenate([first.feature, second.feature + features]).astype(np.int32),
        np.concatenate([first.threshold, second.threshold]),
        np.concatenate([first.children, second.children + nodes]).astype(np.int32),
        np.concatenate([first.value, second.value]),
        np.concatenate([first.roots, second.roots + nodes]).astype(np.int32),
        np.concatenate([first.starts, second.starts + trees]).astype(np.int32),
        np.concatenate([first.base, second.base]),
        np.maximum(first.depth, second.depth),
    )
