"""How much traffic should go to the teacher now, and which score that takes. Pure: time and chance are arguments.

Two questions, two halves:

`aim` reads the balances and says which share of requests the budget can bear from here on, and how urgently: a limit
on a share that has fallen behind asks for more than its share for a while, one that is ahead for less (the integral
part of a controller whose measured error lives in the shared ledger, so that all workers steer by the same one).

`Pacer` turns that chance into a threshold on scores: the quantile of the last few hundred scores. So it follows
traffic that drifts within as many requests, works on scores of any scale, and needs a coin only where scores tie.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

from policies.observation import BudgetState
from router.budget import Limit
from router.ledger import Balance
from router.windows import ROLLING_S

RECENT = 256
"""Scores remembered."""
WARM = 20
"""Below so many the policy's own zero is the threshold."""
LOCAL_MEMORY = 200
"""Requests over which a process evens out what it asked for against what it should have asked for."""
LOCAL_TOLERANCE = 8.0
"""Teacher calls a process may be off, over that memory, before it goes all the way to none or all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is known about the requests to come; zero where nothing is known yet."""

    requests_per_s: float = 0.0
    tokens_per_call: float = 0.0
    usd_per_call: float = 0.0
    seconds_per_call: float = 0.0


@dataclass(frozen=True, slots=True)
class Aim:
    """`share` is what the budget allows in the long run; `chance` what the next requests should get to stay on it."""

    share: float = 1.0
    chance: float = 1.0
    left: float = 1.0
    """The fraction, 0..1, that is left in the tightest window."""
    shared: bool = False
    """Whether `chance` already answers to an error that the ledger keeps."""

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
    )


def _aim(balance: Balance, traffic: Traffic) -> Aim:
    limit = balance.limit
    if limit.measure == "share" or limit.measure == "latency_s" or _per_request(limit):
        return _average_aim(balance, traffic)
    left = 0.0 if balance.allowed <= 0 else min(max(1 - balance.spent / balance.allowed, 0.0), 1.0)
    share = min(_stock_share(balance, traffic), 1.0)
    return Aim(share=share, chance=share, left=left)


def _per_request(limit: Limit) -> bool:
    return limit.per is not None and limit.per.unit == "request"


def _average_aim(balance: Balance, traffic: Traffic) -> Aim:
    """A limit that grows with requests: at_most x requests, spent by calls that weigh `weight` each."""
    limit, weight = balance.limit, 1.0
    slope = limit.at_most
    match limit.measure:
        case "tokens":
            weight = traffic.tokens_per_call
        case "usd":
            weight = traffic.usd_per_call
        case "latency_s":
            slope = 1.0 - (1.0 if limit.quantile is None else limit.quantile)
            weight = _slow_share(balance)
    if weight <= 0.0 or slope >= weight:
        return FREE
    share = slope / weight
    behind = (balance.allowed - balance.spent) / weight
    calls_due = share * balance.requests
    return Aim(share=share, chance=_chance(limit, share, behind, calls_due, balance.requests), shared=True)


def _chance(limit: Limit, share: float, behind: float, calls_due: float, requests: int) -> float:
    """`behind`: teacher calls the limit would still have allowed up to now."""
    if limit.kind == "target":
        # Half a point of the requests so far, so that the realised share stays within one.
        tolerance = min(max(0.006 * requests, 3.0), 12.0)
        room = (1.0 - share) if behind > 0 else share
        return _unit(share + room * behind / tolerance)
    # A cap is refused above, so stay a little below: near the cap ask for less, some calls behind ask for all.
    tolerance = min(max(0.015 * calls_due, 3.0), 15.0)
    rest = 1.0 + 0.3 * tolerance
    if behind < rest:
        return _unit(share * behind / rest)
    return _unit(share + (1.0 - share) * (behind - rest) / (1.0 + tolerance - rest))


def _stock_share(balance: Balance, traffic: Traffic) -> float:
    """A limit that is a fixed stock: what is left of it over what is still to come in its window."""
    limit = balance.limit
    weight = {"calls": 1.0, "tokens": traffic.tokens_per_call, "usd": traffic.usd_per_call}.get(limit.measure, 1.0)
    left = balance.allowed - balance.spent
    if limit.measure == "concurrent":
        # Little's law: places / (seconds per call) is the rate that can be served.
        busy = traffic.requests_per_s * traffic.seconds_per_call
        return 1.0 if busy <= 0 else balance.allowed / busy
    if weight > left or left <= 0:
        return 0.0
    if weight <= 0 or limit.per is None:
        return 1.0  # a life has no end to share out towards
    length_s = limit.per.n * ROLLING_S[limit.per.unit]
    rate = _requests_per_s(balance, traffic, length_s)
    if rate <= 0:
        return 1.0
    if balance.resets_in_s is None:
        # Room comes back as old calls leave the window: over its length all of it, once.
        return balance.allowed / weight / (rate * length_s)
    return left / weight / max(rate * balance.resets_in_s, 1.0)


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


@dataclass(frozen=True, slots=True)
class Choice:
    teacher: bool
    propensity: float
    """Probability, given the score and the pacer, of the action chosen; exploration included."""
    explored: bool
    shift: float
    """What pacing adds to the score: above zero after it speaks for the teacher. Zero while the policy is free."""


@dataclass(frozen=True, slots=True)
class Pacer:
    """The scores of the last `RECENT` requests, and how far this process is behind what it should have asked for."""

    recent: tuple[float, ...] = ()
    ordered: tuple[float, ...] = ()
    behind: float = 0.0

    def wanted(self, aim: Aim) -> float:
        """The share of the next requests that should go to the teacher."""
        if aim.shared or aim.chance <= 0.0 or aim.chance >= 1.0:
            return aim.chance
        room = (1.0 - aim.chance) if self.behind > 0 else aim.chance
        return _unit(aim.chance + room * self.behind / LOCAL_TOLERANCE)

    def chance(self, score: float, aim: Aim) -> float:
        """The probability with which a request of this score goes to the teacher."""
        if aim.share >= 1.0:
            return float(score > 0.0)
        wanted = self.wanted(aim)
        if wanted <= 0.0 or wanted >= 1.0:
            return wanted
        if len(self.ordered) < WARM:
            return float(score > 0.0)
        # Of the scores so far and this one, the best `wanted` go; those that tie at the boundary share what is left.
        above = len(self.ordered) - bisect_right(self.ordered, score)
        equal = 1 + bisect_right(self.ordered, score) - bisect_left(self.ordered, score)
        return _unit((wanted * (len(self.ordered) + 1) - above) / equal)

    def shift(self, aim: Aim) -> float:
        if len(self.ordered) < WARM or aim.share >= 1.0:
            return 0.0
        index = int((1.0 - self.wanted(aim)) * len(self.ordered))
        return -self.ordered[min(index, len(self.ordered) - 1)]


def decide(score: float, pacer: Pacer, aim: Aim, *, draw: float, explore: float = 0.0) -> Choice:
    """`draw` is uniform on [0, 1). A share `explore` of the requests is decided by a fair coin instead.

    One draw does both: below `explore` it is the coin, and what is above, stretched back to [0, 1), is compared with
    the pacer's chance. So P(teacher) = explore / 2 + (1 - explore) x chance, exactly.
    """
    chance = pacer.chance(score, aim)
    explored = draw < explore
    teacher = draw < explore / 2 if explored else (draw - explore) / (1.0 - explore) < chance
    to_teacher = explore / 2 + (1.0 - explore) * chance
    return Choice(teacher, to_teacher if teacher else 1.0 - to_teacher, explored, pacer.shift(aim))


def step(pacer: Pacer, score: float, aim: Aim, *, teacher: bool) -> Pacer:
    """After a request: its score (the larger one where it was scored twice) and whether the teacher was called."""
    ordered = list(pacer.ordered)
    recent = (*pacer.recent, score)
    if len(recent) > RECENT:
        del ordered[bisect_left(ordered, recent[0])]
        recent = recent[1:]
    insort(ordered, score)
    behind = pacer.behind * (1.0 - 1.0 / LOCAL_MEMORY)
    if aim.share < 1.0 and not aim.shared:  # elsewhere the ledger keeps the error, or there is none
        behind += aim.chance - float(teacher)
    return Pacer(recent, tuple(ordered), min(max(behind, -LOCAL_TOLERANCE), LOCAL_TOLERANCE))


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
