"""The multiplier of every budget at once: a PID controller on the expected cost (Stooke et al. 2020, arXiv 2007.03964).

Budgets are knots on a logarithmic grid; each has its own integral, and between knots the price is interpolated. Prices
must not rise with the share, so each update ends by making them monotone.
"""

from dataclasses import dataclass

import numpy as np

from policies.prompt_features import Floats


@dataclass(frozen=True, slots=True)
class Gains:
    """In units of price per unit of share."""

    proportional: float = 0.5
    integral: float = 0.1
    derivative: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Multiplier:
    """State of the controllers, all (K,)."""

    budgets: Floats
    price: Floats
    integral: Floats
    """Sum of errors, as a price: already times the gain."""
    cost: Floats
    """Expected cost seen last."""


def knots(least: float, count: int) -> Floats:
    """`count` budgets from `least` to 1, evenly spaced in the logarithm."""
    budgets: Floats = np.geomspace(least, 1.0, count)
    budgets[-1] = 1.0
    return budgets


def start(budgets: Floats, price: Floats) -> Multiplier:
    """Controllers that begin at a guess of the price."""
    return Multiplier(budgets, price, price.copy(), budgets.copy())


def update(state: Multiplier, cost: Floats, gains: Gains) -> Multiplier:
    """One step on the mean cost (K,) seen under each budget: price = max(0, P e + I sum(e) + D max(0, change))."""
    error = cost - state.budgets
    integral = np.maximum(0.0, state.integral + gains.integral * error)
    rise = np.maximum(0.0, cost - state.cost)
    price = np.maximum(0.0, gains.proportional * error + integral + gains.derivative * rise)
    return Multiplier(state.budgets, falling(price), integral, cost)


def falling(price: Floats) -> Floats:
    """The least non-rising sequence above `price`."""
    return np.maximum.accumulate(price[::-1])[::-1]
