"""Whom of several teachers a request goes to."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.increments import Increment, increments
from router.budget import Limit, Window
from router.choosing import Choice, Offer, choose, remember
from router.ledger import Balance
from router.pacing import Aim, Pacer, Traffic, Weighed, aim, started

numbers = st.floats(-1, 1)
bills = st.floats(1e-4, 10)


def test_steps_up_lead_over_the_hull_and_each_buys_less_than_the_one_before() -> None:
    assert increments([0.3, 0.9], [1.0, 10.0]) == (Increment(0, 0.3, 1.0), Increment(1, pytest.approx(0.6), 9.0))
    # A dear one that buys more per dollar than the cheap one is gone to at once.
    assert increments([0.05, 0.9], [1.0, 10.0]) == (Increment(1, 0.9, 10.0),)
    # One that is dearer and no better, and one that is worse than the student, are never asked.
    assert increments([0.5, 0.4, -0.2], [1.0, 2.0, 0.5]) == (Increment(0, 0.5, 1.0),)
    assert increments([-0.1, 0.0], [1.0, 2.0]) == ()


@given(st.lists(st.tuples(numbers, bills), min_size=1, max_size=5), st.floats(0, 10))
def test_at_any_price_the_last_step_worth_it_is_the_best_choice(
    offers: list[tuple[float, float]], price: float
) -> None:
    gains, costs = [gain for gain, _ in offers], [cost for _, cost in offers]
    steps = increments(gains, costs)
    assert all(first.worth > second.worth for first, second in pairwise(steps))
    taken = [step for step in steps if step.worth > price]
    got = gains[taken[-1].teacher] - price * costs[taken[-1].teacher] if taken else 0.0
    best = max(0.0, *(gain - price * cost for gain, cost in offers))
    assert got == pytest.approx(best, abs=1e-9)


CHEAP, DEAR = Offer("cheap", 1.0, 0.3, 0.001), Offer("dear", 2.0, 0.4, 0.01)
FREE = Aim()


def test_where_calls_are_counted_the_best_scored_teacher_is_paced() -> None:
    choice = choose([CHEAP, DEAR], Pacer(), FREE, draw=0.5)
    assert (choice.name, choice.propensity, choice.then, choice.chances) == ("dear", 1.0, ("cheap",), (0.0, 1.0))
    assert choose([Offer("a", -1.0, -0.1), Offer("b", -2.0, -0.2)], Pacer(), FREE, draw=0.5).name is None


def test_exploration_reaches_every_teacher_and_the_chances_say_so() -> None:
    found: dict[str | None, int] = {}
    for i in range(1000):
        choice = choose([CHEAP, DEAR], Pacer(), FREE, draw=(i + 0.5) / 1000, explore=0.2)
        assert choice.chances == pytest.approx((0.05, 0.85))
        assert choice.propensity == pytest.approx(0.9 if choice.name else 0.1)
        found[choice.name] = found.get(choice.name, 0) + 1
    assert found == {"cheap": 50, "dear": 850, None: 100}


def money(per_request: float, pull: float = 0.0) -> Aim:
    return Aim(share=0.5, chance=0.5, shared=True, weighed=Weighed("usd", per_request, pull))


@given(st.lists(st.tuples(numbers, bills), min_size=1, max_size=4), st.floats(0, 0.999), st.floats(0.0, 1.0))
def test_the_chances_are_a_distribution_and_the_draws_follow_it(
    offers: list[tuple[float, float]], explore: float, pull: float
) -> None:
    named = [Offer(str(k), gain, gain, usd) for k, (gain, usd) in enumerate(offers)]
    pacer = started(((9.0, 1.0), (3.0, 2.0), (0.5, 5.0)))
    counts = [0] * len(named)
    for i in range(400):
        choice = choose(named, pacer, money(1.0, pull), draw=(i + 0.5) / 400, explore=explore)
        if choice.name is not None:
            counts[int(choice.name)] += 1
            assert choice.propensity == pytest.approx(sum(choice.chances))
        else:
            assert choice.propensity == pytest.approx(1.0 - sum(choice.chances))
    assert min(choice.chances) >= -1e-9
    assert sum(choice.chances) <= 1.0 + 1e-9
    assert [count / 400 for count in counts] == pytest.approx(list(choice.chances), abs=0.01)


def test_a_teacher_without_a_bill_is_counted_under_a_limit_on_money() -> None:
    choice = choose([CHEAP, Offer("free", 3.0, 0.5)], Pacer(), money(0.001), draw=0.0)
    assert choice.seen[0].weight is None


def test_every_request_leaves_as_many_steps_as_the_policy_knows_teachers() -> None:
    for gains in ((0.3, 0.9), (0.5, 0.1), (-0.5, -0.1)):
        offers = [Offer("a", 0.0, gains[0], 1.0), Offer("b", 0.0, gains[1], 4.0)]
        choice = choose(offers, Pacer(), money(0.1), draw=0.5, known=3)
        assert len(choice.seen) == 3
        assert len(remember(Pacer(), choice.seen, teacher=False).recent) == 3


@pytest.mark.parametrize("per_request", [0.001, 0.002, 0.004])
def test_a_ceiling_on_money_is_held_used_and_buys_nearly_what_hindsight_would(per_request: float) -> None:
    rng = random.Random(1)
    limit = Limit("cap", "usd", per_request, Window(1, "request"))
    pacer, spent, gained, calls = Pacer(), 0.0, 0.0, 0
    rows = [
        ((rng.random() * 0.5, rng.random() * 0.9), (0.001 * rng.uniform(0.5, 2), 0.008 * rng.uniform(0.5, 2)))
        for _ in range(1500)
    ]
    for i, (gains, costs) in enumerate(rows):
        each = spent / calls if calls else 0.0
        now = aim([Balance(limit, spent, per_request * i, i, calls)], Traffic(usd_per_call=each, usd_held=each))
        offers = [Offer("a", 0.0, gains[0], costs[0]), Offer("b", 0.0, gains[1], costs[1])]
        choice: Choice = choose(offers, pacer, now, draw=rng.random())
        asked = False
        for name in (choice.name, *choice.then) if choice.name else ():
            k = "ab".index(name)
            if spent + costs[k] <= per_request * (i + 1):
                spent, gained, calls, asked = spent + costs[k], gained + gains[k], calls + 1, True
                break
        pacer = remember(pacer, choice.seen, teacher=asked)
    best = _hindsight([increments(*row) for row in rows], per_request)
    alone = [_hindsight([increments((row[0][k],), (row[1][k],)) for row in rows], per_request) for k in range(2)]
    assert 0.98 * per_request * len(rows) < spent <= per_request * len(rows)
    assert gained > 0.88 * best
    if per_request >= 0.002:
        assert gained > max(alone)  # even of the one who foresees all and asks one teacher


def _hindsight(steps: list[tuple[Increment, ...]], per_request: float) -> float:
    left, won = per_request * len(steps), 0.0
    for each in sorted((step for row in steps for step in row), key=lambda step: -step.worth):
        if each.cost > left:
            break
        left, won = left - each.cost, won + each.gain
    return won
