"""Pacing where calls are of different size: limits on money and tokens, for requests whose cost is expected."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.budget import Kind, Limit, Window
from router.ledger import Balance
from router.pacing import (
    LEAST_HELD,
    Aim,
    Pacer,
    Traffic,
    Weighed,
    aim,
    decide,
    held,
    started,
    step,
    worth,
)

PER_REQUEST = Window(1, "request")


def seen(pairs: Sequence[tuple[float, float]]) -> Pacer:
    return started(tuple(pairs))


def test_what_a_dollar_buys_decides_until_the_money_is_given_out() -> None:
    # Of these four and one more, 5 x 2.0 may be spent: on the best two (1 + 4), then on what still fits.
    pacer = seen([(9.0, 1.0), (8.0, 4.0), (3.0, 10.0), (1.0, 1.0)])
    now = Aim(weighed=Weighed("usd", 2.0))
    assert pacer.chance(8.5, now, 2.0) == 1.0
    assert pacer.chance(5.0, now, 5.0) == 1.0
    assert pacer.chance(5.0, now, 10.0) == 0.5
    assert pacer.chance(2.0, now, 1.0) == 0.0


def test_the_shift_is_the_price_at_which_the_money_is_given_out() -> None:
    pacer = seen([(9.0, 1.0), (8.0, 4.0), (3.0, 10.0), (1.0, 1.0)])
    assert decide(9.0, pacer, Aim(weighed=Weighed("usd", 1.0)), draw=0.5, weight=1.0).shift == -8.0


@pytest.mark.parametrize(("pull", "expected"), [(-1.0, 0.0), (-0.9, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_being_behind_gives_out_more_and_being_ahead_less(pull: float, expected: float) -> None:
    pacer = seen([(9.0, 1.0), (8.0, 4.0), (3.0, 10.0), (1.0, 1.0)])
    assert pacer.chance(5.0, Aim(weighed=Weighed("usd", 2.0, pull)), 10.0) == expected


def test_a_request_of_unknown_cost_is_counted() -> None:
    pacer = seen([(float(i), 1.0) for i in range(10)])
    now = Aim(share=0.2, chance=0.2, shared=True, weighed=Weighed("usd", 0.2))
    assert [pacer.chance(score, now) for score in (3.0, 9.5)] == [0.0, 1.0]


def test_a_limit_on_calls_beside_one_on_money_holds_too() -> None:
    share, money = Limit("target", "share", 0.1), Limit("target", "usd", 10.0, PER_REQUEST)
    balances = [
        Balance(share, spent=100, allowed=100.0, requests=1000, calls=100),
        Balance(money, spent=100.0, allowed=10_000.0, requests=1000, calls=100),
    ]
    now = aim(balances, Traffic(usd_per_call=1.0))
    assert now.weighed == Weighed("usd", 10.0, 1.0, calls=0.1)
    pacer = seen([(float(i), 1.0) for i in range(10)])
    assert [pacer.chance(score, now, 1.0) for score in (5.0, 9.5)] == [0.0, 1.0]


def test_a_stock_of_money_is_given_out_over_the_requests_to_come() -> None:
    limit = Limit("cap", "usd", 10.0, Window(1, "day"))
    balance = Balance(limit, spent=5.0, allowed=10.0, requests=5000, calls=100, resets_in_s=10_000.0)
    now = aim([balance], Traffic(requests_per_s=0.1, usd_per_call=0.05))
    assert (now.share, now.weighed) == (pytest.approx(0.1), Weighed("usd", pytest.approx(0.005)))


def test_before_any_call_has_been_billed_expected_costs_decide() -> None:
    limit = Limit("cap", "usd", 0.003, PER_REQUEST)
    assert aim([Balance(limit, 0.0, 0.0, 0, 0)], Traffic()).weighed == Weighed("usd", 0.003)


@pytest.mark.parametrize(
    ("room", "expected"), [(100.0, 6.0), (6.0, 6.0), (4.0, 4.0), (3.0, 2 * LEAST_HELD), (-1.0, 2 * LEAST_HELD)]
)
def test_a_call_reserves_what_room_there_is_within_reason(room: float, expected: float) -> None:
    assert held(2.0, 6.0, room) == pytest.approx(expected)


PAIRS = st.lists(st.tuples(st.floats(-10, 10), st.floats(0.001, 100)), max_size=60)
WEIGHED = st.builds(
    Weighed, st.just("usd"), st.floats(0, 50), st.floats(-1, 1), st.one_of(st.just(1.0), st.floats(0, 1))
)


@given(PAIRS, WEIGHED, st.floats(-10, 10), st.floats(-10, 10), st.floats(0.001, 100))
def test_more_for_the_money_is_never_less_likely(
    pairs: list[tuple[float, float]], weighed: Weighed, one: float, other: float, weight: float
) -> None:
    pacer, now = seen(pairs), Aim(weighed=weighed)
    low, high = sorted([one, other])
    chances = [pacer.chance(score, now, weight) for score in (low, high)]
    assert 0.0 <= chances[0] <= chances[1] + 1e-9 <= 1.0 + 1e-9


@given(PAIRS, st.floats(0, 50), st.floats(-1, 1), st.floats(-1, 1), st.floats(-10, 10), st.floats(0.001, 100))
def test_more_pull_is_never_less_likely(
    pairs: list[tuple[float, float]], per_request: float, one: float, other: float, score: float, weight: float
) -> None:
    pacer = seen(pairs)
    low, high = sorted([one, other])
    chances = [pacer.chance(score, Aim(weighed=Weighed("usd", per_request, pull)), weight) for pull in (low, high)]
    assert chances[0] <= chances[1] + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.02, 0.6), st.sampled_from(["cap", "target"]))
def test_money_is_spent_as_promised_whatever_the_bills(seed: int, part: float, kind: Kind) -> None:
    """Bills that differ hundredfold and are foreseen badly: a ceiling is never broken, a target is met."""
    rng = random.Random(seed)
    mean = math.exp(0.5 * 0.9**2)
    limit = Limit(kind, "usd", part * mean, PER_REQUEST)
    pacer, shape, spent, count = Pacer(), Traffic(), 0.0, 800
    for n in range(count):
        expected = math.exp(rng.gauss(0, 0.8))
        bill = expected * math.exp(rng.gauss(-0.08, 0.4))
        room = limit.at_most * (n + 1) - spent
        now = aim([Balance(limit, spent, limit.at_most * n, n, 0)], shape)
        score = worth(rng.gauss(1, 1), expected)
        choice = decide(score, pacer, now, draw=rng.random(), weight=expected)
        reserve = held(expected, 3.0 * expected, room) if kind == "cap" else 3.0 * expected
        teacher = choice.teacher and (kind == "target" or reserve <= room)
        if teacher:
            spent += min(bill, reserve)
            shape = Traffic(usd_per_call=mean, usd_held=max(reserve, mean))
        pacer = step(pacer, score, now, teacher=teacher, weight=expected)
        if kind == "cap":
            assert spent <= limit.at_most * (n + 1) + 1e-9
    used = spent / (limit.at_most * count)
    assert used > (0.85 if kind == "target" else 0.6)
    assert kind == "cap" or used < 1.2


def test_a_pacer_that_has_seen_typical_requests_chooses_from_the_first_on() -> None:
    pacer = seen([(float(i), 1.0) for i in range(100)])
    now = Aim(weighed=Weighed("usd", 0.2))
    assert [decide(score, pacer, now, draw=0.5, weight=1.0).teacher for score in (50.0, 90.0)] == [False, True]
