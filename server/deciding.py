"""What all decisions of a worker share: the policies at work, what the budget lets them hope for, the traffic.

`begin` says who decides about a request; `server.consultation` is the request's own part. A policy that fails costs
nobody an answer: the safe policy decides, and the reason says so.
"""

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any
from zlib import crc32

from policies.observation import Observation
from policies.safe import SAFE, SafeName
from router.breaker import failed, may_probe, probed
from router.budget import Budget, Limit, Measure
from router.ledger import Balance, Subject
from router.pacing import FREE, Aim, Traffic, aim
from router.record import DecisionRecord, ShadowRecord
from server.consultation import Consultation, finite
from server.in_service import InService
from server.scoring.scorer import InlineScorer
from server.teachers import Teachers
from server.telemetry import Metrics

log = logging.getLogger(__name__)

_BALANCES = 20_000
_RATE_MEMORY_S = 60.0
_CALL_MEMORY = 50
_MOST_BESIDE = 256
"""Scores of a shadow under way; with more, requests go unshadowed rather than pile up behind a slow one."""


class Decider:
    """One per worker. What is spent stands in the ledger, for all workers; only the shape of the traffic and of each
    policy's scores is learnt here, by each."""

    def __init__(
        self,
        policy: InService,
        metrics: Metrics,
        *,
        explore: float,
        fallback: SafeName = "student",
        workers: int = 1,
        draw: Callable[[], float] = random.random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = metrics
        self._explore_by_settings = explore
        self.explore = explore
        self._workers = workers
        self.draw = draw
        self._now = now
        self._traffic = Traffic()
        self._tokens_held = self._usd_held = 0.0
        self._last_at: float | None = None
        self._limits: tuple[Limit, ...] = ()
        self._at_first: tuple[Balance, ...] = ()
        """For each limit: where it stands until the ledger has spoken."""
        self._balances: OrderedDict[tuple[int, str], Balance | None] = OrderedDict()
        """By the place of the limit, and whom it is about."""
        self._open = FREE
        self.serving = policy
        self.canary: InService | None = None
        self.canary_share = 0.0
        self._canary_salt = 0
        self.shadow: InService | None = None
        self.fallback = InService(InlineScorer(SAFE[fallback]))
        self.safe_policy = None if fallback == "student" else SAFE[fallback]
        """None: the student serves, whatever pacing would say."""
        self.teachers: Teachers | None = None
        """Whom a policy that knows several can choose among."""
        self.late_shadow: Callable[[str, ShadowRecord], None] | None = None
        """Takes what a shadow says after the record of its decision was written."""
        self._beside: set[asyncio.Task[None]] = set()
        self._probed: set[InService] = set()

    # Policies

    @property
    def healthy(self) -> bool:
        return not self.serving.breaker.failing

    @property
    def one_step_versions(self) -> frozenset[str]:
        """Of the policies that decide now, those that are asked once per request."""
        deciding = (self.serving, self.fallback, *(() if self.canary is None else (self.canary,)))
        return frozenset(each.version for each in deciding if len(each.steps) == 1)

    def take_policies(
        self,
        serving: InService,
        canary: InService | None = None,
        canary_share: float = 0.0,
        shadow: InService | None = None,
    ) -> None:
        """From the next request on. Requests that began with another policy stay with it."""
        known = {self.serving, self.canary, self.shadow}
        self.serving, self.canary, self.canary_share, self.shadow = serving, canary, canary_share, shadow
        for each in {serving, canary, shadow} - known:
            if each is not None:
                each.begin_pacing(self._weighed_by)
        # Another canary gets other conversations: nobody is the one who always tries what is new.
        self._canary_salt = 0 if canary is None else crc32(canary.version.encode())

    def begin(self, conversation: str, decision_id: str) -> Consultation:
        """Who decides about this request; always the same one within a conversation."""
        canary = self.canary
        if canary is not None and _draw_of(conversation or decision_id, self._canary_salt) < self.canary_share:
            if not canary.breaker.aside:
                return Consultation(self, canary, "canary")
            return Consultation(self, self.serving, "serving", probing=canary)
        return Consultation(self, self.serving, "serving")

    def note_failure(self, policy: InService, why: Exception) -> None:
        """A policy failed to score what it was asked."""
        self.metrics.policy_failed(policy.version)
        before, policy.breaker = policy.breaker, failed(policy.breaker, self._now())
        if policy.breaker.aside and not before.aside:
            log.error(
                "policy %s (%s) is set aside: it fails again and again, just now with %s",
                policy.version,
                policy.name,
                why,
            )
        elif not before.outcomes:
            log.warning("policy %s (%s) failed: %s", policy.version, policy.name, why)

    def probe(self, policy: InService, observation: Observation) -> None:
        """Tries a policy that is set aside, beside the answers; one try at a time."""
        if policy not in self._probed and observation.step in policy.steps and may_probe(policy.breaker, self._now()):
            self._probed.add(policy)
            policy.held += 1
            self.beside(self._probe(policy, observation))

    async def _probe(self, policy: InService, observation: Observation) -> None:
        try:
            finite(await policy.scorer.score(observation))
            good = True
        except Exception:
            good = False
        finally:
            self._probed.discard(policy)
            policy.release()
        policy.breaker = probed(policy.breaker, self._now(), good=good)
        if not policy.breaker.aside:
            log.warning("policy %s (%s) answers again and is back in service", policy.version, policy.name)

    def room_for_shadow(self) -> bool:
        if len(self._beside) < _MOST_BESIDE:
            return True
        self.metrics.shadow_skipped.inc()
        return False

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts something that no answer waits for."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def drain(self) -> None:
        """Waits a moment for what was asked beside the answers."""
        if self._beside:
            await asyncio.wait(self._beside, timeout=1.0)

    # The budget

    def take_budget(self, budget: Budget) -> None:
        self.explore = self._explore_by_settings if budget.explore is None else budget.explore
        # A share of tokens is kept elsewhere (`server.token_promise`), with room asked for there.
        self._limits = tuple(limit for limit in budget.limits if limit.measure != "token_share")
        self._at_first = tuple(_at_first(limit) for limit in self._limits)
        self._balances.clear()
        self._open = FREE
        for each in (self.serving, self.canary, self.shadow, self.fallback):
            if each is not None:
                each.begin_pacing(self._weighed_by)

    @property
    def _weighed_by(self) -> Measure | None:
        """What the budget weighs calls by, where it does not only count them."""
        return next((limit.measure for limit in self._limits if limit.measure in ("usd", "tokens")), None)

    def note_balances(self, subject: Subject, balances: tuple[Balance, ...]) -> None:
        """What the ledger said last, by limit and by whom the limit is about; None for a limit not in force now."""
        said = {balance.limit: balance for balance in balances}
        for place, limit in enumerate(self._limits):
            self._balances[place, _whose(limit, subject)] = said.get(limit)
        while len(self._balances) > _BALANCES:
            self._balances.popitem(last=False)
        self.metrics.shares(balances)

    def note_request(self, subject: Subject) -> None:
        """A request that the ledger is told of a moment later: pacing by what the ledger said before would lag behind,
        and then ask for too much at once."""
        self._note(subject, requests=1, calls=0)

    def note_wish(self, subject: Subject, *, tokens: int, usd: float) -> None:
        """A teacher call that is being asked for, with what it reserves: a decision made before the ledger's answer
        reckons with it."""
        self._tokens_held = _average(self._tokens_held, tokens)
        self._usd_held = _average(self._usd_held, usd)
        self._note(subject, requests=0, calls=1, tokens=tokens, usd=usd)

    def _note(self, subject: Subject, *, requests: int, calls: int, tokens: int = 0, usd: float = 0.0) -> None:
        for place, limit in enumerate(self._limits):
            whose = (place, _whose(limit, subject))
            balance = self._balances.get(whose, self._at_first[place])
            if balance is not None:
                self._balances[whose] = Balance(
                    limit,
                    balance.spent + _spent(limit.measure, calls, tokens, usd),
                    balance.allowed + requests * _per_request(limit),
                    balance.requests + requests,
                    balance.calls + calls,
                    balance.resets_in_s,
                )

    def aim(self, subject: Subject) -> Aim:
        """What the budget lets this request hope for, as far as the ledger has told."""
        balances, at_first = self._balances, self._at_first
        known = [
            balances.get((place, _whose(limit, subject)), at_first[place]) for place, limit in enumerate(self._limits)
        ]
        aimed = aim([balance for balance in known if balance is not None], self._traffic)
        if aimed.chance > 0.0:
            self._open = aimed
            return aimed
        # With nothing left, pacing would wish for nothing and the student would seem to have been chosen. What the
        # policy would have wished for goes to the ledger, which refuses: then the reason is the budget, and an
        # operator who wants errors or a queue then gets them.
        return aimed if aimed.shared else self._open

    # The traffic

    def learn(self, record: DecisionRecord) -> None:
        """What a finished request shows of the traffic."""
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
        self._traffic = Traffic(rate, tokens, usd, seconds, self._tokens_held, self._usd_held)


def _whose(limit: Limit, subject: Subject) -> str:
    return "" if limit.scope == "all" else str(getattr(subject, limit.scope))


def _spent(measure: Measure, calls: int, tokens: int, usd: float) -> float:
    """What of it counts under a limit."""
    if measure in ("share", "calls", "concurrent"):
        return calls
    return tokens if measure == "tokens" else usd if measure == "usd" else 0


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


def _draw_of(text: str, salt: int) -> float:
    """Uniform on [0, 1), and the same for the same text."""
    # CRC is linear; the multiplication breaks up what it leaves alike between texts of equal length.
    mixed = (crc32(text.encode("utf-8", "replace"), salt) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return (mixed >> 11) / 2**53
