"""The benchmark of intervals passes what holds, and fails what does not."""

import numpy as np
import pytest

from benchmarks.off_policy import Cell, World, faults, half_told, simulated_log


def cell(rng: np.random.Generator, *, half: float, shift: float = 0.0) -> Cell:
    found = Cell("table", "all known", "target 20%", truths=[0.5] * 200)
    values = 0.5 + shift + rng.normal(0, 0.01, 200)
    found.values["dr"] = [(value, value - half, value + half) for value in values.tolist()]
    return found


@pytest.mark.parametrize(
    ("half", "shift", "said"),
    [(0.0196, 0.0, []), (0.01, 0.0, ["coverage"]), (0.05, 0.0, ["coverage 100"]), (0.05, 0.02, ["bias"])],
)
def test_what_does_not_hold_is_a_fault(half: float, shift: float, said: list[str]) -> None:
    found = faults([cell(np.random.default_rng(0), half=half, shift=shift).measured("dr")], 200)
    assert bool(found) == bool(said)
    assert all(any(each in fault for fault in found) for each in said)


def test_simulated_logs_hold_what_the_gateway_would_write() -> None:
    rng = np.random.default_rng(0)
    count = 50
    world = World(
        student=np.zeros(count),
        teacher=np.ones(count),
        usd=np.full(count, 0.001),
        gain=rng.random(count),
        expected_student=rng.random(count),
        rival=rng.random(count),
    )
    drawn, rows = simulated_log(world, rng, 600)
    records = [row for row in rows if "id" in row]
    told = {row["feedback_on"]: row["quality"] for row in rows if "id" not in row}
    assert len(drawn) == len(records) == len(told) == 600
    # What is told is the worth of the answer given, and a tenth was left to chance.
    assert all(told[row["id"]] == float(row["route"] == "teacher") for row in records)
    assert {round(row["steps"][0]["propensity"], 3) for row in records} >= {0.05, 0.95}
    assert 0.17 < np.mean([row["route"] == "teacher" for row in records]) < 0.23
    kept = half_told(rows, np.random.default_rng(0))
    assert 0.4 < (len(kept) - 600) / 600 < 0.65
