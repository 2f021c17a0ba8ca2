"""How much of the traffic the budget can send to the teacher from here on. Pure: what is spent comes in as balances.

`aim` reads the balances and says which share of requests the budget can bear (`share`, what policies see) and what the
next requests should get to stay on it (`chance`): a limit that has fallen behind asks for more for a while, one that is
ahead for less. That is the integral part of a controller whose measured error lives in the shared ledger, so that all
workers steer by the same one.

Limits on money and tokens are also given in their own unit (`Weighed`), for policies that expect what a call will cost:
then cheap calls leave room for more of them, and `router.pacing` ranks by what a dollar buys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from policies.observation import BudgetState
from policies.values import quickly_made
from router.budget import Limit
from router.ledger import Balance
from router.windows import ROLLING_S

Weight = Literal["tokens", "usd"]
"""What calls of different size are weighed by."""


@quickly_made
@dataclass(frozen=True)
class Traffic:
    """What is known about the requests to come; zero where nothing is known yet."""

    requests_per_s: float = 0.0
    tokens_per_call: float = 0.0
    usd_per_call: float = 0.0
    seconds_per_call: float = 0.0
    tokens_held: float = 0.0
    """What a call reserves until it is settled: a cap must have this much room before it lets one through."""
    usd_held: float = 0.0

    def per_call(self, measure: str) -> tuple[float, float]:
        """(billed, held at least that long) by a call in a limit's measure; a call counts one where it is not sized."""
        match measure:
            case "tokens":
                return self.tokens_per_call, max(self.tokens_held, self.tokens_per_call)
            case "usd":
                return self.usd_per_call, max(self.usd_held, self.usd_per_call)
            case _:
                return 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """A limit on tokens or money, for requests whose cost is expected."""

    by: Weight
    per_request: float
    """What the limit grants each request on average, in its own unit."""
    pull: float = 0.0
    """-1..1: from nothing over just `per_request` to everything; see `steered`."""
    calls: float = 1.0
    """The chance that limits on the number of calls leave, where there are such limits beside it."""


@quickly_made
@dataclass(frozen=True)
class Aim:
    """`share` is what the budget allows in the long run; `chance` what the next requests should get to stay on it."""

    share: float = 1.0
    chance: float = 1.0
    left: float = 1.0
    """The fraction, 0..1, that is left in the tightest window."""
    shared: bool = False
    """Whether `chance` already answers to an error that the ledger keeps."""
    weighed: Weighed | None = None
    """The tightest limit on tokens or money; None where there is none."""

    @property
    def state(self) -> BudgetState:
        """What policies see."""
        return BudgetState(share=self.share, left=self.left)


FREE = Aim()


def aim(balances: Sequence[Balance], traffic: Traffic) -> Aim:
    """The tightest of all limits in force. Without limits the policy is free."""
    if len(balances) == 1:
        return _aim(balances[0], traffic)
    aims = [_aim(balance, traffic) for balance in balances]
    tightest = min(aims, key=lambda each: each.chance, default=FREE)
    return Aim(
        share=min((each.share for each in aims), default=1.0),
        chance=tightest.chance,
        left=min((each.left for each in aims), default=1.0),
        shared=tightest.shared,
        weighed=_tightest_weighed(aims),
    )


def _tightest_weighed(aims: Sequence[Aim]) -> Weighed | None:
    weighed = [each for each in aims if each.weighed is not None]
    tightest = min(weighed, key=lambda each: each.chance, default=FREE).weighed
    if tightest is None:
        return None
    calls = min((each.chance for each in aims if each.weighed is None), default=1.0)
    return Weighed(tightest.by, tightest.per_request, tightest.pull, calls)


def _aim(balance: Balance, traffic: Traffic) -> Aim:
    limit = balance.limit
    if limit.measure == "share" or limit.measure == "latency_s" or _per_request(limit):
        return _average_aim(balance, traffic)
    left = 0.0 if balance.allowed <= 0 else min(max(1 - balance.spent / balance.allowed, 0.0), 1.0)
    share, per_request = _stock_share(balance, traffic)
    share = min(share, 1.0)
    by = _weight(limit)
    weighed = None if by is None or per_request is None else Weighed(by, per_request)
    return Aim(share=share, chance=share, left=left, weighed=weighed)


def _per_request(limit: Limit) -> bool:
    return limit.per is not None and limit.per.unit == "request"


def _weight(limit: Limit) -> Weight | None:
    match limit.measure:
        case "tokens" | "usd" as by:
            return by
        case _:
            return None


def _average_aim(balance: Balance, traffic: Traffic) -> Aim:
    """A limit that grows with requests: at_most x requests, spent by calls that weigh `weight` each."""
    limit = balance.limit
    slope = limit.at_most
    weight, held = traffic.per_call(limit.measure)
    if limit.measure == "latency_s":
        slope = 1.0 - (1.0 if limit.quantile is None else limit.quantile)
        weight = held = _slow_share(balance)
    by = _weight(limit)
    if weight <= 0.0:
        # No call has shown yet what calls cost; a policy that expects it can choose already.
        return FREE if by is None else Aim(shared=True, weighed=Weighed(by, slope))
    share = min(slope / weight, 1.0)
    if share >= 1.0 and by is None:
        return FREE
    behind = (balance.allowed - balance.spent) / weight
    if limit.kind == "cap":
        # This request earns its part as well. What a reservation takes beyond the bill must lie ready and is never
        # spent; half of it, since a request whose reservation finds no room leaves it to the next.
        behind += share - 0.5 * (held - weight) / weight
    pull = _pull(limit, behind, share * balance.requests, balance.requests)
    weighed = None if by is None else Weighed(by, slope, pull)
    if share >= 1.0:
        return Aim(weighed=weighed, shared=True)
    return Aim(share=share, chance=steered(share, 1.0, pull), shared=True, weighed=weighed)


def steered(share: float, most: float, pull: float) -> float:
    """`share` pulled down to nothing (-1), or up to `most` (1)."""
    return share * (1.0 + pull) if pull < 0.0 else share + (most - share) * pull


def _pull(limit: Limit, behind: float, calls_due: float, requests: int) -> float:
    """`behind`: teacher calls the limit would still have allowed up to now."""
    if limit.kind == "target":
        # Half a point of the requests so far, so that the realised share stays within one.
        tolerance = min(max(0.006 * requests, 3.0), 12.0)
        return min(max(behind / tolerance, -1.0), 1.0)
    # A cap is refused above, so what it holds is a stock that only fills: a small one wastes little when traffic ends,
    # a large one is there when several requests in a row deserve it. Below the resting point ask for a little less,
    # above it, slowly, for more; what is more than 1.2% of the calls so far is used at once, once that is some calls.
    rest, most = math.pow(max(calls_due, 1.0), 0.2), max(0.012 * calls_due, 5.5 - 0.015 * calls_due)
    rise, rush = 8.0 * rest, 2.0
    if _weight(limit) is not None:
        # Calls of many sizes fit into what is left more closely than whole calls do; the dear ones need patience.
        rest, rise, rush = 0.25, 20.0, math.inf
    if behind < rest:
        return math.pow(max(behind, 0.0) / rest, 0.25) - 1.0
    return min(max((behind - rest) / rise, (behind - most) / rush), 1.0)


def _stock_share(balance: Balance, traffic: Traffic) -> tuple[float, float | None]:
    """A limit that is a fixed stock: what is left of it over what is still to come in its window.

    The share of requests, and what each request may spend in the limit's unit; None where nothing is known to say so.
    """
    limit = balance.limit
    left = balance.allowed - balance.spent
    if limit.measure == "concurrent":
        # Little's law: places / (seconds per call) is the rate that can be served.
        busy = traffic.requests_per_s * traffic.seconds_per_call
        return (1.0 if busy <= 0 else balance.allowed / busy), None
    weight, _ = traffic.per_call(limit.measure)
    if weight > left or left <= 0:
        return 0.0, 0.0
    if limit.per is None:
        return 1.0, None  # a life has no end to share out towards
    length_s = limit.per.n * ROLLING_S[limit.per.unit]
    rate = _requests_per_s(balance, traffic, length_s)
    if rate <= 0:
        return 1.0, None
    if balance.resets_in_s is None:
        # Room comes back as old calls leave the window: over its length all of it, once.
        per_request = balance.allowed / (rate * length_s)
    else:
        per_request = left / max(rate * balance.resets_in_s, 1.0)
    return (1.0 if weight <= 0 else per_request / weight), per_request


def _requests_per_s(balance: Balance, traffic: Traffic, length_s: float) -> float:
    if balance.limit.scope == "all" and traffic.requests_per_s > 0:
        return traffic.requests_per_s
    # One key or one user: its own requests in the window, and never more than all there are.
    elapsed_s = length_s if balance.resets_in_s is None else max(length_s - balance.resets_in_s, 1.0)
    own = balance.requests / elapsed_s
    return min(own, traffic.requests_per_s) if traffic.requests_per_s > 0 else own


def _slow_share(balance: Balance) -> float:
    """How many teacher calls are slow, from the calls so far; every one until there are some."""
    if balance.calls < 20:
        return 1.0
    return min(max(balance.spent / balance.calls, 1e-3), 1.0)
