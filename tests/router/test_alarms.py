"""Alarms ring when something moved, keep quiet when nothing did, and stop when it is over."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.alarms import (
    BASELINE,
    BETS,
    BETWEEN_FALSE_QUALITY,
    BETWEEN_FALSE_SHARE,
    BETWEEN_FALSE_WASTE,
    Gain,
    Quality,
    Share,
    bet,
    compared,
    counted,
    judged,
    stands,
)

unit = st.floats(0.0, 1.0)


def qualities(state: Quality, rng: random.Random, mean: float, count: int) -> tuple[Quality, int | None]:
    """(state after up to `count` right-or-wrong answers, after how many it changed its mind)"""
    for number in range(1, count + 1):
        before = state.moved
        state = judged(state, float(rng.random() < mean))
        if state.moved is not before:
            return state, number
    return state, None


def test_each_bet_is_a_cusum_over_products() -> None:
    assert bet((1.0, 1.0, 1.0), 1.0) == pytest.approx(tuple(1.0 + each for each in BETS))
    assert bet((2.0, 0.5, 10.0), -0.5) == pytest.approx((2.0 * 0.95, 0.85, 10.0 * 0.55))
    assert not stands((1.0, 1.0, 97.0), 100.0)
    assert stands((1.0, 1.0, 298.0), 100.0)


@given(st.lists(st.floats(-1.0, 1.0), max_size=300))
def test_stakes_stay_above_zero_whatever_comes(evidence: list[float]) -> None:
    stakes = (1.0, 1.0, 1.0)
    for each in evidence:
        stakes = bet(stakes, each)
        assert all(0.0 < stake < float("inf") for stake in stakes)


def test_nothing_learnt_is_nothing_bet() -> None:
    """A policy that leaves nothing to chance shows nothing of what the other model would have said."""
    state = Gain()
    for _ in range(20_000):
        state = compared(state, 0.2, teacher=True, chance=1.0)
    assert (state.waste, state.gain) == (False, None)


@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_are_as_rare_as_promised_at_the_edge_of_what_is_tolerated(seed: int) -> None:
    """With the mean exactly at the band's edge, the worst case the promise covers."""
    rng = random.Random(seed)
    state, alarms, count = Quality(), 0, 40_000
    for _ in range(BASELINE):
        state = judged(state, float(rng.random() < 0.7))
    edge, start = state.high, state
    for _ in range(count):
        state = judged(state, float(rng.random() < edge))
        if state.moved:
            alarms, state = alarms + 1, start
    assert alarms <= count / BETWEEN_FALSE_QUALITY
    share, rings = Share(), 0
    for _ in range(count):
        share = counted(share, 0.2, teacher=rng.random() < 0.23)
        if share.parted:
            rings, share = rings + 1, Share()
    assert rings <= count / BETWEEN_FALSE_SHARE
    gain, wasted = Gain(), 0
    for _ in range(count):
        teacher = rng.random() < 0.5
        gain = compared(gain, float(rng.random() < 0.5 + 0.05 * teacher), teacher=teacher, chance=0.5)
        if gain.waste:
            wasted, gain = wasted + 1, Gain()
    assert wasted <= count / BETWEEN_FALSE_WASTE


@pytest.mark.parametrize(
    ("before", "after", "most"), [(0.8, 0.5, 150), (0.8, 0.6, 500), (0.5, 0.75, 500), (0.95, 0.8, 500)]
)
def test_a_quality_that_moves_is_seen_and_so_is_its_return(before: float, after: float, most: int) -> None:
    rng = random.Random(1)
    state, _ = qualities(Quality(), rng, before, BASELINE + 300)
    assert not state.moved
    state, took = qualities(state, rng, after, most)
    assert state.moved
    assert took is not None
    state, _ = qualities(state, rng, after, 200)
    assert state.moved
    assert state.now == pytest.approx(after, abs=0.12)
    assert state.baseline == pytest.approx(before, abs=0.08)
    state, took = qualities(state, rng, before, 1500)
    assert not state.moved


@pytest.mark.parametrize(("before", "after"), [(0.8, 0.5), (0.5, 0.75)])
def test_at_the_alarm_the_mean_of_the_last_ones_is_told_and_not_the_last_one(before: float, after: float) -> None:
    rng = random.Random(1)
    state, _ = qualities(Quality(), rng, before, BASELINE + 300)
    while not state.moved:
        state = judged(state, float(rng.random() < after))
    assert 0.05 < abs(state.now - state.baseline) < 0.4
    assert (state.now > state.baseline) == (after > before)


@pytest.mark.parametrize(
    ("asked", "got", "most"), [(0.2, 0.0, 150), (0.2, 0.3, 2500), (0.2, 0.1, 2000), (0.5, 0.4, 2500)]
)
def test_asked_and_got_that_part_are_seen_until_they_meet_again(asked: float, got: float, most: int) -> None:
    rng = random.Random(2)
    state = Share()
    for _ in range(3000):
        state = counted(state, asked, teacher=rng.random() < asked)
        assert not state.parted
    number = 0
    while not state.parted:
        state, number = counted(state, asked, teacher=rng.random() < got), number + 1
    assert number <= most
    assert abs(state.got_share - asked) > 0.03
    for _ in range(3000):
        state = counted(state, asked, teacher=rng.random() < asked)
    assert not state.parted
    assert state.got_share == pytest.approx(asked, abs=0.06)


def hard_and_easy(rng: random.Random, gain: float, count: int, explore: float) -> tuple[Gain, float]:
    """What a good policy does: hard requests to the teacher, easy ones not, but for a share decided by a coin.

    (state, plain difference of the two means)
    """
    state = Gain()
    sums = {True: [0.0, 0], False: [0.0, 0]}
    for _ in range(count):
        hard = rng.random() < 0.5
        chance = explore / 2 + (1 - explore) * hard
        teacher = rng.random() < chance
        quality = float(rng.random() < (0.4 if hard else 0.9) + gain * teacher)
        state = compared(state, quality, teacher=teacher, chance=chance)
        sums[teacher][0] += quality
        sums[teacher][1] += 1
    return state, sums[True][0] / sums[True][1] - sums[False][0] / sums[False][1]


def test_a_teacher_that_gets_the_hard_ones_is_not_blamed_for_them() -> None:
    state, plain = hard_and_easy(random.Random(3), gain=0.1, count=15_000, explore=0.2)
    assert plain < -0.2, "the plain means lie"
    assert not state.waste
    assert state.gain == pytest.approx(0.1, abs=0.05)


def test_a_teacher_that_adds_nothing_is_a_waste_until_it_adds_something() -> None:
    rng = random.Random(4)
    state, number = Gain(), 0
    while not state.waste:
        teacher = rng.random() < 0.5
        state, number = (
            compared(state, float(rng.random() < 0.6 - 0.1 * teacher), teacher=teacher, chance=0.5),
            number + 1,
        )
    assert number <= 1500
    for _ in range(3000):
        teacher = rng.random() < 0.5
        state = compared(state, float(rng.random() < 0.5 + 0.3 * teacher), teacher=teacher, chance=0.5)
    assert not state.waste


@given(st.lists(st.tuples(unit, st.booleans(), unit), max_size=200))
def test_any_feedback_leaves_numbers(rows: list[tuple[float, bool, float]]) -> None:
    quality, share, gain = Quality(), Share(), Gain()
    for value, teacher, chance in rows:
        quality, share = judged(quality, value), counted(share, chance, teacher=teacher)
        gain = compared(gain, value, teacher=teacher, chance=chance)
    assert 0.0 <= quality.now <= 1.0
    assert 0.0 <= share.got_share <= 1.0
    assert 0.0 <= share.asked_share <= 1.0 + 1e-12
    assert gain.seen == len(rows)
