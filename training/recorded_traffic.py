"""A decision log as arrays: which path each request took, with what probability, and what is known of its worth.

Kinds of requests:

routed    a policy scored it. Its choice and that choice's probability are in the record, and another policy or budget
          might choose otherwise.
fixed     no policy chose: the client named a model, a rule of the budget spoke, no teacher was there, the policy
          failed, or the student failed before the draft was judged. They are kept as they were and count in every sum.
left out  no answer came (an error), the endpoint is not routed, or help was given inside the answer.

Of a routed request the *choice* is the path, whatever became of it: a teacher that failed and whose place the student
took is part of what asking brings. Only where the ledger refused (or did not answer) the teacher's worth stays unknown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.action import Action, Step
from policies.prompt_features import Floats, Ints
from router.record import Reason
from training.decision_rows import Logged
from training.off_policy import Bools

TEACHER, ESCALATE, KEEP, COIN_KEEP = 0, 1, 2, 3
"""Paths. With one decision TEACHER and ESCALATE are the same thing. COIN_KEEP: of two decisions, a coin at the first
chose the student and the second was not asked."""
CERTAIN = 1.0 - 1e-9

_FIXED = {
    Reason.FORCED_STUDENT: "the client asked for the student by name",
    Reason.FORCED_TEACHER: "the client asked for the teacher by name",
    Reason.RULE_STUDENT: "a rule of the budget sent it to the student",
    Reason.RULE_TEACHER: "a rule of the budget sent it to the teacher",
    Reason.NO_TEACHER: "no teacher was configured",
    Reason.POLICY_FAILED: "the policy failed",
}


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """N requests in the order they came."""

    rows: tuple[Logged, ...]
    routed: Bools
    two_steps: Bools
    """Two decisions stood open: route, then defer."""
    path: Ints
    chance: Floats
    """Probability of the path taken; 1 for fixed ones."""
    reach: Floats
    """With two decisions, where the second was reached: the probability of getting there. NaN elsewhere."""
    first: Floats
    """Scores at the route step, NaN where not asked."""
    second: Floats
    """Scores at the defer step."""
    quality: Floats
    """Of the path taken; NaN where unknown, and where the ledger refused the teacher."""
    delivered_quality: Floats
    """Of what the client got."""
    teacher_called: Bools
    refused: Bools
    fixed_because: dict[str, int]
    left_out_because: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def asks(self) -> Bools:
        """Whether the path taken asks the teacher."""
        return self.path <= ESCALATE

    @property
    def certain(self) -> Bools:
        """Routed without chance: the other path could not have been taken."""
        return self.routed & (self.chance >= CERTAIN)


def record_traffic(rows: Sequence[Logged]) -> Recorded:
    """Sorts the requests by kind and reads their paths."""
    left_out: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    kept: list[tuple[Logged, bool]] = []
    for row in rows:
        why = _left_out(row)
        if why:
            left_out[why] += 1
            continue
        scored = bool(row.steps) and row.steps[0].score is not None and row.steps[-1].score is not None
        if not scored:
            fixed[_FIXED.get(row.reason, "no decision was made")] += 1
        kept.append((row, scored))
    shapes = _two_step_versions(kept)
    coins = _coins(kept)
    count = len(kept)
    two = np.zeros(count, dtype=bool)
    path = np.full(count, KEEP)
    chance, reach = np.ones(count), np.full(count, np.nan)
    first, second = np.full(count, np.nan), np.full(count, np.nan)
    refused = np.zeros(count, dtype=bool)
    for i, (row, scored) in enumerate(kept):
        if not scored:
            path[i] = TEACHER if row.teacher_calls else KEEP
            continue
        two[i] = row.policy_version in shapes
        path[i], chance[i], reach[i] = _path(row, bool(two[i]), coins.get(_era(row), 0.0))
        for step in row.steps:
            (first if step.step == Step.ROUTE else second)[i] = step.score
        refused[i] = path[i] <= ESCALATE and row.steps[-1].admitted is False
    delivered = np.array([np.nan if row.quality is None else row.quality for row, _ in kept], dtype=np.float64)
    return Recorded(
        rows=tuple(row for row, _ in kept),
        routed=np.array([scored for _, scored in kept], dtype=bool),
        two_steps=two,
        path=path,
        chance=chance,
        reach=reach,
        first=first,
        second=second,
        quality=np.where(refused, np.nan, delivered),
        delivered_quality=delivered,
        teacher_called=np.array([row.teacher_calls > 0 for row, _ in kept], dtype=bool),
        refused=refused,
        fixed_because=dict(fixed),
        left_out_because=dict(left_out),
    )


def _left_out(row: Logged) -> str | None:
    if row.reason is Reason.PASSED_THROUGH:
        return "the endpoint is not routed"
    if row.reason is Reason.HELPED or any(step.step == Step.HELP for step in row.steps):
        return "help was given inside the answer"
    # A client that hung up (499) had its decision; a budget that rejects (429) is a refusal like any other.
    if row.status >= 400 and row.status != 499 and row.reason is not Reason.BUDGET_EXHAUSTED:
        return "an error instead of an answer"
    return None


def _two_step_versions(kept: Sequence[tuple[Logged, bool]]) -> set[str]:
    return {row.policy_version for row, scored in kept if scored and len(row.steps) > 1}


def _era(row: Logged) -> tuple[str, int]:
    return row.policy_version, row.budget_version


def _coins(kept: Sequence[tuple[Logged, bool]]) -> dict[tuple[str, int], float]:
    """Half of the exploration share, by policy and budget: what the surest choices leave to the other side."""
    surest: dict[tuple[str, int], float] = {}
    for row, scored in kept:
        if scored:
            surest[_era(row)] = max(surest.get(_era(row), 0.0), *(step.propensity for step in row.steps))
    return {era: 1.0 - most for era, most in surest.items()}


def _path(row: Logged, two_steps: bool, coin: float) -> tuple[int, float, float]:
    """(path, its probability, the probability of reaching a second decision or NaN)"""
    first, last = row.steps[0], row.steps[-1]
    asks = Action(last.action).calls_teacher
    if not two_steps or (first is last and first.step == Step.DEFER):
        return (TEACHER if asks else KEEP), last.propensity, np.nan
    if first is last:
        # The student, and no second question: a coin had the last word (or the student failed before the draft).
        return (TEACHER, first.propensity, np.nan) if asks else (COIN_KEEP, max(coin, 1e-9), np.nan)
    # The coin's students never come to the second question, so they are no part of the way there.
    reach = max(first.propensity - coin, 1e-9)
    return (ESCALATE if asks else KEEP), reach * last.propensity, reach
