"""Where training starts from: an average of the rankings that the estimators give.

On some pairs predicting the student's error ranks worse than random while predicting the gain works, on others the
error is as good. So every candidate is measured (out of fold on the training split, together with the validation
split), brought to the unit of the gain by least squares, and counts with a power of its lift over random.
"""

from dataclasses import dataclass

import numpy as np

from policies.prompt_features import Floats
from policies.wheels import ESTIMATES
from training.metrics import SHARES, apgr, quality_at

SHARPNESS = 6
"""The power of a candidate's lift over random with which it counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    weights: Floats
    """(E + 1, 2): estimates and a constant -> (quality of the student, gain)."""
    apgr: dict[str, float]
    """Every candidate's, on the rows that the blend was made on."""
    parts: dict[str, float]
    """How much each candidate counts; they sum to 1, or to 0 where none ranks better than random."""


def candidates(width: int) -> dict[str, Floats]:
    """(E,) weights over the estimates of each ranking that a blend is made of, by name."""

    def weights(**parts: float) -> Floats:
        vector = np.zeros(width)
        for name, value in parts.items():
            stage, _, rest = name.partition("_")
            vector[(len(ESTIMATES) if stage == "draft" else 0) + ESTIMATES.index(rest)] = value
        return vector

    stages = ("prompt", "draft") if width > len(ESTIMATES) else ("prompt",)
    found: dict[str, Floats] = {}
    for stage in stages:
        found |= {
            f"{stage}: gain by trees": weights(**{f"{stage}_trees_gain": 1}),
            f"{stage}: teacher - student by trees": weights(
                **{f"{stage}_trees_teacher": 1, f"{stage}_trees_student": -1}
            ),
            f"{stage}: gain by n-grams": weights(**{f"{stage}_ngrams_gain": 1}),
            f"{stage}: gain by features, linear": weights(**{f"{stage}_linear_gain": 1}),
            f"{stage}: student's error by features, linear": weights(**{f"{stage}_linear_student": -1}),
            f"{stage}: student's error by trees": weights(**{f"{stage}_trees_student": -1}),
            f"{stage}: student's error by n-grams": weights(**{f"{stage}_ngrams_student": -1}),
        }
    if width > len(ESTIMATES):
        found["teacher by prompt - student by draft"] = weights(prompt_trees_teacher=1, draft_trees_student=-1)
    return found


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Least squares y = a x + c with a >= 0."""
    spread = float(((x - x.mean()) ** 2).mean())
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).mean()) / spread) if spread > 1e-18 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _lift(score: Floats, student: Floats, teacher: Floats) -> float:
    """What a ranking wins over random in the mean of all shares, as a part of what hindsight wins.

    In the order of APGR where the teacher is better, and also there where it is not.
    """
    ends = np.array([0.0, 1.0])
    random = float(np.trapezoid(quality_at(np.zeros(len(student)), student, teacher, ends), ends))
    best = float(np.trapezoid(quality_at(teacher - student, student, teacher, SHARES), SHARES)) - random
    won = float(np.trapezoid(quality_at(score, student, teacher, SHARES), SHARES)) - random
    return won / best if best > 1e-12 else 0.0


def choose(estimates: Floats, student: Floats, teacher: Floats) -> Blend:
    """(N, E) estimates and known qualities (N,) -> the blend."""
    gain = teacher - student
    measured: dict[str, float] = {}
    total = np.zeros(estimates.shape[1])
    parts: dict[str, float] = {}
    for name, vector in candidates(estimates.shape[1]).items():
        score = estimates @ vector
        value = apgr(score, student, teacher)
        measured[name] = value if np.isfinite(value) else 0.5
        parts[name] = max(0.0, _lift(score, student, teacher)) ** SHARPNESS
        total += parts[name] * _line(score, gain)[0] * vector
    slope, constant = _line(estimates @ total, gain)
    quality = np.zeros(estimates.shape[1] + 1)
    latest = estimates.shape[1] - len(ESTIMATES) + ESTIMATES.index("trees_student")
    quality[latest], quality[-1] = _line(estimates[:, latest], student)
    whole = sum(parts.values()) or 1.0
    return Blend(
        # Rounded for the same reason as the estimators: the same data must give the same start, to the bit.
        np.column_stack([quality, np.append(slope * total, constant)]).round(10),
        measured,
        {name: part / whole for name, part in parts.items()},
    )
