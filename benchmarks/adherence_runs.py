"""One stream through the real ledger and the real pacing, request by request, with a simulated clock.

What the gateway does around them is done here in the same order: aim at what the ledger said last, score, decide, ask
the ledger, settle, learn. In a burst all requests are decided and admitted before any call is settled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.adherence_streams import Traffic as Requests
from policies.prompt_features import Floats
from router.budget import Budget, Limit
from router.ledger import Ask, Balance, Settlement, Subject
from router.pacing import Aim, Pacer, Traffic, aim, decide, held, step, worth
from server.ledgers.memory import MemoryLedger

SUBJECT = Subject()
JUDGED_FROM = 500
"""Requests after which a share is held against what was promised."""
_CALL_MEMORY = 50


@dataclass(frozen=True, slots=True)
class Expected:
    """What a policy says of one request under an aim."""

    score: float
    gain: float = 0.0
    usd: float | None = None
    """The teacher's bill; None where the policy cannot say."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What a stream is made of; arrays are (rows,)."""

    expected: Callable[[int, Aim], Expected]
    """Row and aim -> what the policy says."""
    student: Floats
    teacher: Floats
    usd: Floats | None = None
    """What the teacher billed."""
    most: float = 1.0
    """A call reserves up to this many times what it is expected to cost, and its length is bounded by that."""
    pacer: Pacer = field(default_factory=Pacer)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What came of N requests, in order."""

    asked: Floats
    """(N,) 1 where the teacher answered."""
    spent: Floats
    """(N,) USD billed, 0 where the table does not say."""
    got: Floats
    """(N,) quality."""
    student: Floats
    teacher: Floats
    cut: int
    """Calls that would have cost more than was reserved, and were cut off there."""
    refused: int
    """Calls that pacing wanted and the ledger had no room for."""

    @property
    def share(self) -> Floats:
        """(N,) realised share up to each request."""
        return np.cumsum(self.asked) / np.arange(1, len(self.asked) + 1)

    @property
    def gap_recovered(self) -> float:
        return float((self.got - self.student).sum() / (self.teacher - self.student).sum())


async def serve(case: Case, requests: Requests, limit: Limit, draw: Callable[[], float]) -> Run:
    ledger = MemoryLedger()
    await ledger.set_budget(Budget(limits=(limit,)), "", "", 0.0)
    count = len(requests.rows)
    asked, spent, got = np.zeros(count), np.zeros(count), np.zeros(count)
    balances: tuple[Balance, ...] = (Balance(limit, 0.0, 0.0, 0, 0),)
    pacer, shape = case.pacer, Traffic()
    open_calls: list[Settlement] = []
    cut = refused = 0
    now = 0.0
    for n, row in enumerate(requests.rows.tolist()):
        if requests.at[n] > now and open_calls:
            # The burst is over: its calls have been billed before the next one comes.
            await ledger.settle(open_calls, now)
            balances, open_calls = await ledger.balances(SUBJECT, now), []
        now = float(requests.at[n])
        aimed = aim(balances, shape)
        expected = case.expected(row, aimed)
        weight = expected.usd if aimed.weighed is not None else None
        score = expected.score if weight is None else worth(expected.gain, weight)
        choice = decide(score, pacer, aimed, draw=draw(), weight=weight)
        reserved = _reserved(expected.usd, case.most, limit, balances[0])
        ask = Ask(str(n), SUBJECT, counts_request=True, wants_teacher=choice.teacher, usd=reserved)
        admission = await ledger.admit(ask, now)
        balances = admission.balances
        teacher = choice.teacher and admission.granted
        refused += choice.teacher - teacher
        got[n] = case.teacher[row] if teacher else case.student[row]
        if teacher:
            asked[n] = 1.0
            if case.usd is not None:
                bill = float(case.usd[row])
                if bill > reserved:
                    # Cut off at the length that was paid for, and counted as worth nothing.
                    bill, got[n], cut = reserved, 0.0, cut + 1
                spent[n] = bill
                shape = replace(
                    shape, usd_per_call=_average(shape.usd_per_call, bill), usd_held=_average(shape.usd_held, reserved)
                )
            open_calls.append(Settlement(str(n), "settled", usd=spent[n]))
        pacer = step(pacer, score, aimed, teacher=teacher, weight=weight)
    rows = requests.rows
    return Run(asked, spent, got, case.student[rows], case.teacher[rows], cut, refused)


def _reserved(usd: float | None, most: float, limit: Limit, balance: Balance) -> float:
    if usd is None:
        return 0.0
    if limit.kind == "target":  # nothing is refused for want of room
        return usd * most
    this_one = limit.at_most if limit.per is not None and limit.per.unit == "request" else 0.0
    return held(usd, usd * most, balance.allowed + this_one - balance.spent)


def _average(before: float, now: float) -> float:
    return now if before == 0.0 else before + (now - before) / _CALL_MEMORY
