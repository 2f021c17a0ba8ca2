"""Quality at every budget, against baselines on the same features and rows: what `tw evaluate` prints.

A policy is ranked at its last step (the draft's where it looks at drafts), at each budget with the scores that it gives
under that budget. NaN never reaches the report: what cannot be said is null.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from policies.action import Step
from policies.features import draft_of, prompt_of
from policies.observation import BudgetState, Observation
from policies.outcomes import Outcome
from policies.policy import Policy, Signals
from policies.prompt_features import Floats
from training.budget_sentences import budget_sentences, notes, shares_wanted
from training.metrics import SHARES, apgr, bootstrap_apgr, bootstrap_points, cpt, oracle, pgr, quality_at

BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Budgets on the curve; 5, 10, 20, 30 and 50% are always among them."""

ScoresAt = Callable[[float], Floats]
"""Budget share -> (N,) scores."""


@runtime_checkable
class ScoresMany(Protocol):
    """A policy that reads observations once and scores them under many budgets."""

    def prepare(self, observations: Sequence[Observation]) -> Floats: ...

    def score_prepared(self, step: Step, features: Floats, share: float) -> Floats: ...


class CannotEvaluate(ValueError):
    """The table and the policy do not go together; the message says why."""


def signals_of(policy: Policy) -> Signals:
    return "draft" if Step.DEFER in policy.steps else "prompt"


def observations(outcomes: Sequence[Outcome], step: Step, share: float = 1.0) -> list[Observation]:
    return [
        Observation(step, prompt_of(row), draft_of(row) if step is Step.DEFER else None, BudgetState(share))
        for row in outcomes
    ]


def scores_of(policy: Policy, outcomes: Sequence[Outcome]) -> ScoresAt:
    """The policy's scores at its last step, as a function of the budget share."""
    step = policy.steps[-1]
    if isinstance(policy, ScoresMany):
        prepared = policy.prepare(observations(outcomes, step))
        many = policy

        def scores_prepared(share: float) -> Floats:
            return many.score_prepared(step, prepared, share)

        return scores_prepared

    def scores(share: float) -> Floats:
        return np.array([policy.score(observation).score for observation in observations(outcomes, step, share)])

    return scores


def rounded(value: float | None) -> float | None:
    """For JSON: NaN and infinities become null."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def ranking(scores: Floats, student: Floats, teacher: Floats, *, resamples: int = 400) -> dict[str, Any]:
    """APGR with its interval, and CPT, of one ranking, (N,) or (101, N)."""
    quality = quality_at(scores, student, teacher, SHARES)
    recovered = pgr(quality, float(student.mean()), float(teacher.mean()))
    interval = bootstrap_apgr(scores, student, teacher, resamples=resamples) if resamples else None
    fair = bool(np.isfinite(recovered).all())
    return {
        "apgr": rounded(apgr(scores, student, teacher)),
        "apgr_ci95": None if interval is None else [rounded(interval[0]), rounded(interval[1])],
        "cpt50": cpt(recovered, 0.5) if fair else None,
        "cpt80": cpt(recovered, 0.8) if fair else None,
    }


def hindsight(scores: Floats, student: Floats, teacher: Floats, share: float) -> float:
    """Mean quality under the best threshold on scores (N,) that asks no more than `share` of these rows."""
    count = len(student)
    shares = np.arange(math.floor(share * count + 1e-9) + 1) / count
    return float(quality_at(scores, student, teacher, shares).max())


def curve(scores_at: ScoresAt, student: Floats, teacher: Floats) -> list[dict[str, float | None]]:
    """One point per budget: the share asked, never above the budget, and the quality got.

    The best-scored floor(budget * N) rows are asked, as under a share cap. `open_loop_share` is what the scores alone
    (above 0) would have asked, without a ledger and without pacing; `capped_quality` is what they get under the cap,
    which refuses whoever comes too late. `regret` is what that lacks against the best threshold on these very scores
    that hindsight could have set, asking no more than the budget.
    """
    count = len(student)
    points: list[dict[str, float | None]] = []
    for budget in BUDGETS:
        scores = scores_at(budget)
        share = math.floor(budget * count + 1e-9) / count
        quality = float(quality_at(scores, student, teacher, np.array([share]))[0])
        asked = scores > 0
        recovered = pgr(np.array([quality]), float(student.mean()), float(teacher.mean()))
        wanted = float(asked.mean())
        got = float(((teacher - student) * asked).mean()) * (min(1.0, share / wanted) if wanted > 0 else 0.0)
        capped, best = float(student.mean()) + got, hindsight(scores, student, teacher, share)
        points.append(
            {
                "budget": budget,
                "share": rounded(share),
                "quality": rounded(quality),
                "pgr": rounded(float(recovered[0])),
                "open_loop_share": rounded(float(asked.mean())),
                "open_loop_quality": rounded(float(np.where(asked, teacher, student).mean())),
                "capped_quality": rounded(capped),
                "regret": rounded(best - capped),
            }
        )
    return points


def evaluate(
    policy: Policy,
    outcomes: Sequence[Outcome],
    *,
    baselines: dict[str, Floats] | None = None,
    resamples: int = 400,
) -> dict[str, Any]:
    """The report for rows whose two qualities are known; `baselines` are (N,) scores on the same rows.

    Raises CannotEvaluate for no rows, or a policy that reads drafts and a table without them.
    """
    if not outcomes:
        raise CannotEvaluate("no row of this split has both qualities")
    if signals_of(policy) == "draft" and all(row.student_response is None for row in outcomes):
        raise CannotEvaluate("the policy reads the student's draft, and no row has a student_response")
    student = np.array([row.student_quality for row in outcomes], dtype=np.float64)
    teacher = np.array([row.teacher_quality for row in outcomes], dtype=np.float64)
    scores_at = scores_of(policy, outcomes)
    if isinstance(policy, ScoresMany):
        scores = np.stack([scores_at(float(share)) for share in SHARES])
        scores = scores[0] if (scores == scores[0]).all() else scores
    else:
        scores = scores_at(0.2)
    compared: dict[str, Any] = {"random": {**ranking(np.zeros(len(student)), student, teacher, resamples=0)}}
    for name, values in (baselines or {}).items():
        compared[name] = ranking(values, student, teacher, resamples=resamples)
    compared["oracle"] = ranking(oracle(student, teacher), student, teacher, resamples=0)
    report = {
        "policy": policy.name,
        "policy_version": policy.version,
        "signals": signals_of(policy),
        "rows": len(outcomes),
        "student_quality": rounded(float(student.mean())),
        "teacher_quality": rounded(float(teacher.mean())),
        **ranking(scores, student, teacher, resamples=resamples),
        "curve": _with_intervals(curve(scores_at, student, teacher), scores_at, student, teacher, resamples),
        "baselines": compared,
    }
    return {**report, "sentences": _sentences(scores, student, teacher, resamples), "notes": notes(report)}


def _with_intervals(
    points: list[dict[str, float | None]], scores_at: ScoresAt, student: Floats, teacher: Floats, resamples: int
) -> list[dict[str, Any]]:
    """The points of a curve with intervals of quality and PGR, over resampled rows; null without resamples."""
    if not resamples:
        return [{**point, "quality_ci95": None, "pgr_ci95": None} for point in points]
    scores = np.stack([scores_at(budget) for budget in BUDGETS])
    shares = np.array([point["share"] for point in points], dtype=np.float64)
    quality, recovered = bootstrap_points(scores, student, teacher, shares, resamples=resamples)
    return [
        {**point, "quality_ci95": _ends(quality[i]), "pgr_ci95": _ends(recovered[i])} for i, point in enumerate(points)
    ]


def _sentences(scores: Floats, student: Floats, teacher: Floats, resamples: int) -> list[dict[str, Any]]:
    """What to put in the budget for half and for four fifths of the gap; none where the teacher is not better."""
    quality = quality_at(scores, student, teacher, SHARES)
    recovered = pgr(quality, float(student.mean()), float(teacher.mean()))
    shares = shares_wanted(recovered)
    if not shares:
        return []
    if not resamples:
        return budget_sentences(shares, quality, recovered, None)
    at = np.array(shares)
    ranked = scores if scores.ndim == 1 else scores[np.round(at * 100).astype(np.int64)]
    intervals = bootstrap_points(ranked, student, teacher, at, resamples=resamples)
    return budget_sentences(shares, quality, recovered, intervals)


def _ends(interval: Floats) -> list[float | None] | None:
    return [rounded(end) for end in interval] if np.isfinite(interval).all() else None
