"""Recorded traffic in the orders in which it may come: as recorded, sorted by group, in bursts of alike requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from policies.outcomes import Outcome
from policies.prompt_features import Floats, Ints

ORDERS = ("as recorded", "sorted by group", "in bursts")
BURST = 40
"""Requests of one group that come at the same instant."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """N requests in the order they come, and when; the clock is simulated."""

    rows: Ints
    """(N,) indices into the table's rows."""
    at: Floats
    """(N,) seconds."""


def traffic(outcomes: Sequence[Outcome], order: str, seed: int, least: int) -> Traffic:
    """At least `least` requests: a table with fewer rows comes several times over, each time in the order asked for.

    Seed 0 keeps the table's own order where the order allows it; others begin elsewhere or deal the rows anew.
    """
    passes = -(-least // len(outcomes))
    rows = np.concatenate([_rows(outcomes, order, seed * passes + i) for i in range(passes)])
    together = BURST if order == "in bursts" else 1
    return Traffic(rows, np.array([n // together * together for n in range(len(rows))], dtype=np.float64))


def _rows(outcomes: Sequence[Outcome], order: str, seed: int) -> Ints:
    rng = Random(seed)
    count = len(outcomes)
    match order:
        case "as recorded":
            return np.roll(np.arange(count), -(seed * 7919) % count)
        case "sorted by group":
            groups = kinds(outcomes)
            names = sorted(set(groups))
            rng.shuffle(names)
            place = {name: i for i, name in enumerate(names)}
            return np.array(sorted(range(count), key=lambda row: place[groups[row]]))
        case "in bursts":
            groups = kinds(outcomes)
            rows = list(range(count))
            rng.shuffle(rows)
            rows.sort(key=lambda row: groups[row])  # stable: dealt anew within a group
            bursts = [rows[i : i + BURST] for i in range(0, count, BURST)]
            rng.shuffle(bursts)
            return np.array([row for burst in bursts for row in burst])
        case _:
            raise ValueError(order)


def kinds(outcomes: Sequence[Outcome]) -> list[str]:
    """The group of each row; where the table has but one, a tenth of the rows by length of the prompt."""
    groups = [row.group or "" for row in outcomes]
    if len(set(groups)) > 1:
        return groups
    ranks = np.argsort(np.argsort([len(row.prompt) for row in outcomes], kind="stable"))
    return [f"length {10 * int(rank) // len(outcomes)}" for rank in ranks]
