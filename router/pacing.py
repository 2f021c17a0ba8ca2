"""Which scores go to the teacher, given how much of the traffic may. Pure: time and chance are arguments.

`router.aim` says what the budget can bear now; `Pacer` turns that into a threshold on scores: the quantile of the last
few hundred. So it follows traffic that drifts within as many requests, works on scores of any scale, and needs a coin
only where scores tie. Until it has seen scores it imagines some: a policy's zero is calibrated so that the budget's
share lies above it, and its scores spread by about `SPREAD`.

Under a limit on money or tokens, for a request whose cost is expected, the score is what a unit of it buys (`worth`),
and the quantile is taken over expected cost instead of over requests.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from statistics import NormalDist

from policies.values import quickly_made
from router.aim import FREE, Aim, Traffic, Weighed, aim, steered

__all__ = ["FREE", "Aim", "Choice", "Pacer", "Traffic", "Weighed", "aim", "decide", "held", "started", "step", "worth"]

RECENT = 256
"""Scores remembered, imagined ones included: these leave first."""
IMAGINED = 40
"""Scores imagined at the start."""
SPREAD = 2.0
"""Standard deviation of a policy's scores: in training they are divided by half the spread of the expected gain."""
LOCAL_MEMORY = 200
"""Requests over which a process evens out what it asked for against what it should have asked for."""
LOCAL_TOLERANCE = 8.0
"""Teacher calls a process may be off, over that memory, before it goes all the way to none or all."""

LEAST_HELD = 1.6
"""Nine calls in ten cost less than this many times what was expected (measured on one table of judged answers)."""

Scored = tuple[float, float]
"""(score, weight): the weight is the expected cost, or 1 where requests are counted."""


@quickly_made
@dataclass(frozen=True)
class Choice:
    teacher: bool
    propensity: float
    """Probability, given the score and the pacer, of the action chosen; exploration included."""
    explored: bool
    shift: float
    """What pacing adds to the score: above zero after it speaks for the teacher. Zero while the policy is free."""


@quickly_made
@dataclass(frozen=True)
class Pacer:
    """The scores of the last `RECENT` requests, and how far this process is behind what it should have asked for."""

    recent: tuple[Scored, ...] = ()
    ordered: tuple[Scored, ...] = ()
    behind: float = 0.0

    def wanted(self, aim: Aim) -> float:
        """The share of the next requests that should go to the teacher."""
        if aim.shared or aim.chance <= 0.0 or aim.chance >= 1.0:
            return aim.chance
        return _unit(steered(aim.chance, 1.0, min(max(self.behind / LOCAL_TOLERANCE, -1.0), 1.0)))

    def chance(self, score: float, aim: Aim, weight: float | None = None) -> float:
        """The probability with which a request of this score goes to the teacher.

        With `weight`, its expected cost in the unit of `aim.weighed`, the score is its `worth`.
        """
        if weight is not None and aim.weighed is not None:
            return self._weighed_chance(score, weight, aim.weighed)
        if aim.share >= 1.0:
            return float(score > 0.0)
        return self._counted_chance(score, self.wanted(aim), self.ordered or imagined(aim.share))

    def _counted_chance(self, score: float, wanted: float, ordered: tuple[Scored, ...]) -> float:
        if wanted <= 0.0 or wanted >= 1.0:
            return wanted
        # Of the scores so far and this one, the best `wanted` go; those that tie at the boundary share what is left.
        first, after = bisect_left(ordered, (score, -inf)), bisect_right(ordered, (score, inf))
        return _unit((wanted * (len(ordered) + 1) - (len(ordered) - after)) / (1 + after - first))

    def _weighed_chance(self, worth: float, weight: float, weighed: Weighed) -> float:
        counted = 1.0 if weighed.calls >= 1.0 else self._counted_chance(worth, weighed.calls, self.ordered)
        if counted <= 0.0 or weighed.pull <= -1.0 or weighed.per_request <= 0.0:
            return 0.0
        ordered = self.ordered
        first, after = bisect_left(ordered, (worth, -inf)), bisect_right(ordered, (worth, inf))
        above = _weight(ordered[after:])
        equal = weight + _weight(ordered[first:after])
        granted = self._granted(weighed, weight)
        return min(counted, _unit((granted - above) / equal) if equal > 0.0 else 1.0)

    def _granted(self, weighed: Weighed, more: float = 0.0) -> float:
        """What the requests remembered, and one more, may weigh that go to the teacher."""
        requests = len(self.ordered) + (more > 0.0)
        total = _weight(self.ordered) + more
        return requests * steered(weighed.per_request, max(total / max(requests, 1), weighed.per_request), weighed.pull)

    def shift(self, aim: Aim, weight: float | None = None) -> float:
        if weight is not None and aim.weighed is not None:
            return -self._price(aim.weighed)
        if aim.share >= 1.0:
            return 0.0
        ordered = self.ordered or imagined(aim.share)
        index = int((1.0 - self.wanted(aim)) * len(ordered))
        return -ordered[min(index, len(ordered) - 1)][0]

    def _price(self, weighed: Weighed) -> float:
        """The worth from which on requests go to the teacher; that of the best one where none can."""
        left = self._granted(weighed)
        for price, weight in reversed(self.ordered):
            left -= weight
            if left <= 0.0:
                return price
        return self.ordered[0][0] if self.ordered else 0.0


def held(expected: float, most: float, room: float) -> float:
    """What a call should reserve under a cap on money or tokens, and be bounded by: `most` where there is `room`.

    With less room it reserves that, down to `LEAST_HELD` times what it is expected to cost: a cap could never be used
    up if each call waited for the room that hardly any call needs.
    """
    return min(max(room, LEAST_HELD * expected), max(most, LEAST_HELD * expected))


def worth(gain: float, weight: float) -> float:
    """The score under a limit on money or tokens: expected gain per unit. Above a price p: gain > p x cost."""
    return gain / max(weight, 1e-12)


def started(scored: tuple[Scored, ...]) -> Pacer:
    """A pacer that has seen these before: (worth, weight) of typical requests, say."""
    scored = scored[-RECENT:]
    return Pacer(scored, tuple(sorted(scored)))


@lru_cache(maxsize=256)
def imagined(share: float) -> tuple[Scored, ...]:
    """Scores, rising, of a policy whose zero has `share` of them above it."""
    normal = NormalDist(sigma=SPREAD)
    middle = normal.inv_cdf(min(max(share, 1e-4), 1.0 - 1e-4))
    return tuple((middle + normal.inv_cdf((i + 0.5) / IMAGINED), 1.0) for i in range(IMAGINED))


def decide(
    score: float, pacer: Pacer, aim: Aim, *, draw: float, explore: float = 0.0, weight: float | None = None
) -> Choice:
    """`draw` is uniform on [0, 1). A share `explore` of the requests is decided by a fair coin instead.

    One draw does both: below `explore` it is the coin, and what is above, stretched back to [0, 1), is compared with
    the pacer's chance. So P(teacher) = explore / 2 + (1 - explore) x chance, exactly.
    """
    chance = pacer.chance(score, aim, weight)
    explored = draw < explore
    teacher = draw < explore / 2 if explored else (draw - explore) / (1.0 - explore) < chance
    to_teacher = explore / 2 + (1.0 - explore) * chance
    return Choice(teacher, to_teacher if teacher else 1.0 - to_teacher, explored, pacer.shift(aim, weight))


def step(pacer: Pacer, score: float, aim: Aim, *, teacher: bool, weight: float | None = None) -> Pacer:
    """After a request: its score (the larger one where it was scored twice) and whether the teacher was called.

    `weight` and `score` are what `Pacer.chance` was given.
    """
    before = pacer
    if not pacer.recent and weight is None and aim.share < 1.0:
        before = replace(started(_dealt(imagined(aim.share))), behind=pacer.behind)
    ordered, recent = list(before.ordered), before.recent
    this = (score, 1.0 if weight is None else weight)
    if len(recent) >= RECENT:
        del ordered[bisect_left(ordered, recent[0])]
        recent = recent[1:]
    recent += (this,)
    insort(ordered, this)
    behind = pacer.behind * (1.0 - 1.0 / LOCAL_MEMORY)
    if aim.share < 1.0 and not aim.shared:  # elsewhere the ledger keeps the error, or there is none
        behind += aim.chance - float(teacher)
    return Pacer(recent, tuple(ordered), min(max(behind, -LOCAL_TOLERANCE), LOCAL_TOLERANCE))


def _dealt(scored: tuple[Scored, ...]) -> tuple[Scored, ...]:
    """In an order in which those that leave first are spread over all scores."""
    return tuple(scored[i * 17 % len(scored)] for i in range(len(scored)))


def _weight(scored: tuple[Scored, ...]) -> float:
    return sum([weight for _, weight in scored])


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
