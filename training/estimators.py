"""Fits the quality estimators that stand inside the observation, and writes them out as plain arrays.

Idea: what the policy sees of its own training rows must look like what it will see in service, so estimates on training
rows come out of fold; rows outside the training split (and every request in service) get the estimators fitted on all
of it. Targets are the student's quality, the teacher's, and the gain of asking.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.estimators import DenseLinear, Forest, NgramLinear
from policies.prompt_features import NGRAMS, Floats, Ints
from policies.wheels import Estimators, StageEstimators
from training.dataset import Bools, Ragged, Table


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    folds: int = 5
    trees: int = 80
    learning_rate: float = 0.05
    leaves: int = 10
    depth: int = 5
    least_leaf_rows: int = 20
    l2: float = 1.0
    feature_part: float = 0.25
    """The part of the features that a split may look at."""
    ridge: float = 3.0
    dense_ridge: float = 100.0
    least_documents: int = 2
    """N-grams in fewer training rows than this count nothing."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    estimators: Estimators
    prompt_estimates: Floats
    """(N, len(ESTIMATES)), out of fold on the training split."""
    draft_estimates: Floats | None
    """The same with the draft."""


def _tfidf(
    ngrams: Ragged, idf: npt.NDArray[np.float32] | None, train: Bools, least: int
) -> tuple[Any, npt.NDArray[np.float32]]:
    """The same numbers as `NgramLinear` computes for one row, as a sparse matrix; fits idf where it is None."""
    from scipy import sparse

    matrix = sparse.csr_matrix(
        (np.ones(len(ngrams.flat)), ngrams.flat, ngrams.starts), shape=(len(ngrams), NGRAMS), copy=True
    )
    matrix.sum_duplicates()
    if idf is None:
        documents = np.asarray((matrix[train] > 0).sum(axis=0)).ravel()
        idf = (np.log((train.sum() + 1) / (documents + 1)) + 1).astype(np.float32)
        idf[documents < least] = 0.0
    matrix.data = 1.0 + np.log(matrix.data)
    matrix = matrix @ sparse.diags(idf.astype(np.float64))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    length[length == 0] = 1.0
    return sparse.diags(1.0 / length) @ matrix, idf


def _known(target: Floats, rows: Bools) -> Ints:
    return np.flatnonzero(rows & ~np.isnan(target))


def _fit_ngrams(
    ngrams: Ragged, targets: list[Floats], train: Bools, folds: Ints, config: EstimatorConfig
) -> tuple[NgramLinear, Floats]:
    from sklearn.linear_model import Ridge

    matrix, idf = _tfidf(ngrams, None, train, config.least_documents)
    weights = np.zeros((NGRAMS, len(targets)), np.float32)
    bias = np.zeros(len(targets))
    out = np.zeros((len(ngrams), len(targets)))
    for column, target in enumerate(targets):

        def fit(rows: Ints, target: Floats = target) -> tuple[Floats, float]:
            if len(rows) == 0:
                return np.zeros(NGRAMS), 0.0
            if len(rows) < 2 or np.ptp(target[rows]) == 0:
                return np.zeros(NGRAMS), float(target[rows].mean())
            model = Ridge(alpha=config.ridge, solver="sparse_cg", random_state=config.seed)
            model.fit(matrix[rows], target[rows])
            return model.coef_, float(model.intercept_)

        weights[:, column], bias[column] = fit(_known(target, train))
        out[:, column] = matrix @ weights[:, column].astype(np.float64) + bias[column]
        for fold in range(config.folds):
            inside = train & (folds == fold)
            coefficients, intercept = fit(_known(target, train & (folds != fold)))
            out[inside, column] = matrix[np.flatnonzero(inside)] @ coefficients + intercept
    return NgramLinear(idf, weights, bias), out


def export_forest(models: list[Any]) -> Forest:
    """One fitted HistGradientBoostingRegressor per target -> arrays. A float or int stands for a constant."""
    features: list[int] = []
    thresholds: list[float] = []
    children: list[int] = []
    values: list[float] = []
    roots: list[int] = []
    starts: list[int] = []
    base: list[float] = []
    deepest = 0

    def leaf(value: float) -> int:
        node = len(features)
        features.append(0)
        thresholds.append(0.0)
        children.extend((node, node))
        values.append(value)
        return node

    for model in models:
        starts.append(len(roots))
        if isinstance(model, (int, float)):
            base.append(float(model))
            roots.append(leaf(0.0))
            continue
        base.append(float(np.ravel(model._baseline_prediction)[0]))
        for (predictor,) in model._predictors:
            nodes, offset = predictor.nodes, len(features)
            roots.append(offset)
            deepest = max(deepest, int(nodes["depth"].max()))
            for node in nodes:
                if node["is_leaf"]:
                    leaf(float(node["value"]))
                    continue
                if node["is_categorical"]:
                    raise ValueError("categorical splits are not exported")
                features.append(int(node["feature_idx"]))
                thresholds.append(float(node["num_threshold"]))
                children.extend((offset + int(node["left"]), offset + int(node["right"])))
                values.append(0.0)
    return Forest(
        np.array(features, np.int32),
        np.array(thresholds),
        np.array(children, np.int32),
        np.array(values),
        np.array(roots, np.int32),
        np.array(starts, np.int32),
        np.array(base),
        np.array(deepest, np.int32),
    )


def _fit_forest(
    features: Floats,
    targets: list[Floats],
    train: Bools,
    folds: Ints,
    config: EstimatorConfig,
    tick: Callable[[], None],
) -> tuple[Forest, Floats]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fit(rows: Ints, target: Floats) -> Any:
        if len(rows) == 0:
            return 0.0
        if len(rows) < 2 * config.least_leaf_rows or np.ptp(target[rows]) == 0:
            return float(target[rows].mean())
        model = HistGradientBoostingRegressor(
            max_iter=config.trees,
            learning_rate=config.learning_rate,
            max_leaf_nodes=config.leaves,
            max_depth=config.depth,
            min_samples_leaf=config.least_leaf_rows,
            l2_regularization=config.l2,
            max_features=config.feature_part,
            early_stopping=False,
            random_state=config.seed,
        )
        return model.fit(features[rows], target[rows])

    out = np.zeros((len(features), len(targets)))
    for fold in range(config.folds):
        inside = train & (folds == fold)
        models = [fit(_known(target, train & (folds != fold)), target) for target in targets]
        if inside.any():
            out[inside] = export_forest(models)(features[inside])
        tick()
    forest = export_forest([fit(_known(target, train), target) for target in targets])
    tick()
    if not train.all():
        out[~train] = forest(features[~train])
    return forest, out


def _fit_linear(
    features: Floats, targets: list[Floats], train: Bools, folds: Ints, config: EstimatorConfig
) -> tuple[DenseLinear, Floats]:
    from sklearn.linear_model import Ridge

    def fit(rows: Bools) -> DenseLinear:
        weights, bias = np.zeros((features.shape[1], len(targets))), np.zeros(len(targets))
        any_row = features[rows] if rows.any() else features
        std = any_row.std(axis=0)
        scaling = DenseLinear(
            any_row.mean(axis=0), np.where(std < 1e-6, 1.0, std), np.eye(features.shape[1]), np.zeros(1)
        )
        for column, target in enumerate(targets):
            known = _known(target, rows)
            if len(known) < 2:
                bias[column] = float(target[known].mean()) if len(known) else 0.0
                continue
            model = Ridge(alpha=config.dense_ridge).fit(scaling(features[known]), target[known])
            # The last bits of BLAS depend on where arrays lie in memory; rounded, a run can be repeated to the bit.
            weights[:, column], bias[column] = model.coef_.round(10), round(float(model.intercept_), 10)
        return DenseLinear(scaling.mean, scaling.std, weights, bias)

    out = np.zeros((len(features), len(targets)))
    for fold in range(config.folds):
        inside = train & (folds == fold)
        if inside.any():
            out[inside] = fit(train & (folds != fold))(features[inside])
    linear = fit(train)
    out[~train] = linear(features[~train])
    return linear, out.round(10)


def _fit_stage(
    dense: Floats,
    ngrams: Ragged,
    before: Floats | None,
    table: Table,
    config: EstimatorConfig,
    tick: Callable[[], None],
) -> tuple[StageEstimators, Floats]:
    """Estimators of one stage, and their estimates (N, len(ESTIMATES)); `before`: n-gram estimates of the prompt."""
    train, folds = table.split == "train", table.fold % config.folds
    gain = table.teacher - table.student
    counted, first = _fit_ngrams(ngrams, [table.student, gain], train, folds, config)
    features = np.hstack([dense, first] if before is None else [dense, before, first])
    linear, second = _fit_linear(features, [table.student, gain], train, folds, config)
    forest, third = _fit_forest(features, [table.student, table.teacher, gain], train, folds, config, tick)
    return StageEstimators(counted, linear, forest), np.hstack([first, second, third])


def fit_estimators(table: Table, config: EstimatorConfig, *, tick: Callable[[], None] = lambda: None) -> Fitted:
    """Fits on the training split. `tick()` is called `2 * (folds + 1)` times at most."""
    from threadpoolctl import threadpool_limits

    # One thread: sums in a fixed order, so that the same data and seed give the same weights.
    with threadpool_limits(limits=1):
        prompt, before = _fit_stage(table.prompt, table.prompt_ngrams, None, table, config, tick)
        if table.draft is None or table.draft_ngrams is None:
            return Fitted(Estimators(prompt), before, None)
        both = np.hstack([table.prompt, table.draft])
        draft, after = _fit_stage(both, table.draft_ngrams, before[:, :2], table, config, tick)
    return Fitted(Estimators(prompt, draft), before, after)
