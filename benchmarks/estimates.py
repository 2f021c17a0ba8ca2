"""Medians with intervals, and the machine they were taken on."""

import os
import platform
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap(rows: Sequence[Any], figure: Callable[[Sequence[Any]], float], draws: int = 2000) -> Estimate:
    """`figure` of `rows`, and its 2.5 and 97.5 percentiles over resampled rows. The seed is fixed."""
    chance = random.Random(0)
    values = sorted(figure(chance.choices(rows, k=len(rows))) for _ in range(draws))
    return Estimate(figure(rows), values[int(0.025 * draws)], values[int(0.975 * draws) - 1])


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The median over rounds of second / first: the two of one round ran side by side and share its noise."""
    return median(second / first for first, second in pairs)


def median_difference(pairs: Sequence[tuple[float, float]]) -> float:
    return median(second - first for first, second in pairs)


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
