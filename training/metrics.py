"""Quality at every call share, and what is read off it: PGR, APGR, CPT, intervals. Pure functions of arrays.

Scores are (N,), or (101, N): one ranking for each share 0, 0.01 .. 1, for a policy that looks at the budget. Rows with
equal scores are asked about in random order, so their mean counts.
"""

import numpy as np

from policies.prompt_features import Floats, Ints

SHARES: Floats = np.linspace(0.0, 1.0, 101)


def quality_at(scores: Floats, student: Floats, teacher: Floats, shares: Floats) -> Floats:
    """Mean quality (S,) when the best-scored part of the rows goes to the teacher; scores (N,) or (S, N)."""
    if scores.ndim == 2:
        assert len(scores) == len(shares)
        one = [quality_at(scores[i], student, teacher, shares[i : i + 1])[0] for i in range(len(shares))]
        return np.array(one)
    count = len(student)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # Only the places where a run of equal scores ends are certain; between them the expectation is a straight line.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) + 1
    gained = np.cumsum((teacher - student)[order])[ends - 1]
    at, value = np.append(0, ends) / count, np.append(0.0, gained) / count
    out: Floats = student.mean() + np.interp(shares, at, value)
    return out


def pgr(quality: Floats, student: float, teacher: float) -> Floats:
    """Performance gap recovered; NaN where the teacher is not better."""
    if teacher <= student:
        return np.full_like(quality, np.nan)
    return (quality - student) / (teacher - student)


def apgr(scores: Floats, student: Floats, teacher: Floats) -> float:
    """Mean PGR over shares 0..1 (101 points, trapezoid); NaN where the teacher is not better."""
    quality = quality_at(scores, student, teacher, SHARES)
    return float(np.trapezoid(pgr(quality, float(student.mean()), float(teacher.mean())), SHARES))


def cpt(recovered: Floats, level: float) -> float | None:
    """The smallest share (of 101) whose PGR is at least `level`; None where none is."""
    reached = np.flatnonzero(recovered >= level - 1e-12)
    return round(float(SHARES[reached[0]]), 2) if len(reached) else None


def oracle(student: Floats, teacher: Floats) -> Floats:
    """The scores of one who knows both answers."""
    return teacher - student


def bootstrap_apgr(
    scores: Floats, student: Floats, teacher: Floats, *, resamples: int = 400, seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile interval over resampled rows; None where too few resamples have a better teacher."""
    count = len(student)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)
    gain = teacher - student
    gap = weights @ gain / count
    # Random order within equal scores, fixed before the budgets are looped over.
    jitter = rng.permutation(count)
    recovered = np.zeros((len(SHARES), resamples))
    shared = _cumulated(scores, gain, weights, jitter) if scores.ndim == 1 else None
    for i, share in enumerate(SHARES):
        rows, worth = shared or _cumulated(scores[i], gain, weights, jitter)
        recovered[i] = _at(rows, worth, share * count)
    with np.errstate(divide="ignore", invalid="ignore"):
        areas = np.asarray(np.trapezoid(recovered / count / np.where(gap > 0, gap, np.nan), SHARES, axis=0))
    areas = areas[np.isfinite(areas)]
    if len(areas) < resamples // 2:
        return None
    return float(np.quantile(areas, 0.025)), float(np.quantile(areas, 0.975))


def bootstrap_points(
    scores: Floats, student: Floats, teacher: Floats, shares: Floats, *, resamples: int = 400, seed: int = 0
) -> tuple[Floats, Floats]:
    """95% percentile intervals (S, 2) of quality and of PGR at each of `shares` (S,); scores (N,), or (S, N).

    The same resamples of rows as in `bootstrap_apgr`. PGR is NaN where too few of them have a better teacher.
    """
    count = len(student)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)
    gain = teacher - student
    base, gap = weights @ student / count, weights @ gain / count
    jitter = rng.permutation(count)
    shared = _cumulated(scores, gain, weights, jitter) if scores.ndim == 1 else None
    quality, recovered = np.full((len(shares), 2), np.nan), np.full((len(shares), 2), np.nan)
    for i, share in enumerate(shares):
        won = _at(*(shared or _cumulated(scores[i], gain, weights, jitter)), share * count) / count
        quality[i] = np.quantile(base + won, (0.025, 0.975))
        fair = gap > 0
        if fair.sum() >= resamples // 2:
            recovered[i] = np.quantile(won[fair] / gap[fair], (0.025, 0.975))
    return quality, recovered


def _cumulated(scores: Floats, gain: Floats, weights: Floats, jitter: Ints) -> tuple[Floats, Floats]:
    """Rows asked and gain won, (R, N) each, going down the ranking."""
    order = np.lexsort((jitter, -scores))
    ordered = weights[:, order]
    return np.cumsum(ordered, axis=1), np.cumsum(ordered * gain[order], axis=1)


def _at(rows: Floats, worth: Floats, asked: float) -> Floats:
    """(R,) gain won when `asked` rows have been asked, the last row in part."""
    place = np.minimum((rows < asked - 1e-6).sum(axis=1), rows.shape[1] - 1)
    each = np.arange(len(rows))
    before = np.where(place > 0, rows[each, place - 1], 0.0)
    value_before = np.where(place > 0, worth[each, place - 1], 0.0)
    width = np.maximum(rows[each, place] - before, 1e-9)
    part = np.clip((asked - before) / width, 0.0, 1.0)
    out: Floats = value_before + part * (worth[each, place] - value_before)
    return out
