"""Fits the simple policies of `policies.baselines` to a table, in the form in which they can be served."""

import numpy as np

from policies.baselines import Levels, Logistic, Neighbours, Standard, Threshold
from policies.prompt_features import Floats
from training.dataset import Table


def _dense(table: Table) -> Floats:
    return table.prompt if table.draft is None else np.hstack([table.prompt, table.draft])


def fit_threshold(table: Table, feature: str, sign: float) -> Threshold:
    """A threshold on one feature; its levels from the training rows."""
    from policies.features import DRAFT_FEATURES, PROMPT_FEATURES

    names = PROMPT_FEATURES if table.draft is None else PROMPT_FEATURES + DRAFT_FEATURES
    values = sign * _dense(table)[table.split == "train", names.index(feature)]
    return Threshold(feature, sign, Levels.of(values), table.signals)


def fit_logistic(table: Table, *, seed: int = 0) -> Logistic:
    """Logistic regression of the student's errors. Raises ValueError where all qualities are alike."""
    from sklearn.linear_model import LogisticRegression

    rows = np.flatnonzero((table.split == "train") & ~np.isnan(table.student))
    features = _dense(table)[rows]
    wrong = table.student[rows] < 0.5
    if wrong.all() or not wrong.any():
        raise ValueError("the student is right on all training rows, or on none: nothing to tell apart")
    standard = Standard.of(features)
    model = LogisticRegression(C=0.1, max_iter=500, random_state=seed).fit(standard(features), wrong)
    weights, bias = model.coef_[0], float(model.intercept_[0])
    return Logistic(standard, weights, bias, Levels.of(standard(features) @ weights + bias), table.signals)


def fit_neighbours(table: Table, *, count: int = 50) -> Neighbours:
    """Nearest neighbours of the gain; levels from the validation rows, which are not their own neighbours."""
    rows = table.rows("train")
    features = _dense(table)
    standard = Standard.of(features[rows])
    gain = table.teacher[rows] - table.student[rows]
    count = min(count, len(rows))
    bare = Neighbours(standard, standard(features[rows]), gain, count, Levels(np.array([0.0, 0.0])), table.signals)
    others = table.rows("val") if len(table.rows("val")) >= 20 else rows
    values = np.array([bare.value(features[row]) for row in others])
    return Neighbours(standard, bare.rows, gain, count, Levels.of(values), table.signals)
