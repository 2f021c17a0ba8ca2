"""The judgement: does a teacher call fit under a limit, what is charged for it, what is corrected when it is over."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from router import windows
from router.accounts import Standing, Tally
from router.ledger import Ask, Balance, Settlement
from router.terms import NANO_USD, OPEN, Line


class Estimate(NamedTuple):
    """What a teacher call may cost at most, in whole units."""

    tokens: int
    nano_usd: int

    @property
    def charge(self) -> Tally:
        return Tally(0, 1, self.tokens, self.nano_usd, 1)


def estimate(ask: Ask) -> Estimate:
    """Raises ValueError for amounts that are no amounts."""
    return Estimate(whole_tokens(ask.tokens), nano_usd(ask.usd))


# Far above any bill, far below what 64 bits hold when summed for years.
MOST_TOKENS = 10**12
MOST_NANO_USD = 10**15


def whole_tokens(tokens: int) -> int:
    return min(max(int(tokens), 0), MOST_TOKENS)


def nano_usd(usd: float) -> int:
    """Whole nano-dollars, rounded up. Float noise below a thousandth of a nano-dollar is no money."""
    if usd <= 0:
        return 0
    return MOST_NANO_USD if usd >= MOST_NANO_USD / 1e9 else math.ceil(round(usd * 1e9, 3))


def spent(line: Line, standing: Standing, open_leases: int) -> int:
    return open_leases if line.terms.column == OPEN else standing.total[line.terms.column]


def has_room(line: Line, standing: Standing, open_leases: int, charge: Tally) -> bool:
    """Whether `charge` fits on top of what is spent. The requests so far include the one that asks."""
    column = line.terms.column
    more = 1 if column == OPEN else charge[column]
    return spent(line, standing, open_leases) + more <= line.terms.allowed(standing.requests)


class Charge(NamedTuple):
    """Where a reservation was charged, so that it is settled in the same window."""

    account: str
    bucket: int
    slow_over_s: float | None
    """For an account that counts slow calls: what slow is."""


def charges(of: Sequence[Line], standings: Mapping[str, Standing]) -> tuple[Charge, ...]:
    """One per account, however many limits look at it."""
    found: dict[str, Charge] = {}
    for line in of:
        limit = line.terms.limit
        over = limit.at_most if limit.measure == "latency_s" else None
        found.setdefault(line.account, Charge(line.account, standings[line.account].bucket, over))
    return tuple(found.values())


def correction(charge: Charge, reserved: Estimate, settlement: Settlement) -> Tally:
    """What to add to an account once it is known what the call has cost. A call of unknown latency stays slow."""
    if settlement.outcome == "released":
        return Tally(0, -1, -reserved.tokens, -reserved.nano_usd, -1)
    quick = (
        charge.slow_over_s is not None
        and settlement.latency_s is not None
        and settlement.latency_s <= charge.slow_over_s
    )
    return Tally(
        0,
        0,
        whole_tokens(settlement.tokens) - reserved.tokens,
        nano_usd(settlement.usd) - reserved.nano_usd,
        -1 if quick else 0,
    )


def balance(line: Line, standing: Standing, open_leases: int, now_us: int) -> Balance:
    limit, terms = line.terms.limit, line.terms
    unit = 1e9 if terms.column == NANO_USD else 1.0
    window = terms.window
    resets = None
    if line.at.end_us is not None and window is not None and not window.rolls:
        resets = max(line.at.end_us - now_us, 0) / windows.SECOND_US
    allowed = (terms.constant + terms.slope * standing.requests / terms.per_slope) / unit
    return Balance(
        limit=limit,
        spent=spent(line, standing, open_leases) / unit,
        allowed=allowed,
        requests=standing.requests,
        calls=standing.total.calls,
        resets_in_s=resets,
    )


def retry_after_s(line: Line, oldest_bucket: int | None, now_us: int) -> float | None:
    """When a refusing limit may have room again: its window ends, its oldest bucket leaves, or its hours are over.

    None where only more requests, or the end of a call, can make room.
    """
    terms, moments = line.terms, []
    if terms.slope == 0 and terms.column != OPEN:
        if terms.window is not None and terms.window.rolls:
            if oldest_bucket is not None:
                moments.append(windows.bucket_leaves_us(terms.window, oldest_bucket))
        elif line.at.end_us is not None:
            moments.append(line.at.end_us)
    if terms.during is not None and (change := windows.next_change_us(terms.during, now_us)) is not None:
        moments.append(change)
    return max(min(moments) - now_us, 0) / windows.SECOND_US if moments else None
