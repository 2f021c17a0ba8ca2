"""From an observation to a decision: the policy scores, pacing sets the threshold, a coin now and then explores.

A policy that raises or returns no number costs nobody an answer: the student serves, and the reason says why.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from policies.action import ACTIONS, Step
from policies.observation import Observation
from router.budget import Budget, Limit
from router.ledger import Balance, Subject
from router.pacing import FREE, Aim, Pacer, Traffic, aim, decide, step
from router.record import DecisionRecord, Reason, StepRecord
from server.scoring.scorer import Scorer
from server.telemetry import Metrics

_BALANCES = 20_000
_RATE_MEMORY_S = 60.0
_CALL_MEMORY = 50
_REASONS = {
    (Step.ROUTE, False): Reason.POLICY_STUDENT,
    (Step.ROUTE, True): Reason.POLICY_TEACHER,
    (Step.DEFER, False): Reason.POLICY_KEEP,
    (Step.DEFER, True): Reason.POLICY_ESCALATE,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    calls_teacher: bool
    reason: Reason
    record: StepRecord


class Decider:
    """One per worker: the policy in service, and the pacing state that goes with it.

    What is spent stands in the ledger, for all workers; only the shape of the traffic is learnt here, by each.
    """

    def __init__(
        self,
        policy: Scorer,
        metrics: Metrics,
        *,
        explore: float,
        workers: int = 1,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._metrics = metrics
        self._explore_by_settings = explore
        self._explore = explore
        self._workers = workers
        self._draw = draw
        self._pacer = Pacer()
        self._traffic = Traffic()
        self._last_at: float | None = None
        self._limits: tuple[Limit, ...] = ()
        self._balances: OrderedDict[tuple[Limit, str], Balance | None] = OrderedDict()
        self._open = FREE
        self.healthy = True
        self.take_policy(policy)

    def take_policy(self, policy: Scorer) -> None:
        self.policy = policy
        self.steps = policy.steps
        self.reads_drafts = Step.DEFER in policy.steps
        self._pacer = Pacer()  # the scores of another policy say nothing about this one's

    def take_budget(self, budget: Budget) -> None:
        self._explore = self._explore_by_settings if budget.explore is None else budget.explore
        self._limits = budget.limits
        self._balances.clear()
        self._open = FREE

    def note_balances(self, subject: Subject, balances: tuple[Balance, ...]) -> None:
        """What the ledger said last, by limit and by whom the limit is about; None for a limit not in force now."""
        said = {balance.limit: balance for balance in balances}
        for limit in self._limits:
            self._balances[limit, _whose(limit, subject)] = said.get(limit)
        while len(self._balances) > _BALANCES:
            self._balances.popitem(last=False)
        self._metrics.shares(balances)

    def note_request(self, subject: Subject) -> None:
        """A request that the ledger is told of a moment later: pacing by what the ledger said before would lag behind,
        and then ask for too much at once."""
        self._note(subject, requests=1, calls=0)

    def note_wish(self, subject: Subject) -> None:
        """A teacher call that is being asked for: a decision made before the ledger's answer reckons with it."""
        self._note(subject, requests=0, calls=1)

    def _note(self, subject: Subject, *, requests: int, calls: int) -> None:
        for limit in self._limits:
            whose = (limit, _whose(limit, subject))
            balance = self._balances.get(whose, _at_first(limit))
            if balance is not None:
                self._balances[whose] = Balance(
                    limit,
                    balance.spent + (calls if limit.measure in ("share", "calls", "concurrent") else 0),
                    balance.allowed + requests * _per_request(limit),
                    balance.requests + requests,
                    balance.calls + calls,
                    balance.resets_in_s,
                )

    def aim(self, subject: Subject) -> Aim:
        """What the budget lets this request hope for, as far as the ledger has told."""
        known = [self._balances.get((limit, _whose(limit, subject)), _at_first(limit)) for limit in self._limits]
        aimed = aim([balance for balance in known if balance is not None], self._traffic)
        if aimed.chance > 0.0:
            self._open = aimed
            return aimed
        # With nothing left, pacing would wish for nothing and the student would seem to have been chosen. What the
        # policy would have wished for goes to the ledger, which refuses: then the reason is the budget, and an
        # operator who wants errors or a queue then gets them.
        return aimed if aimed.shared else self._open

    async def decide(self, observation: Observation, aimed: Aim) -> Verdict:
        asked_at = observation.step
        stay, call = ACTIONS[asked_at]
        try:
            scores = await self.policy.score(observation)
            score = float(scores.score)
            if math.isnan(score):
                raise ValueError("the score is not a number")
        except Exception:
            self.healthy = False
            self._metrics.policy_failures.inc()
            return Verdict(False, Reason.POLICY_FAILED, StepRecord(asked_at, stay, None, 0.0, 1.0))
        self.healthy = True
        choice = decide(score, self._pacer, aimed, draw=self._draw(), explore=self._explore)
        reason = Reason.EXPLORED if choice.explored else _REASONS[asked_at, choice.teacher]
        action = call if choice.teacher else stay
        return Verdict(
            choice.teacher,
            reason,
            StepRecord(asked_at, action, score, choice.shift, choice.propensity, None, scores.details),
        )

    def learn(self, record: DecisionRecord, aimed: Aim) -> None:
        """What a finished request shows of the traffic."""
        self._learn_traffic(record)
        scored = [each.score for each in record.steps if each.score is not None]
        if scored:
            self._pacer = step(self._pacer, max(scored), aimed, teacher=record.teacher_calls > 0)

    def _learn_traffic(self, record: DecisionRecord) -> None:
        before = self._traffic
        rate, tokens, usd, seconds = (
            before.requests_per_s, before.tokens_per_call, before.usd_per_call, before.seconds_per_call
        )  # fmt: skip
        if self._last_at is not None:
            gap = max(record.at - self._last_at, 1e-6)
            # An exponential average over time: one request adds 1/memory and what was there fades with the gap.
            kept = math.exp(-gap / _RATE_MEMORY_S)
            rate = rate * kept + self._workers * (1 - kept) / gap
        self._last_at = max(record.at, self._last_at or record.at)
        if record.teacher_calls:
            tokens = _average(tokens, record.teacher_tokens / record.teacher_calls)
            usd = _average(usd, record.teacher_usd / record.teacher_calls)
            seconds = _average(seconds, record.latency_ms / 1000)
        self._traffic = Traffic(rate, tokens, usd, seconds)


def _whose(limit: Limit, subject: Subject) -> str:
    return "" if limit.scope == "all" else str(getattr(subject, limit.scope))


def _per_request(limit: Limit) -> float:
    """What each request adds to what a limit allows."""
    if limit.measure == "latency_s":
        return 1.0 - (1.0 if limit.quantile is None else limit.quantile)
    grows = limit.measure == "share" or (limit.per is not None and limit.per.unit == "request")
    return limit.at_most if grows else 0.0


def _at_first(limit: Limit) -> Balance:
    """Until the ledger has spoken: nothing spent, and nothing earned by requests either."""
    return Balance(limit, 0.0, 0.0 if _per_request(limit) else limit.at_most, 0, 0)


def _average(before: float, now: float) -> float:
    return now if before == 0.0 else before + (now - before) / _CALL_MEMORY
