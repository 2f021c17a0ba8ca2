"""A budget run over recorded traffic: the gateway's own pacing and admission, with the log's clock.

`Replay` keeps the accounts that a ledger would keep, by the same arithmetic (`router.terms`, `router.accounts`,
`router.admission`), in one process and one request at a time: a call is charged at once with what it costs, so nothing
is reserved and later refunded. What it cannot show is several requests racing for the last place under a limit.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace

from router import accounts, terms, windows
from router.accounts import Standing, Tally
from router.admission import balance, has_room, nano_usd, whole_tokens
from router.budget import Budget
from router.ledger import Balance, Subject
from router.pacing import FREE, Aim, Pacer, Traffic, aim, step
from router.terms import Line

_RATE_MEMORY_S = 60.0
_CALL_MEMORY = 50


class Replay:
    """The state of one pass. Per request: `arrive`, then `has_room`, then `finish`."""

    def __init__(self, budget: Budget) -> None:
        self._terms = terms.terms_of(budget)
        self._standings: dict[str, Standing] = {}
        self._buckets: dict[str, dict[int, Tally]] = {}
        self._open: dict[str, list[int]] = {}
        self._lines: list[Line] = []
        self._now_us = 0
        self._traffic = Traffic()
        self._last_at: float | None = None
        self._hopeful = FREE
        self.pacer = Pacer()

    def arrive(self, subject: Subject, at: float) -> Aim:
        """A request comes: it is counted, and what the budget lets it hope for is what pacing saw just before."""
        self._now_us = max(self._now_us, windows.microseconds(at))
        self._lines = terms.lines(self._terms, subject, self._now_us)
        for line in self._lines:
            self._roll(line)
        aimed = aim(self._balances(), self._traffic) if self._lines else FREE
        self._charge(accounts.ONE_REQUEST)
        self._learn_rate(at)
        if aimed.chance > 0.0:
            self._hopeful = aimed
        # As in service: with nothing left the policy wishes as before, and the ledger is who refuses.
        return aimed if aimed.chance > 0.0 or aimed.shared else self._hopeful

    def has_room(self, tokens: int, usd: float) -> bool:
        """Whether every cap has room for a call of that size now."""
        charge = Tally(0, 1, whole_tokens(tokens), nano_usd(usd), 1)
        return all(
            has_room(line, self._standings[line.account], self._leases(line), charge)
            for line in self._lines
            if line.terms.refuses
        )

    def finish(
        self, score: float | None, aimed: Aim, *, teacher: bool, tokens: int, usd: float, latency_s: float
    ) -> None:
        """The request is over; `score` None where no policy was asked."""
        if teacher:
            slow = any(
                line.terms.limit.measure == "latency_s" and latency_s > line.terms.limit.at_most for line in self._lines
            )
            self._charge(Tally(0, 1, whole_tokens(tokens), nano_usd(usd), int(slow)))
            for line in self._lines:
                if line.terms.column == terms.OPEN:
                    end_us = self._now_us + int(latency_s * windows.SECOND_US)
                    heapq.heappush(self._open.setdefault(line.account, []), end_us)
            before = self._traffic
            self._traffic = replace(
                before,
                tokens_per_call=_average(before.tokens_per_call, tokens),
                usd_per_call=_average(before.usd_per_call, usd),
                seconds_per_call=_average(before.seconds_per_call, latency_s),
            )
        if score is not None:
            self.pacer = step(self.pacer, score, aimed, teacher=teacher)

    def _roll(self, line: Line) -> None:
        kept = self._standings.get(line.account)
        rolls = line.terms.window is not None and line.terms.window.rolls
        leaving: Sequence[tuple[int, Tally]] = ()
        if rolls and kept is not None and line.at.first > kept.first:
            buckets = self._buckets.get(line.account, {})
            leaving = [(bucket, tally) for bucket, tally in buckets.items() if bucket <= line.at.first]
            for bucket in [bucket for bucket in buckets if bucket < line.at.first]:
                del buckets[bucket]
        self._standings[line.account] = accounts.rolled(kept, line.at, leaving)

    def _charge(self, more: Tally) -> None:
        for account, line in {line.account: line for line in self._lines}.items():
            standing = self._standings[account]
            self._standings[account] = standing._replace(total=standing.total.plus(more))
            if line.terms.window is not None and line.terms.window.rolls:
                buckets = self._buckets.setdefault(account, {})
                buckets[standing.bucket] = buckets.get(standing.bucket, Tally()).plus(more)

    def _leases(self, line: Line) -> int:
        if line.terms.column != terms.OPEN:
            return 0
        leases = self._open.setdefault(line.account, [])
        while leases and leases[0] <= self._now_us:
            heapq.heappop(leases)
        return len(leases)

    def _balances(self) -> list[Balance]:
        return [balance(line, self._standings[line.account], self._leases(line), self._now_us) for line in self._lines]

    def _learn_rate(self, at: float) -> None:
        if self._last_at is not None:
            gap = max(at - self._last_at, 1e-6)
            kept = math.exp(-gap / _RATE_MEMORY_S)
            before = self._traffic
            self._traffic = replace(before, requests_per_s=before.requests_per_s * kept + (1 - kept) / gap)
        self._last_at = max(at, self._last_at or at)


def _average(before: float, now: float) -> float:
    return now if before == 0.0 else before + (now - before) / _CALL_MEMORY
