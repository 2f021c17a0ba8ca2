"""Where training starts from: the average of the best few rankings that the estimators give.

On some pairs predicting the student's error ranks worse than random while predicting the gain works, on others the
error is as good. So every candidate is measured (out of fold on the training split, together with the validation
split), the best few are brought to the unit of the gain by least squares, and averaged.
"""

from dataclasses import dataclass

import numpy as np

from policies.prompt_features import Floats
from training.metrics import apgr

NAMES = ("ngrams_student", "ngrams_gain", "trees_student", "trees_teacher", "trees_gain")


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    weights: Floats
    """(E + 1, 2): estimates and a constant -> (quality of the student, gain)."""
    chosen: list[str]
    apgr: dict[str, float]
    """Every candidate's, on the rows it was chosen on."""


def _candidates(width: int) -> dict[str, Floats]:
    def weights(**parts: float) -> Floats:
        vector = np.zeros(width)
        for name, value in parts.items():
            stage, _, rest = name.partition("_")
            vector[(5 if stage == "draft" else 0) + NAMES.index(rest)] = value
        return vector

    stages = ("prompt", "draft") if width == 10 else ("prompt",)
    found = {}
    for stage in stages:
        found |= {
            f"{stage}: gain by trees": weights(**{f"{stage}_trees_gain": 1}),
            f"{stage}: teacher - student by trees": weights(
                **{f"{stage}_trees_teacher": 1, f"{stage}_trees_student": -1}
            ),
            f"{stage}: gain by n-grams": weights(**{f"{stage}_ngrams_gain": 1}),
            f"{stage}: student's error by trees": weights(**{f"{stage}_trees_student": -1}),
            f"{stage}: student's error by n-grams": weights(**{f"{stage}_ngrams_student": -1}),
        }
    if width == 10:
        found["teacher by prompt - student by draft"] = weights(prompt_trees_teacher=1, draft_trees_student=-1)
    return found


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Least squares y = a x + c with a >= 0."""
    spread = float(((x - x.mean()) ** 2).mean())
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).mean()) / spread) if spread > 1e-12 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def choose(estimates: Floats, student: Floats, teacher: Floats, best: int) -> Blend:
    """(N, E) estimates and known qualities (N,) -> the blend of the `best` candidates."""
    gain = teacher - student
    measured: dict[str, float] = {}
    lines: dict[str, Floats] = {}
    for name, vector in _candidates(estimates.shape[1]).items():
        score = estimates @ vector
        value = apgr(score, student, teacher)
        measured[name] = value if np.isfinite(value) else 0.5
        slope, constant = _line(score, gain)
        lines[name] = np.append(slope * vector, constant)
    chosen = sorted(measured, key=lambda name: -measured[name])[:best]
    total = np.mean([lines[name] for name in chosen], axis=0)
    slope, constant = _line(estimates @ total[:-1] + total[-1], gain)
    total = slope * total
    total[-1] += constant
    quality = np.zeros(estimates.shape[1] + 1)
    latest = estimates.shape[1] - 5 + NAMES.index("trees_student")
    quality[latest], quality[-1] = _line(estimates[:, latest], student)
    return Blend(np.column_stack([quality, total]), chosen, measured)
