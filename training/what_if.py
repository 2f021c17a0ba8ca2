"""What a budget or a policy would have done on logged traffic: quality, teacher share and cost, with intervals.

Three questions, three parts: which requests would have asked (`replay_paths`: the gateway's own pacing and ledger, run
again), what that would have been worth (`off_policy`), and whether the log can tell at all (`doubts`). The last
one matters most: where nothing was left to chance, no estimator knows what the other answer would have been.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from policies.policy import Policy
from policies.prompt_features import Floats, Ints
from router.budget import Budget, Limit
from training.candidates import Candidate, as_logged, with_policy
from training.decision_rows import DecisionRows, LogError
from training.off_policy import (
    Bools,
    Design,
    Estimate,
    Known,
    difference,
    doubly_robust,
    everything_known,
    importance,
    self_normalised,
)
from training.outcome_model import expected_outcomes
from training.recorded_traffic import CERTAIN, COIN_KEEP, ESCALATE, KEEP, TEACHER, Recorded, record_traffic
from training.replay_paths import Paths

MOST_UNSUPPORTED = 0.01
"""Above it an interval that knows nothing of unseen answers would be too narrow to be shown."""
STRATUM = 100
"""Requests that a stratum should hold; five strata per side at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """A candidate's paths set against those taken, and the same with the outcome model. All (N,)."""

    weight: Floats
    taken: Floats
    """What the model expects of the path taken."""
    baseline: Floats
    """What it expects of the candidate."""
    unsupported: Floats
    """Probability of paths of the candidate that the log could not have taken."""
    unsupported_worth: Floats
    """What the model expects of those."""
    mass: float
    """The mean of all paths' probabilities: 1, or less where requests are rejected."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The log, made ready: which qualities are known, what a model expects of either side."""

    traffic: Recorded
    candidate: Candidate
    known: Known
    strata: Ints
    """(N, 2) of `known`, were the request the student's or the teacher's."""
    expected: Floats
    """(N, 2) quality expected of student and teacher, out of fold."""
    spread: Floats
    """(N, 2) variance of these qualities."""
    delivered: Estimate
    """What the clients got."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Valued:
    """One set of paths, valued."""

    paths: Paths
    weighed: Weighed
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """ips, snips, dr"""

    @property
    def best(self) -> Estimate:
        return self.estimates["dr"]

    @property
    def gap(self) -> float:
        """The share of requests that would go a way which the log could not have gone."""
        return float(self.weighed.unsupported.mean())


def gather(log: DecisionRows, *, policy: Policy | None = None, share: float | None = None, seed: int = 0) -> Evidence:
    """`policy` None, or the very version that was logged: its logged scores are used. `share`: what a policy that looks
    at the budget is told. Raises LogError for a log without a routed request, CannotScore."""
    traffic = record_traffic(log.rows)
    if not traffic.routed.any():
        raise LogError(f"the log holds {len(log.rows)} requests and none was routed by a policy ({_kinds(traffic)})")
    if policy is None or {policy.version} == set(log.versions):
        candidate = as_logged(traffic)
    else:
        candidate = with_policy(traffic, policy, asked_share(traffic) if share is None else share)
    return gather_for(traffic, candidate, seed=seed)


def gather_for(traffic: Recorded, candidate: Candidate, *, seed: int = 0) -> Evidence:
    """The same for a candidate whose scores are there already."""
    score = candidate.features[:, 0]
    strata = _strata(traffic, score, traffic.asks)
    known = Known.of(traffic.quality, _of_side(strata, traffic.asks))
    expected = expected_outcomes(
        candidate.features,
        np.where(traffic.asks, 1, 0),
        np.where(traffic.routed, traffic.quality, np.nan),
        candidate.prior,
        seed=seed,
    )
    fixed = traffic.quality[~traffic.routed]
    expected[~traffic.routed] = np.nanmean(fixed) if (~np.isnan(fixed)).any() else 0.5
    served = traffic.asks & ~traffic.refused
    delivered_known = Known.of(traffic.delivered_quality, _of_side(_strata(traffic, score, served), served))
    delivered = importance(np.ones(len(traffic)), traffic.delivered_quality, delivered_known).within(0.0, 1.0)
    spread = _spread(expected, traffic.quality, traffic.asks)
    return Evidence(traffic, candidate, known, strata, expected, spread, delivered, seed)


def asked_share(traffic: Recorded) -> float:
    """The share of requests that asked the teacher."""
    return float(traffic.teacher_called.mean())


def same_share(traffic: Recorded) -> Budget:
    """A budget that aims at the share that was asked."""
    return Budget(limits=(Limit("target", "share", round(asked_share(traffic), 4)),))


def weigh(traffic: Recorded, paths: Paths, expected: Floats) -> Weighed:
    """`expected` (N, 2): of student and teacher."""
    count = len(traffic)
    rows = np.arange(count)
    student, teacher = expected[:, 0], expected[:, 1]
    two = traffic.two_steps & traffic.routed
    wanted = np.where(traffic.asks, paths.asks, paths.joint[:, KEEP])
    wanted = np.where(two & (traffic.path < COIN_KEEP), paths.joint[rows, np.minimum(traffic.path, KEEP)], wanted)
    wanted = np.where(two & (traffic.path == COIN_KEEP), 0.0, wanted)
    wanted = np.where(traffic.routed, wanted, 1.0)
    weight = wanted / traffic.chance
    taken = np.where(traffic.asks, teacher, student)
    baseline = paths.asks * teacher + paths.joint[:, KEEP] * student
    # With two decisions the second is known only where it was reached: there it corrects for those where it was not.
    at_once, escalated = paths.joint[:, TEACHER], paths.joint[:, ESCALATE]
    reached = two & ~np.isnan(traffic.reach)
    reach = np.where(reached, traffic.reach, 1.0)
    later = np.where(reached, escalated * (teacher - student) / reach, 0.0)
    baseline = np.where(two, at_once * teacher + (paths.answered - at_once) * student + later, baseline)
    baseline = np.where(traffic.routed, baseline, taken)
    gap, worth = _unsupported(traffic, paths, student, teacher)
    return Weighed(weight, taken, baseline, gap, worth, float(np.where(traffic.routed, paths.answered, 1.0).mean()))


def _unsupported(traffic: Recorded, paths: Paths, student: Floats, teacher: Floats) -> tuple[Floats, Floats]:
    kept = paths.joint[:, KEEP]
    one = traffic.certain & ~traffic.two_steps
    gap = np.where(one, np.where(traffic.asks, kept, paths.asks), 0.0)
    worth = gap * np.where(traffic.asks, student, teacher)
    for i in np.flatnonzero(traffic.routed & traffic.two_steps):
        steps = traffic.rows[i].steps
        at_once, escalated = float(paths.joint[i, TEACHER]), float(paths.joint[i, ESCALATE])
        if steps[0].propensity >= CERTAIN:
            # Teacher at once without chance: what a draft would have led to is unknown, and the other way round.
            called = traffic.path[i] == TEACHER
            gap[i] = kept[i] + escalated if called else at_once
            worth[i] = kept[i] * student[i] + escalated * teacher[i] if called else at_once * teacher[i]
        if len(steps) > 1 and steps[1].propensity >= CERTAIN:
            asked = traffic.path[i] == ESCALATE
            other = (kept[i] if asked else escalated) / traffic.reach[i]
            gap[i] += other
            worth[i] += other * (student[i] if asked else teacher[i])
    return gap, worth


def design(evidence: Evidence, paths: Paths) -> Design | None:
    """Both sides of every request; None with two decisions, where a side that was not taken has no known chance."""
    traffic = evidence.traffic
    if traffic.two_steps.any():
        return None
    chance = np.column_stack([1.0 - traffic.chance, 1.0 - traffic.chance])
    chance[np.arange(len(traffic)), traffic.asks.astype(np.int64)] = traffic.chance
    wanted = np.column_stack([paths.joint[:, KEEP], paths.asks])
    wanted[~traffic.routed] = chance[~traffic.routed]
    weight = np.where(chance > 1.0 - CERTAIN, wanted / np.maximum(chance, 1.0 - CERTAIN), 0.0)
    return Design(chance, weight, evidence.expected, evidence.spread, evidence.strata)


def value(evidence: Evidence, paths: Paths) -> Valued:
    """All three estimates of the quality of these paths."""
    traffic, known = evidence.traffic, evidence.known
    weighed = weigh(traffic, paths, evidence.expected)
    quality, by_design = traffic.quality, design(evidence, paths)
    found = {
        "ips": importance(weighed.weight, quality, known, by_design),
        "snips": self_normalised(weighed.weight, quality, known, by_design, mass=weighed.mass),
        "dr": doubly_robust(
            weighed.weight, quality, known, by_design, taken=weighed.taken, baseline=weighed.baseline
        ),
    }  # fmt: skip
    return Valued(paths, weighed, {name: estimate.within(0.0, 1.0) for name, estimate in found.items()})


def seen(evidence: Evidence, valued: Valued) -> Estimate:
    """The part of the quality, doubly robust, that comes from paths which the log could have taken."""
    weighed = valued.weighed
    return doubly_robust(
        weighed.weight,
        evidence.traffic.quality,
        evidence.known,
        design(evidence, valued.paths),
        taken=weighed.taken,
        baseline=weighed.baseline - weighed.unsupported_worth,
    )


def honest(evidence: Evidence, valued: Valued) -> Estimate:
    """The doubly robust estimate; where paths that the log could not have taken weigh more than `MOST_UNSUPPORTED`,
    with an interval that holds whatever their answers are worth, between 0 and 1 each."""
    best = valued.best
    gap = valued.gap
    if gap <= MOST_UNSUPPORTED:
        return best
    part = seen(evidence, valued)
    return Estimate(best.value, part.low, part.high + gap, best.influence).within(0.0, 1.0)


def change(evidence: Evidence, valued: Valued) -> Estimate:
    """What it would have been above what the clients got, with the same honesty."""
    gap = valued.gap if valued.gap > MOST_UNSUPPORTED else 0.0
    part = difference(
        seen(evidence, valued) if gap else valued.best, evidence.delivered, _variance_of_change(evidence, valued)
    )
    return Estimate(valued.best.value - evidence.delivered.value, part.low, part.high + gap, part.influence)


def _variance_of_change(evidence: Evidence, valued: Valued) -> float | None:
    """The clients' side has weight 1: where both agree, the same answer stands on both sides and makes no noise."""
    by_design = design(evidence, valued.paths)
    if by_design is None:
        return None
    weighed = valued.weighed
    moved = replace(by_design, weight=by_design.weight - 1.0)
    offset = (weighed.baseline - weighed.unsupported_worth)[:, None] - evidence.expected
    return moved.variance_of(evidence.known, centre=evidence.expected, offset=offset)


def cost(evidence: Evidence, valued: Valued) -> Estimate | None:
    """USD per request, doubly robust; None where no call cost anything."""
    traffic = evidence.traffic
    usd = np.array([row.teacher_usd for row in traffic.rows])
    if not usd.any():
        return None
    # Where the ledger refused, what the call would have cost is unknown, like its worth.
    outcome = np.where(traffic.refused, np.nan, usd)
    prior = np.column_stack([np.zeros(len(usd)), np.full(len(usd), np.nan)])
    expected = expected_outcomes(
        evidence.candidate.features,
        np.where(traffic.asks, 1, 0),
        np.where(traffic.routed, outcome, np.nan),
        prior,
        seed=evidence.seed,
        bounds=(0.0, math.inf),
    )
    expected[~traffic.routed] = usd[~traffic.routed].mean() if (~traffic.routed).any() else 0.0
    weighed = weigh(traffic, valued.paths, expected)
    known = Known.of(outcome, _of_side(evidence.strata, traffic.asks))
    found = doubly_robust(weighed.weight, outcome, known, taken=weighed.taken, baseline=weighed.baseline)
    return found.within(0.0, math.inf)


def share(paths: Paths) -> Estimate:
    """Of requests that ask the teacher; the interval is for traffic like this."""
    return importance(np.ones(len(paths.joint)), paths.asks, everything_known(len(paths.joint))).within(0.0, 1.0)


def _strata(traffic: Recorded, score: Floats, asks: Bools) -> Ints:
    """(N, 2): the stratum of each request were it the student's, and were it the teacher's.

    Fixed requests apart, routed ones by side and by fifths of the scores that went there (fewer where those are few).
    """
    strata = np.zeros((len(traffic), 2), dtype=np.int64)
    strata[~traffic.routed] = asks[~traffic.routed, None]
    for side in (0, 1):
        there = score[traffic.routed & (asks == bool(side))]
        parts = min(max(len(there) // STRATUM, 1), 5)
        edges = np.quantile(there, np.arange(1, parts) / parts) if len(there) else np.zeros(0)
        strata[traffic.routed, side] = 2 + 5 * side + np.searchsorted(edges, score[traffic.routed])
    return strata


def _of_side(pairs: Any, asks: Bools) -> Any:
    """(N, 2) -> (N,): the entry of the side taken."""
    return pairs[np.arange(len(asks)), asks.astype(np.int64)]


def _spread(expected: Floats, outcome: Floats, asks: Bools) -> Floats:
    """(N, 2) variance of outcomes: m (1 - m), as of right and wrong, scaled per side to what the known ones show."""
    shape = np.maximum(expected * (1.0 - expected), 0.01)
    out = np.empty_like(shape)
    for side in (0, 1):
        told = ~np.isnan(outcome) & (asks == bool(side))
        seen = float(((outcome[told] - expected[told, side]) ** 2).sum())
        out[:, side] = shape[:, side] * (seen / float(shape[told, side].sum()) if told.any() else 1.0)
    return out


def _kinds(traffic: Recorded) -> str:
    kinds = {**traffic.fixed_because, **traffic.left_out_because}
    return ", ".join(f"{count}: {why}" for why, count in kinds.items()) or "no requests"
