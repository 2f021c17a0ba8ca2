"""Fits the quality estimators that stand inside the observation, and writes them out as plain arrays.

Idea: what the policy sees of its own training rows must look like what it will see in service, so estimates on training
rows come out of fold; test rows (and every request in service) get the estimators fitted on all others. Targets are the
student's quality, the teacher's, and the gain of asking.

Qualities are right or wrong and say little one by one. Boosting that is served in microseconds has few small trees, and
chasing noisy labels with few trees is what it does worst; a committee of a hundred large random trees does it best and
is too dear to serve. So the committee teaches: boosted trees learn mostly what it says of rows that it has not seen
(out of bag), and a part of the label itself. Where labels alone do better out of fold, they are kept.
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
    taught_rate: float = 0.1
    """Instead of `learning_rate` where the committee teaches, whose lessons are less noisy than labels."""
    leaves: int = 10
    depth: int = 5
    least_leaf_rows: int = 20
    l2: float = 1.0
    feature_part: float = 0.2
    """The part of the features that a split may look at."""
    committee: int = 100
    """Extremely randomised trees that the boosted ones learn from; 0: from the labels alone."""
    committee_leaf_rows: int = 10
    """In a leaf of theirs at least; a 500th of the rows where that is more."""
    label_part: float = 0.25
    """The part of a label in what the boosted trees learn; the rest is what the committee says."""
    ridge: float = 0.1
    """Of the n-grams, times the root of the number of rows."""
    dense_ridge: float = 1000.0
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
            model = Ridge(alpha=config.ridge * len(rows) ** 0.5, solver="sparse_cg", random_state=config.seed)
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


def _taught(features: Floats, targets: list[Floats], rows: Bools, config: EstimatorConfig) -> list[Floats]:
    """The targets (N,) as the committee sees them, on `rows`; elsewhere and where unknown NaN."""
    from sklearn.ensemble import ExtraTreesRegressor

    labels = np.column_stack(targets)
    labels[~rows] = np.nan
    known = ~np.isnan(labels).any(axis=1)
    if config.committee == 0 or known.sum() < 4 * config.least_leaf_rows:
        return list(labels.T)
    # All targets in one: where the student fails is the better half of what a split on the gain should look for.
    committee = ExtraTreesRegressor(
        config.committee,
        min_samples_leaf=max(config.committee_leaf_rows, int(known.sum()) // 500),
        max_features=0.3,
        bootstrap=True,
        oob_score=True,
        random_state=config.seed,
        n_jobs=1,
    ).fit(features[known], labels[known])
    said = np.full_like(labels, np.nan)
    said[known] = committee.oob_prediction_
    others = rows & ~known
    if others.any():
        said[others] = committee.predict(features[others])
    # A label that is unknown stays so: what the committee says of it is in its other rows already.
    return list((config.label_part * labels + (1.0 - config.label_part) * said).T)


def _fit_forest(
    features: Floats,
    targets: list[Floats],
    train: Bools,
    folds: Ints,
    config: EstimatorConfig,
    tick: Callable[[], None],
) -> tuple[Forest, Floats]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fit(target: Floats, inside: Bools, said: Floats, rate: float) -> Any:
        rows = _known(target, inside)
        if len(rows) == 0:
            return 0.0
        if len(rows) < 2 * config.least_leaf_rows or np.ptp(target[rows]) == 0:
            return float(target[rows].mean())
        model = HistGradientBoostingRegressor(
            max_iter=config.trees,
            learning_rate=rate,
            max_leaf_nodes=config.leaves,
            max_depth=config.depth,
            min_samples_leaf=config.least_leaf_rows,
            l2_regularization=config.l2,
            max_features=config.feature_part,
            early_stopping=False,
            random_state=config.seed,
        )
        return model.fit(features[rows], said[rows])

    columns = range(len(targets))

    def fit_both(inside: Bools, wanted: Bools) -> list[list[Any]]:
        """A model for each target, from the labels and from the committee, where wanted (2, targets)."""
        taught = _taught(features, targets, inside, config) if wanted[1].any() else targets
        ways = ((targets, config.learning_rate), (taught, config.taught_rate))
        return [
            [fit(targets[k], inside, said[k], rate) if wanted[way, k] else 0.0 for k in columns]
            for way, (said, rate) in enumerate(ways)
        ]

    wanted = np.array([[True] * len(targets), [config.committee > 0] * len(targets)])
    both = np.zeros((2, len(features), len(targets)))
    for fold in range(config.folds):
        inside = train & (folds == fold)
        if inside.any():
            for way, models in enumerate(fit_both(train & (folds != fold), wanted)):
                both[way, inside] = export_forest(models)(features[inside])
        tick()
    # Where a few features say nearly all, labels are the better teacher; so each target is asked, out of fold.
    better = [
        wanted[1, k] and _agreement(both[1, :, k], target, train) >= _agreement(both[0, :, k], target, train)
        for k, target in enumerate(targets)
    ]
    chosen = np.array([np.logical_not(better), better])
    models = fit_both(train, chosen)
    forest = export_forest([models[int(better[k])][k] for k in columns])
    tick()
    out = np.where(better, both[1], both[0])
    if not train.all():
        out[~train] = forest(features[~train])
    return forest, out


def _agreement(estimate: Floats, target: Floats, rows: Bools) -> float:
    """Correlation on the rows where the target is known; 0 where one of them never changes."""
    known = _known(target, rows)
    if len(known) < 2 or np.ptp(estimate[known]) == 0 or np.ptp(target[known]) == 0:
        return 0.0
    return float(np.corrcoef(estimate[known], target[known])[0, 1])


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
    train, folds = table.split != "test", table.fold % config.folds
    gains = [teacher - table.student for teacher in table.teacher_qualities]
    counted, first = _fit_ngrams(ngrams, [table.student, *gains], train, folds, config)
    features = np.hstack([dense, first] if before is None else [dense, before, first])
    linear, second = _fit_linear(features, [table.student, *gains], train, folds, config)
    targets = [table.student, *table.teacher_qualities, *gains]
    forest, third = _fit_forest(features, targets, train, folds, config, tick)
    return StageEstimators(counted, linear, forest), np.hstack([first, second, third])


def fit_estimators(table: Table, config: EstimatorConfig, *, tick: Callable[[], None] = lambda: None) -> Fitted:
    """Fits on all but the test split. `tick()` is called `2 * (folds + 1)` times at most."""
    from threadpoolctl import threadpool_limits

    # One thread: sums in a fixed order, so that the same data and seed give the same weights.
    with threadpool_limits(limits=1):
        prompt, before = _fit_stage(table.prompt, table.prompt_ngrams, None, table, config, tick)
        if table.draft is None or table.draft_ngrams is None:
            return Fitted(Estimators(prompt), before, None)
        both = np.hstack([table.prompt, table.draft])
        counted = before[:, : 1 + len(table.teacher_qualities)]
        draft, after = _fit_stage(both, table.draft_ngrams, counted, table, config, tick)
    return Fitted(Estimators(prompt, draft), before, after)
