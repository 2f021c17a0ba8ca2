"""Whom to ask under a limit on money: the steps up from the student, each with what it adds and what it costs.

Of several teachers, some are worth asking at no price: a dearer one that adds less, or one that a mixture of its
neighbours beats. The others are the upper hull of (cost, gain), and climbing it step by step is the greedy solution of
the multiple-choice knapsack's relaxation (Sinha & Zoltners 1979): at a price p of money, gain - p x cost is largest
where the last step up was worth more than p. So each step can be ranked, and paced, as a call of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Increment:
    """A step from what was chosen before, the student at first, to a teacher."""

    teacher: int
    gain: float
    cost: float
    """Above 0."""

    @property
    def worth(self) -> float:
        """Falling from one step to the next."""
        return self.gain / self.cost


def increments(gains: Sequence[float], costs: Sequence[float], *, least_cost: float = 1e-12) -> tuple[Increment, ...]:
    """Gains over the student and costs of K teachers -> at most K steps up, the one that buys most per unit first."""
    offers = sorted(range(len(gains)), key=lambda k: (costs[k], -gains[k]))
    hull: list[Increment] = []
    for k in offers:
        if gains[k] <= sum(step.gain for step in hull):
            continue
        while True:
            below_gain, below_cost = sum(step.gain for step in hull), sum(step.cost for step in hull)
            step = Increment(k, gains[k] - below_gain, max(costs[k] - below_cost, least_cost))
            if not hull or hull[-1].worth > step.worth:
                break
            hull.pop()
        hull.append(step)
    return tuple(hull)
