"""The report of `tw what-if`: everything that `--json` prints, as plain values. What cannot be said is null."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from router.budget import Budget
from router.language import canonical
from training.decision_rows import DecisionRows
from training.doubts import answerable, doubts, notes
from training.off_policy import Estimate, effective_sample_size, largest_part
from training.recorded_traffic import Recorded
from training.replay_paths import at_share, constant, replay
from training.what_if import (
    MOST_UNSUPPORTED,
    Evidence,
    Valued,
    asked_share,
    change,
    cost,
    honest,
    share,
    value,
)

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
STEPS = 50_000
"""About as many decisions as a replay makes: short logs are run through several times."""


def passes_for(count: int) -> int:
    """How often a log of so many requests is replayed."""
    return int(min(max(STEPS // max(count, 1), 1), 4))


def share_told(budget: Budget) -> float | None:
    """The share that a policy which looks at the budget is told: the tightest that the sentence names, if any."""
    return min((limit.at_most for limit in budget.limits if limit.measure == "share"), default=None)


def what_if_report(
    evidence: Evidence,
    budget: Budget,
    *,
    log: DecisionRows | None = None,
    text: str | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The report. `text`: the sentence as it was given; `tick(n)`: n more requests replayed."""
    traffic = evidence.traffic
    count = len(traffic)
    paths = replay(traffic, evidence.candidate, budget, passes=passes_for(count), seed=evidence.seed, tick=tick)
    valued = value(evidence, paths)
    told = bool((~np.isnan(traffic.quality)).any())
    used = np.where(evidence.known.known, valued.weighed.weight, 0.0)
    usd = cost(evidence, valued)
    report: dict[str, Any] = {
        "rows": count,
        "budget": {"text": text, "canonical": canonical(budget)},
        "policy": {"version": evidence.candidate.version, "as_logged": evidence.candidate.as_logged},
        "answerable": answerable(evidence, valued),
        **(_quality(honest(evidence, valued)) if told else {"quality": None, "quality_ci95": None}),
        "share": _number(float(paths.asks.mean())),
        "share_ci95": _interval(share(paths)),
        "usd_per_request": None if usd is None else _number(usd.value),
        "usd_per_request_ci95": None if usd is None else _interval(usd),
        "refused": _number(paths.refused),
        "change": _shown(change(evidence, valued)) if told else None,
        "estimators": _estimators(valued) if told else {},
        "effective_sample_size": _number(effective_sample_size(used)),
        "smallest_propensity": _number(_smallest(traffic, valued)),
        "largest_weight_part": _number(largest_part(used)),
        "unsupported": _number(valued.gap),
        "logged": _logged(evidence, log),
        "references": _references(evidence) if told else {},
        "curve": _curve(evidence) if told else [],
    }
    report["warnings"] = [each.as_dict() for each in doubts(evidence, valued, budget)]
    report["notes"] = notes(evidence, budget, log)
    return report


def _smallest(traffic: Recorded, valued: Valued) -> float:
    used = traffic.routed & (valued.weighed.weight > 0)
    return float(traffic.chance[used].min()) if used.any() else 1.0


def _logged(evidence: Evidence, log: DecisionRows | None) -> dict[str, Any]:
    traffic = evidence.traffic
    usd = np.array([row.teacher_usd for row in traffic.rows])
    known = ~np.isnan(traffic.delivered_quality)
    told = bool(known.any())
    return {
        "from": traffic.rows[0].at,
        "to": traffic.rows[-1].at,
        "routed": int(traffic.routed.sum()),
        "fixed": traffic.fixed_because,
        "left_out": traffic.left_out_because,
        "quality": _number(evidence.delivered.value) if told else None,
        "quality_ci95": _interval(evidence.delivered) if told else None,
        "quality_known": _number(float(known.mean())),
        "share": _number(asked_share(traffic)),
        "usd_per_request": _number(float(usd.mean())) if usd.any() else None,
        "policies": dict(log.versions) if log is not None else {},
        "torn_lines": 0 if log is None else log.torn_lines,
        "feedback_without_decision": 0 if log is None else log.lost_feedback,
    }


def _references(evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, teacher in (("student_only", False), ("teacher_only", True)):
        valued = value(evidence, constant(evidence.traffic, teacher=teacher))
        found[name] = {
            **_quality(honest(evidence, valued)),
            "effective_sample_size": _number(
                effective_sample_size(np.where(evidence.known.known, valued.weighed.weight, 0.0))
            ),
            "unsupported": _number(valued.gap),
        }
    return found


def _curve(evidence: Evidence) -> list[dict[str, Any]]:
    points = []
    for budget in SHARES:
        valued = value(evidence, at_share(evidence.traffic, evidence.candidate, budget))
        points.append(
            {
                "budget": budget,
                "share": _number(float(valued.paths.asks.mean())),
                **_quality(honest(evidence, valued)),
                "unsupported": _number(valued.gap),
            }
        )
    return points


def _estimators(valued: Valued) -> dict[str, Any]:
    """Each by itself; without an interval where it would leave out the answers that the log could not have seen."""
    found = {name: _quality(estimate) for name, estimate in valued.estimates.items()}
    return (
        found
        if valued.gap <= MOST_UNSUPPORTED
        else {name: {**each, "quality_ci95": None} for name, each in found.items()}
    )


def _shown(estimate: Estimate) -> dict[str, Any]:
    return {"quality": _number(estimate.value), "quality_ci95": _interval(estimate)}


def _quality(estimate: Estimate) -> dict[str, Any]:
    """Qualities lie within 0..1, as the interval's ends do; weights can push an estimate beyond, which nobody reads as
    intended."""
    return {**_shown(estimate), "quality": _number(min(max(estimate.value, 0.0), 1.0))}


def _interval(estimate: Estimate) -> list[float | None] | None:
    if not math.isfinite(estimate.low):
        return None
    return [_number(estimate.low), _number(estimate.high)]


def _number(number: float) -> float | None:
    return round(float(number), 6) if math.isfinite(number) else None
