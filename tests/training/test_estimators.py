from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from policies.features import prompt_of, read_prompt
from policies.prompt_features import Floats
from policies.wheels import ESTIMATES
from tests.training.tables import sums
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, export_forest, fit_estimators


def test_exported_trees_give_what_scikit_learn_gives() -> None:
    rng = np.random.default_rng(0)
    features = np.round(rng.normal(size=(600, 8)), 1)
    targets = [features[:, 0] * features[:, 1] + rng.normal(size=600), np.sin(3 * features[:, 2])]
    models = [
        HistGradientBoostingRegressor(max_iter=30, max_depth=depth, max_leaf_nodes=12, early_stopping=False).fit(
            features, target
        )
        for depth, target in zip((3, 7), targets, strict=True)
    ]
    forest = export_forest(models)
    fresh = np.vstack([features, rng.normal(scale=5.0, size=(200, 8))])
    expected = np.column_stack([model.predict(fresh) for model in models])
    np.testing.assert_allclose(forest(fresh), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(forest(fresh[:50]), expected[:50], rtol=0, atol=1e-12)


def test_a_constant_takes_the_place_of_a_tree() -> None:
    forest = export_forest([0.25, 1.0])
    assert forest(np.zeros((2, 3))).tolist() == [[0.25, 1.0]] * 2


def test_serving_and_training_see_the_same_estimates() -> None:
    """Out-of-split rows: what the arrays of training hold is what the served estimators compute from the text."""
    rows = sums(240)
    table = build_table(rows, "draft")
    fitted = fit_estimators(table, EstimatorConfig(trees=10, folds=3))
    assert fitted.draft_estimates is not None
    from policies.action import Step
    from training.evaluate import observations

    for i in [i for i, row in enumerate(rows) if row.split == "test"][:20]:
        (observation,) = observations([rows[i]], Step.DEFER)
        (served,) = fitted.estimators.features([observation], [read_prompt(observation.prompt)])
        trained = np.concatenate(
            [fitted.prompt_estimates[i], fitted.draft_estimates[i], table.prompt[i], table.draft[i]]
        )
        np.testing.assert_allclose(served, trained, rtol=1e-6, atol=1e-9)


def test_estimates_on_training_rows_come_out_of_fold() -> None:
    """Qualities that are pure noise: in-fold estimates would follow them, out-of-fold ones cannot."""
    rng = np.random.default_rng(0)
    rows = sums(300)
    table = build_table(rows, "prompt")
    noise = rng.random(300)
    table.student[:] = noise
    fitted = fit_estimators(table, EstimatorConfig(trees=40, least_leaf_rows=5))
    train = table.split != "test"
    for column in (0, 2, 4):
        assert abs(np.corrcoef(fitted.prompt_estimates[train, column], noise[train])[0, 1]) < 0.25
    inside = fitted.estimators.prompt.ngrams
    views = [read_prompt(prompt_of(row)) for row, keep in zip(rows, train, strict=True) if keep]
    in_fold = inside([view.ngrams for view in views])[:, 0]
    assert np.corrcoef(in_fold, noise[train])[0, 1] > 0.5


def _told(features: Floats, log_odds: Floats) -> tuple[Table, Floats]:
    """A table whose student is right by a coin with these odds, and its chances."""
    chance = 1.0 / (1.0 + np.exp(-log_odds))
    labels = (np.random.default_rng(1).random(len(chance)) < chance).astype(np.float64)
    table = build_table(sums(len(chance)), "prompt")
    return replace(table, prompt=features, student=labels, teacher=np.ones(len(chance))), chance


def _error(table: Table, chance: Floats, config: EstimatorConfig) -> float:
    test = table.split == "test"
    estimate = fit_estimators(table, config).prompt_estimates[test, ESTIMATES.index("trees_student")]
    return float(((estimate - chance[test]) ** 2).mean())


def test_trees_learn_from_the_committee_where_it_knows_better_than_the_labels() -> None:
    features = np.random.default_rng(0).normal(size=(900, 40))
    table, chance = _told(features, 0.4 * (features[:, :12] > 0).sum(axis=1) - 2.4)
    quick = EstimatorConfig(folds=2)
    assert _error(table, chance, quick) < 0.8 * _error(table, chance, replace(quick, committee=0))


def test_trees_learn_from_the_labels_where_these_say_more() -> None:
    features = np.random.default_rng(0).normal(size=(900, 6))
    table, chance = _told(features, 2.0 * features[:, :3].sum(axis=1))
    quick = EstimatorConfig(folds=2)
    assert _error(table, chance, quick) == _error(table, chance, replace(quick, committee=0))


def test_the_committee_says_nothing_of_what_is_unknown() -> None:
    table = build_table(sums(300), "prompt")
    table.teacher[::2] = np.nan
    fitted = fit_estimators(table, EstimatorConfig(trees=5))
    column = ESTIMATES.index("trees_teacher")
    table.teacher[table.split == "test"] = 0.0
    again = fit_estimators(table, EstimatorConfig(trees=5))
    assert fitted.prompt_estimates[:, column].tolist() == again.prompt_estimates[:, column].tolist()


def test_unknown_qualities_are_left_out_of_a_fit() -> None:
    table = build_table(sums(120), "prompt")
    table.teacher[::2] = np.nan
    fitted = fit_estimators(table, EstimatorConfig(trees=5))
    assert np.isfinite(fitted.prompt_estimates).all()


def test_a_quality_that_never_changes_is_estimated_as_itself() -> None:
    table = build_table(sums(120), "prompt")
    table.teacher[:] = 1.0
    fitted = fit_estimators(table, EstimatorConfig(trees=5))
    assert fitted.prompt_estimates[:, ESTIMATES.index("trees_teacher")] == pytest.approx(np.ones(120))


def test_rows_with_the_same_prompt_share_a_fold() -> None:
    rows = sums(40)
    table = build_table([*rows, *rows], "prompt")
    assert table.fold[:40].tolist() == table.fold[40:].tolist()
    counts = np.bincount(table.fold % 5)
    assert counts.max() - counts.min() <= 4
