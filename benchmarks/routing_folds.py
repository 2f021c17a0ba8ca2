"""Blend, members and baselines by folds of the rows that are not test rows: whether a blend is worth its members.

A difference on a few hundred test rows may be chance, and the test rows are not there to choose by. So train and
validation rows are dealt into five parts, each part is ranked by what was fitted on the other four, and APGR is taken
of all parts together (by rank within a part, since parts differ in their means). Path consistency is left out: on one
decision it adds next to nothing, and this is about where it starts.
"""

from dataclasses import replace

import numpy as np

from benchmarks.routing_cells import Bench, Result
from policies.prompt_features import Floats
from training.blend import candidates, choose
from training.dataset import Table
from training.estimators import EstimatorConfig, fit_estimators
from training.metrics import apgr
from training.rivals import fit_rivals

PARTS = 5


def folds(bench: Bench, cell: str, seed: int) -> Result:
    """APGR over train and validation rows, every part ranked by what was fitted without it."""

    def make() -> Result:
        whole = bench.table(cell)
        table = whole.take(np.flatnonzero(whole.split != "test"))
        # Rows with the same prompt have the same fold, and so fall into the same part.
        part = np.random.default_rng(100 + seed).permutation(int(table.fold.max()) + 1)[table.fold] % PARTS
        ranks: dict[str, Floats] = {}
        for k in range(PARTS):
            held = part == k
            for name, scores in _ranked(replace(table, split=np.where(held, "test", table.split)), seed).items():
                order = np.argsort(np.argsort(scores[held]))
                ranks.setdefault(name, np.full(len(table), np.nan))[held] = (order + 0.5) / held.sum()
        known = table.both_known
        return {
            "rows": int(known.sum()),
            "found": {
                name: round(apgr(each[known], table.student[known], table.teacher[known]), 4)
                for name, each in ranks.items()
                if not np.isnan(each[known]).any()
            },
        }

    return bench.once("folds", cell, seed, "all", make)


def _ranked(table: Table, seed: int) -> dict[str, Floats]:
    """(N,) scores by the blend, by each of its members, by the member that its own rows choose, and by baselines."""
    fitted = fit_estimators(table, EstimatorConfig(seed=seed))
    estimates = fitted.prompt_estimates
    if fitted.draft_estimates is not None:
        estimates = np.hstack([estimates, fitted.draft_estimates])
    rows = np.flatnonzero((table.split != "test") & table.both_known)
    blend = choose(estimates[rows], table.student[rows], table.teacher[rows])
    members = {name: estimates @ weights for name, weights in candidates(estimates.shape[1]).items()}
    best = max(blend.parts, key=lambda name: blend.parts[name])
    return {
        "blend": estimates @ blend.weights[:-1, 1],
        "member chosen": members[best],
        **{f"member: {name}": scores for name, scores in members.items()},
        **fit_rivals(table, seed=seed),
    }
