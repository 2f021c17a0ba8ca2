"""Baselines fitted on all but the test split, as the policy is, on the same features, to be measured beside it.

Each returns (N,) scores for every row of the table; only the test rows are looked at. n-gram estimates enter as the
features that the policy has too, out of fold on the training rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from policies.outcomes import Outcome
from policies.policy import Signals
from policies.prompt_features import PROMPT_FEATURES, Floats, Ints
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, Fitted, fit_estimators

LEAST_ROWS = 20
"""Training rows with both qualities, below which nothing is fitted."""


def _features(table: Table, fitted: Fitted) -> Floats:
    parts = [table.prompt, fitted.prompt_estimates[:, :2]]
    if table.draft is not None and fitted.draft_estimates is not None:
        parts += [table.draft, fitted.draft_estimates[:, :2]]
    return np.hstack(parts)


def rival_scores(
    outcomes: Sequence[Outcome], signals: Signals, *, seed: int = 0, tick: Callable[[str], None] = lambda _: None
) -> tuple[Table, dict[str, Floats]]:
    """The table, and the scores of each baseline on it."""
    table = build_table(outcomes, signals)
    return table, fit_rivals(table, seed=seed, tick=tick)


def fit_rivals(table: Table, *, seed: int = 0, tick: Callable[[str], None] = lambda _: None) -> dict[str, Floats]:
    """(N,) scores of each baseline; only `length` where there are too few rows to fit the others."""
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits

    scores: dict[str, Floats] = {"length": table.prompt[:, PROMPT_FEATURES.index("log_bytes")]}
    train = np.flatnonzero((table.split != "test") & table.both_known)
    gain = table.teacher - table.student
    if len(train) < LEAST_ROWS or np.ptp(gain[train]) == 0:
        return scores
    config = EstimatorConfig(seed=seed)
    tick("estimators")
    # Of these estimates only the n-grams' are looked at, so one tree will do.
    fitted = fit_estimators(table, replace(config, trees=1, committee=0))
    features = _features(table, fitted)
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    standard = np.clip((features - mean) / np.where(std < 1e-6, 1.0, std), -5, 5)
    with threadpool_limits(limits=1):
        tick("logistic")
        right = table.student[train] >= 0.5
        if right.all() or not right.any():
            right = table.student[train] >= np.median(table.student[train])
        if right.any() and not right.all():
            logistic = LogisticRegression(C=0.1, max_iter=500, random_state=seed).fit(standard[train], right)
            scores["logistic"] = -logistic.decision_function(standard)
        tick("factorisation")
        # With two models, factors of prompts and models come down to one logistic regression for each model.
        chances = [_chance(standard, quality[train], train, seed) for quality in (table.student, table.teacher)]
        scores["factorisation"] = chances[1] - chances[0]
        tick("ridge")
        scores["ridge"] = Ridge(alpha=100.0).fit(standard[train], gain[train]).predict(standard)
        tick("knn")
        neighbours = min(50, len(train) // 2)
        scores["knn"] = KNeighborsRegressor(neighbours).fit(standard[train], gain[train]).predict(standard)
        tick("gbdt")
        boosted = HistGradientBoostingRegressor(
            max_iter=config.trees,
            learning_rate=config.learning_rate,
            max_leaf_nodes=config.leaves,
            max_depth=config.depth,
            min_samples_leaf=config.least_leaf_rows,
            l2_regularization=config.l2,
            max_features=0.25,
            early_stopping=False,
            random_state=seed,
        )
        scores["gbdt"] = boosted.fit(features[train], gain[train]).predict(features)
        tick("cascade")
        # The student answers; the teacher is asked where the answer's estimated quality is lowest.
        scores["cascade"] = -boosted.fit(features[train], table.student[train]).predict(features)
        tick("forest")
        forest = ExtraTreesRegressor(config.committee, min_samples_leaf=10, max_features=0.3, random_state=seed)
        scores["forest"] = forest.fit(features[train], gain[train]).predict(features)
        tick("mlp")
        network = MLPRegressor(
            hidden_layer_sizes=(32,),
            alpha=1.0,
            learning_rate_init=1e-3,
            max_iter=60,
            early_stopping=len(train) >= 200,
            random_state=seed,
        )
        scores["mlp"] = fit_quietly(network, standard[train], gain[train]).predict(standard)
    return scores


def _chance(standard: Floats, quality: Floats, train: Ints, seed: int) -> Floats:
    """(N,) chance that a model is right; constant where it always or never is."""
    from sklearn.linear_model import LogisticRegression

    right = quality >= 0.5
    if right.all() or not right.any():
        return np.zeros(len(standard))
    model = LogisticRegression(C=0.1, max_iter=500, random_state=seed).fit(standard[train], right)
    chance: Floats = model.predict_proba(standard)[:, 1]
    return chance


def fit_quietly(network: Any, features: Floats, target: Floats) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Stopping after a fixed number of passes is meant.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(features, target)
