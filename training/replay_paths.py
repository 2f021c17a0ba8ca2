"""How likely each path is for each recorded request, were a candidate to decide under another budget."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.prompt_features import Floats
from router.budget import Budget
from router.pacing import Aim, Pacer
from router.rules import RequestFacts, match
from training.candidates import Candidate
from training.decision_rows import Logged
from training.off_policy import Bools
from training.recorded_traffic import ESCALATE, KEEP, TEACHER, Recorded
from training.replayed_budget import Replay


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Probabilities of the candidate's paths, averaged over the passes of the replay."""

    joint: Floats
    """(N, 3): teacher at once, escalated, kept. Sums to less than 1 where the budget rejects."""
    refused: float
    """Mean number of teacher calls that the ledger would refuse."""
    fixed_refused: float
    """Of these, calls that a client or a rule asked for."""
    ruled: int
    """Requests that a rule of this budget decides."""

    @property
    def asks(self) -> Floats:
        """(N,) probability of the teacher."""
        out: Floats = self.joint[:, TEACHER] + self.joint[:, ESCALATE]
        return out

    @property
    def answered(self) -> Floats:
        out: Floats = self.joint.sum(axis=1)
        return out


@dataclass(frozen=True, slots=True)
class _Call:
    """What a teacher call costs where the log does not know: as much as the mean of those it does."""

    tokens: int = 0
    usd: float = 0.0
    latency_s: float = 1.0


def replay(
    traffic: Recorded,
    candidate: Candidate,
    budget: Budget,
    *,
    passes: int = 4,
    seed: int = 0,
    explore: float | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Paths:
    """Runs the traffic through pacing and ledger `passes` times. `explore` None: the share the budget says, or none."""
    coin = (budget.explore or 0.0) if explore is None else explore
    second = imputed(candidate)
    rules = [_rule(budget, traffic, i) for i in range(len(traffic))]
    calls = _calls(traffic)
    joint = np.zeros((len(traffic), 3))
    refused = fixed_refused = 0
    rng = np.random.default_rng(seed)
    rejects = budget.when_exhausted == "reject"
    for _ in range(passes):
        ledger = Replay(budget)
        draws = rng.random(len(traffic)).tolist()
        for i, row in enumerate(traffic.rows):
            aimed = ledger.arrive(row.subject, row.at)
            call = calls[i]
            room = ledger.has_room(call.tokens, call.usd)
            if not traffic.routed[i]:
                wants, score = bool(traffic.teacher_called[i]), None
                asks = wants and room
                refused, fixed_refused = refused + (wants and not room), fixed_refused + (wants and not room)
                joint[i, TEACHER if wants else KEEP] += 1.0
            else:
                score = float(np.fmax(candidate.first[i], second[i]))
                wished = _wished(ledger.pacer, aimed, candidate.first[i], second[i], coin, rules[i])
                wants = draws[i] < wished[TEACHER] + wished[ESCALATE]
                asks = wants and room
                refused += wants and not room
                if not room:
                    # Whoever wishes for the teacher is refused: the student answers, or nobody does.
                    kept = wished[KEEP] if rejects else 1.0
                    wished = (0.0, 0.0, kept)
                joint[i] += wished
            ledger.finish(
                None if rules[i] else score,
                aimed,
                teacher=asks,
                tokens=call.tokens,
                usd=call.usd,
                latency_s=call.latency_s,
            )
            if i % 1000 == 999:
                tick(1000)
    ruled = sum(rule is not None for rule, routed in zip(rules, traffic.routed, strict=True) if routed)
    return Paths(joint / passes, refused / passes, fixed_refused / passes, ruled)


def at_share(traffic: Recorded, candidate: Candidate, share: float) -> Paths:
    """The best-scored `share` of the routed requests asks: what a target comes to, without pacing's way there.

    Equal scores share what is left.
    """
    second = imputed(candidate)
    score = np.where(traffic.routed, np.fmax(candidate.first, second), np.nan)
    routed = np.flatnonzero(traffic.routed)
    ordered = np.sort(score[routed])[::-1]
    wanted = share * len(routed)
    joint = np.zeros((len(traffic), 3))
    joint[~traffic.routed, KEEP] = ~traffic.teacher_called[~traffic.routed]
    joint[~traffic.routed, TEACHER] = traffic.teacher_called[~traffic.routed]
    if not len(routed):
        return Paths(joint, 0.0, 0.0, 0)
    level = ordered[min(max(int(np.ceil(wanted)) - 1, 0), len(ordered) - 1)]
    above = int((ordered > level).sum())
    part = min(max((wanted - above) / max(int((ordered == level).sum()), 1), 0.0), 1.0)
    first = _over(candidate.first[routed], level, part)
    later = _over(second[routed], level, part)
    # Of one request's two equal scores only one is asked about: the whole chance is that of the larger one.
    joint[routed, TEACHER] = first
    joint[routed, ESCALATE] = np.maximum(later - first, 0.0)
    joint[routed, KEEP] = 1.0 - joint[routed, TEACHER] - joint[routed, ESCALATE]
    return Paths(joint, 0.0, 0.0, 0)


def constant(traffic: Recorded, *, teacher: bool) -> Paths:
    """Every routed request to one side."""
    joint = np.zeros((len(traffic), 3))
    joint[:, KEEP] = np.where(traffic.routed, not teacher, ~traffic.teacher_called)
    joint[:, TEACHER] = 1.0 - joint[:, KEEP]
    return Paths(joint, 0.0, 0.0, 0)


def imputed(candidate: Candidate) -> Floats:
    """Scores at the draft; where none was seen, that of the request whose first score is nearest.

    Only the replay's ledger needs them, to know how much would be spent: weights look at paths that were taken.
    """
    second = candidate.second
    # The logged score comes first among the features; it stands in where the candidate has none before the draft.
    nearness = np.where(np.isnan(candidate.first), candidate.features[:, 0], candidate.first)
    donors = np.flatnonzero(~np.isnan(second))
    missing: Bools = np.isnan(second)
    if not missing.any() or not len(donors):
        return second
    order = donors[np.argsort(nearness[donors], kind="stable")]
    place = np.searchsorted(nearness[order], nearness[missing])
    filled = second.copy()
    filled[missing] = second[order[np.minimum(place, len(order) - 1)]]
    return filled


def _over(score: Floats, level: float, part: float) -> Floats:
    out: Floats = np.where(np.isnan(score), 0.0, (score > level) + part * (score == level))
    return out


def _wished(
    pacer: Pacer, aimed: Aim, first: float, second: float, coin: float, rule: str | None
) -> tuple[float, float, float]:
    """Probabilities of (teacher at once, escalate, keep), before the ledger is asked."""
    if rule is not None:
        return (1.0, 0.0, 0.0) if rule == "teacher" else (0.0, 0.0, 1.0)
    if np.isnan(second):
        teacher = coin / 2 + (1 - coin) * pacer.chance(first, aimed)
        return teacher, 0.0, 1.0 - teacher
    escalate = coin / 2 + (1 - coin) * pacer.chance(second, aimed)
    if np.isnan(first):
        return 0.0, escalate, 1.0 - escalate
    at_once = pacer.chance(first, aimed)
    teacher = coin / 2 + (1 - coin) * at_once
    goes_on = (1 - coin) * (1 - at_once)
    return teacher, goes_on * escalate, 1.0 - teacher - goes_on * escalate


def _rule(budget: Budget, traffic: Recorded, i: int) -> str | None:
    if not budget.rules or not traffic.routed[i]:
        return None
    rule = match(budget.rules, _facts(traffic.rows[i]))
    return None if rule is None else rule.route


def _facts(row: Logged) -> RequestFacts:
    text = row.prompt or ""
    return RequestFacts(text=text, tokens=max(1, len(text.encode()) // 4), tags=row.tags, key_group=row.subject.tenant)


def _calls(traffic: Recorded) -> list[_Call]:
    asked = [row for row in traffic.rows if row.teacher_calls > 0]
    if not asked:
        return [_Call()] * len(traffic)
    mean = _Call(
        round(sum(row.teacher_tokens for row in asked) / len(asked)),
        sum(row.teacher_usd for row in asked) / len(asked),
        sum(row.latency_ms for row in asked) / len(asked) / 1000,
    )
    return [
        _Call(row.teacher_tokens, row.teacher_usd, row.latency_ms / 1000) if row.teacher_calls > 0 else mean
        for row in traffic.rows
    ]
