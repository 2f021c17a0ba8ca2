"""What a teacher call will cost, from the prompt: ridge regression of the logarithm, in numpy alone.

Idea: how long a teacher writes depends on the kind of question, and n-grams and shape tell the kind. The features are
the policy's own (`policies.features`), so in service nothing more has to be read off the text. The joint system of
n-grams and dense features is solved by conjugate gradients on the ragged lists as they are.

A cap on money reserves more than the expected cost: `most` is the multiple of it that all but a small part of the
training rows, out of fold, stay below.
"""

from dataclasses import dataclass

import numpy as np

from policies.cached import CACHE_FEATURES
from policies.cost import CLIP, CostModel
from policies.prompt_features import NGRAMS, PROMPT_FEATURES, Floats, Ints
from training.dataset import Bools, Ragged, Table

FOLDS = 5
LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class CostConfig:
    ridge: float = 1.0
    dense_scale: float = 0.6
    """Length of the dense features beside that of the n-grams, which is one."""
    least_documents: int = 2
    within: float = 0.99
    """The part of calls that cost no more than `most` times what was expected."""
    iterations: int = 200


class CannotExpectCost(ValueError):
    """Too few rows say what the teacher cost."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedCost:
    model: CostModel
    expected: Floats
    """(N,) for every row, out of fold on the training rows."""


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """Rows of hashed n-grams, weighed and of length one, beside scaled dense features."""

    index: Ints
    value: Floats
    starts: Ints
    dense: Floats

    def times(self, weights: Floats) -> Floats:
        """(NGRAMS + F,) -> (N,)"""
        products = np.concatenate([[0.0], np.cumsum(self.value * weights[self.index])])
        out: Floats = products[self.starts[1:]] - products[self.starts[:-1]] + self.dense @ weights[NGRAMS:]
        return out

    def transposed(self, rows: Floats) -> Floats:
        """(N,) -> (NGRAMS + F,)"""
        spread = np.repeat(rows, np.diff(self.starts))
        counted = np.bincount(self.index, self.value * spread, NGRAMS)
        return np.concatenate([counted, rows @ self.dense])


def _tfidf(ngrams: Ragged, train: Bools, least: int) -> tuple[Ints, Floats, Ints, Floats]:
    """(index, value, starts, idf): what `NgramLinear` computes for one row, for all of them."""
    row = np.repeat(np.arange(len(ngrams)), np.diff(ngrams.starts))
    keys, counts = np.unique(row * NGRAMS + ngrams.flat, return_counts=True)
    row, index = keys // NGRAMS, keys % NGRAMS
    documents = np.bincount(index[train[row]], minlength=NGRAMS)
    idf = np.log((train.sum() + 1) / (documents + 1)) + 1
    idf[documents < least] = 0.0
    value = (1.0 + np.log(counts)) * idf[index]
    length = np.sqrt(np.bincount(row, value**2, len(ngrams)))
    value /= np.where(length == 0, 1.0, length)[row]
    return index, value, np.searchsorted(row, np.arange(len(ngrams) + 1)), idf


def _solve(features: _Features, target: Floats, rows: Bools, config: CostConfig) -> Floats:
    """Ridge weights, (NGRAMS + F,), of `target` (centred) on the rows, by conjugate gradients."""
    mask = rows.astype(np.float64)
    weights = np.zeros(NGRAMS + features.dense.shape[1])
    residual = features.transposed(np.where(rows, target, 0.0))
    direction, size = residual.copy(), float(residual @ residual)
    goal = 1e-12 * size
    for _ in range(config.iterations):
        if size <= goal:
            break
        applied = features.transposed(mask * features.times(direction)) + config.ridge * direction
        step = size / float(direction @ applied)
        weights += step * direction
        residual -= step * applied
        before, size = size, float(residual @ residual)
        direction = residual + size / before * direction
    return weights


def fit_cost(table: Table, cost: Floats, config: CostConfig | None = None, *, cached: bool = False) -> FittedCost:
    """Fits on the training rows whose `cost` (N,) is known and above zero. Raises CannotExpectCost.

    `cached`: the last of the prompt's features say what prefix caches hold (`policies.cached`); bills may hang on it.
    """
    config = config or CostConfig()
    known = (table.split == "train") & (np.nan_to_num(cost) > 0)
    if known.sum() < LEAST_ROWS:
        raise CannotExpectCost(
            f"{known.sum()} training rows say what the teacher cost (column teacher_cost); {LEAST_ROWS} are needed"
        )
    index, value, starts, idf = _tfidf(table.prompt_ngrams, known, config.least_documents)
    # What an encoder adds behind the plain features is not looked at: length and words say what a call will cost.
    prompt = table.prompt[:, : len(PROMPT_FEATURES)]
    if cached:
        prompt = np.hstack([prompt, table.prompt[:, -len(CACHE_FEATURES) :]])
    std = prompt[known].std(axis=0)
    mean, std = prompt[known].mean(axis=0), np.where(std < 1e-6, 1.0, std)
    scale = config.dense_scale / np.sqrt(prompt.shape[1])
    features = _Features(index, value, starts, np.clip((prompt - mean) / std, -CLIP, CLIP) * scale)
    logs = np.log(np.where(np.nan_to_num(cost) > 0, cost, 1.0))
    middle = float(logs[known].mean())

    weights = _solve(features, logs - middle, known, config)
    expected = features.times(weights)
    for fold in range(FOLDS):
        inside = known & (table.fold % FOLDS == fold)
        expected[inside] = features.times(_solve(features, logs - middle, known & ~inside, config))[inside]
    errors = logs[known] - middle - expected[known]
    smear = float(np.exp(errors).mean())
    most = max(1.0, float(np.quantile(np.exp(errors), config.within)) / smear)
    model = CostModel(
        idf=idf.astype(np.float32),
        ngrams=weights[:NGRAMS].astype(np.float32),
        mean=mean,
        std=std,
        dense=weights[NGRAMS:] * scale,
        constants=np.array([middle, smear, most]),
    )
    return FittedCost(model, np.exp(expected + middle) * smear)
