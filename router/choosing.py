"""Whom of several teachers a request goes to, given what each should add and cost. Pure: chance is an argument.

Where calls are counted, the best-scored teacher stands for all of them and `router.pacing` says whether it is asked.

Under a limit on money, a request climbs from the student step by step (`policies.increments`), each step a call of its
own for pacing: the quantile that decides is taken over the steps of the last requests, and what they cost. So a dear
teacher is asked only where what it adds to the cheap one buys as much per dollar as anything else does, which is to
choose by gain - price x cost at the price that pacing finds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from policies.increments import Increment, increments
from router.aim import Aim, Weighed
from router.pacing import Pacer, decide, step


@dataclass(frozen=True, slots=True)
class Offer:
    """What a policy says of a teacher that can be asked now."""

    name: str
    score: float
    gain: float
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What pacing is to remember of a request: a score, and what the call was expected to cost where that counts."""

    score: float
    weight: float | None
    aim: Aim


@dataclass(frozen=True, slots=True)
class Choice:
    """Like `router.pacing.Choice`; `propensity` is that of asking anybody, or nobody."""

    name: str | None
    """Whom; None: the student answers."""
    propensity: float
    explored: bool
    shift: float
    score: float
    offered: tuple[str, ...]
    chances: tuple[float, ...]
    """Of each offer, in order."""
    then: tuple[str, ...]
    """Who is asked in its place, the best first, where it fails or cannot be afforded."""
    seen: tuple[Seen, ...]


def choose(
    offers: Sequence[Offer], pacer: Pacer, aim: Aim, *, draw: float, explore: float = 0.0, known: int | None = None
) -> Choice:
    """`offers` is not empty; `draw` is uniform on [0, 1), and one draw does all. A share `explore` is decided by a fair
    coin, and the teacher then by a fair die. `known`: how many teachers the policy knows, those out of reach included.
    """
    known = max(known or 0, len(offers))
    weighed = aim.weighed
    if weighed is not None and weighed.by == "usd" and all(each.usd for each in offers):
        return _by_money(offers, pacer, replace(aim, weighed=_per_step(weighed, known)), draw, explore, known)
    best = max(range(len(offers)), key=lambda k: offers[k].score)
    counted = replace(aim, weighed=None) if weighed is not None else aim
    paced = decide(offers[best].score, pacer, counted, draw=draw, explore=explore)
    chance = pacer.chance(offers[best].score, counted)
    chances = [explore / 2 / len(offers) + ((1.0 - explore) * chance if k == best else 0.0) for k in range(len(offers))]
    whom = None if not paced.teacher else _die(draw, explore, len(offers)) if paced.explored else best
    order = sorted(range(len(offers)), key=lambda k: -offers[k].score)
    return Choice(
        None if whom is None else offers[whom].name,
        paced.propensity,
        paced.explored,
        paced.shift,
        offers[best].score,
        tuple(each.name for each in offers),
        tuple(chances),
        tuple(offers[k].name for k in order if k != whom and offers[k].gain > 0.0),
        (Seen(offers[best].score, None, counted),),
    )


def _by_money(offers: Sequence[Offer], pacer: Pacer, aim: Aim, draw: float, explore: float, known: int) -> Choice:
    steps = increments([each.gain for each in offers], [each.usd or 0.0 for each in offers])
    reached = _chances(steps, pacer, aim)
    chances = [explore / 2 / len(offers)] * len(offers)
    for i, each in enumerate(steps):
        stops = reached[i] - (reached[i + 1] if i + 1 < len(steps) else 0.0)
        chances[each.teacher] += (1.0 - explore) * stops
    explored = draw < explore
    whom: int | None = None
    if explored:
        whom = _die(draw, explore, len(offers)) if draw < explore / 2 else None
    else:
        at = (draw - explore) / (1.0 - explore)
        for each, chance in zip(steps, reached, strict=True):
            if at < chance:
                whom = each.teacher
    price = -pacer.shift(aim, 1.0)
    order = sorted(range(len(offers)), key=lambda k: price * (offers[k].usd or 0.0) - offers[k].gain)
    asking = sum(chances)
    worth = steps[0].worth if steps else min(max(e.gain / max(e.usd or 0.0, 1e-12) for e in offers), 0.0)
    # As many entries for every request, so that pacing's count of them stays one of requests.
    padding = (Seen(min(worth, 0.0), 0.0, aim),) * (known - len(steps))
    return Choice(
        None if whom is None else offers[whom].name,
        asking if whom is not None else 1.0 - asking,
        explored,
        -price,
        worth,
        tuple(each.name for each in offers),
        tuple(chances),
        tuple(offers[k].name for k in order if k != whom and offers[k].gain > 0.0),
        (*(Seen(each.worth, each.cost, aim) for each in steps), *padding),
    )


def _chances(steps: Sequence[Increment], pacer: Pacer, aim: Aim) -> list[float]:
    """Of climbing each step; falling."""
    found: list[float] = []
    for each in steps:
        chance = pacer.chance(each.worth, aim, each.cost)
        found.append(min(chance, found[-1]) if found else chance)
    return found


def _per_step(weighed: Weighed, known: int) -> Weighed:
    """What the limit grants each step of a request that has `known` of them. A limit on calls beside it holds too:
    every step counts as one, which asks for less than it could and never for more."""
    calls = weighed.calls if weighed.calls >= 1.0 else weighed.calls / known
    return replace(weighed, per_request=weighed.per_request / known, calls=calls)


def _die(draw: float, explore: float, sides: int) -> int:
    """The draws below half of `explore`, dealt out evenly."""
    return min(int(draw / (explore / 2) * sides), sides - 1)


def remember(pacer: Pacer, seen: Sequence[Seen], *, teacher: bool) -> Pacer:
    """After a request."""
    for each in seen:
        if math.isfinite(each.score):
            pacer = step(pacer, each.score, each.aim, teacher=teacher, weight=each.weight)
    return pacer
