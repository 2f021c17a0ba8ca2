"""What to expect of each answer, for the doubly robust estimate: the policy's own expectation, corrected by the log.

The correction is a ridge regression per arm on a handful of numbers (scores, what the policy expected), fitted on four
fifths of the requests and used on the last fifth, five times over. It shrinks towards the policy's own expectation, or
towards the arm's mean where the policy said nothing; so an arm of which few outcomes are known is not made up.
"""

import numpy as np

from policies.prompt_features import Floats, Ints
from training.off_policy import Bools

FOLDS = 5
RIDGE = 10.0
"""Requests' worth of trust in the expectation that the correction starts from."""


def expected_outcomes(
    features: Floats, arm: Ints, outcome: Floats, prior: Floats, *, seed: int = 0, bounds: tuple[float, float] = (0, 1)
) -> Floats:
    """(N, A) expected outcome of each of A arms, out of fold.

    `features` (N, F) finite; `arm` (N,) 0..A-1, the one taken; `outcome` (N,), NaN where unknown; `prior` (N, A), NaN
    where nothing is expected beforehand.
    """
    count, arms = prior.shape
    assert features.shape[0] == count == len(arm) == len(outcome)
    design = _design(features)
    fold = np.random.default_rng(seed).permutation(count) % FOLDS
    known = ~np.isnan(outcome)
    out = np.empty((count, arms))
    for each in range(FOLDS):
        inside = fold == each
        for a in range(arms):
            learn = known & ~inside & (arm == a)
            out[inside, a] = _fitted(design, outcome, prior[:, a], learn, inside)
    return np.clip(out, *bounds)


def _design(features: Floats) -> Floats:
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    return np.column_stack([np.ones(len(features)), np.clip(scaled, -4.0, 4.0)])


def _fitted(design: Floats, outcome: Floats, prior: Floats, learn: Bools, use: Bools) -> Floats:
    """The prior of the rows in `use`, plus a correction learned on the rows in `learn`."""
    mean = float(outcome[learn].mean()) if learn.any() else 0.5
    start = np.where(np.isnan(prior), mean, prior)
    if not learn.any():
        return start[use]
    x = design[learn]
    penalty = np.full(x.shape[1], RIDGE)
    penalty[0] = 1.0  # how high the arm lies as a whole is learned soon
    weights = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ (outcome[learn] - start[learn]))
    out: Floats = start[use] + design[use] @ weights
    return out
