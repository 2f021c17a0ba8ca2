"""Pacing as simulations with seeds: does the realised share stay where it should while traffic drifts?"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.observation import BudgetState
from router.budget import Kind, Limit, Window
from router.ledger import Balance
from router.pacing import FREE, RECENT, Aim, Pacer, Traffic, aim, decide, step

QUIET = Traffic()


def iid(n: int, rng: random.Random) -> list[float]:
    return [rng.gauss(0, 1) for _ in range(n)]


STREAMS: dict[str, Callable[[int, random.Random], list[float]]] = {
    "the same all day": iid,
    "rising for ever": lambda n, rng: sorted(iid(n, rng)),
    "falling for ever": lambda n, rng: sorted(iid(n, rng), reverse=True),
    "sorted by group": lambda n, rng: [rng.gauss((0, 2, -2, 1, -1)[5 * i // n], 0.7) for i in range(n)],
    "a ramp": lambda n, rng: [4 * i / n + rng.gauss(0, 0.3) for i in range(n)],
    "waves": lambda n, rng: [2 * math.sin(i / 80) + rng.gauss(0, 0.3) for i in range(n)],
    "bursts": lambda n, rng: [(3 if i // 40 % 4 == 0 else 0) + rng.gauss(0, 0.5) for i in range(n)],
    "all scores equal": lambda n, rng: [0.5] * n,
    "two scores": lambda n, rng: [float(rng.random() < 0.05) for _ in range(n)],
    "a huge scale": lambda n, rng: [1e9 * each for each in iid(n, rng)],
}


@dataclass(frozen=True)
class Run:
    calls: int
    requests: int
    worst_error: float
    """The largest distance of the realised share from the limit, from the 500th request on."""
    gain: float
    """Sum of the scores that went to the teacher."""


def simulate(limit: Limit, scores: Sequence[float], rng: random.Random, explore: float = 0.0) -> Run:
    """One request after the other; a cap refuses what is over it, as the ledger does."""
    pacer, calls, worst, gain = Pacer(), 0, 0.0, 0.0
    for n, score in enumerate(scores):
        balance = Balance(limit, spent=calls, allowed=limit.at_most * n, requests=n, calls=calls)
        now = aim([balance], QUIET)
        choice = decide(score, pacer, now, draw=rng.random(), explore=explore)
        teacher = choice.teacher and (limit.kind == "target" or calls + 1 <= limit.at_most * (n + 1) + 1e-9)
        calls += teacher
        gain += score * teacher
        pacer = step(pacer, score, now, teacher=teacher)
        if n >= 500:
            worst = max(worst, abs(calls / (n + 1) - limit.at_most))
    return Run(calls, len(scores), worst, gain)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_target_is_within_a_point_at_every_moment_after_500_requests(stream: str, share: float) -> None:
    rng = random.Random(7)
    run = simulate(Limit("target", "share", share), STREAMS[stream](2000, rng), rng)
    assert run.worst_error < 0.01


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_cap_is_used_to_98_percent_and_never_over(stream: str, share: float) -> None:
    rng = random.Random(7)
    run = simulate(Limit("cap", "share", share), STREAMS[stream](4000, rng), rng)
    assert 0.98 * share <= run.calls / run.requests <= share


@pytest.mark.parametrize(("kind", "share", "least"), [("target", 0.2, 0.9), ("cap", 0.2, 0.85), ("target", 0.05, 0.85)])
def test_holding_the_share_costs_little_of_what_the_best_fixed_threshold_would_win(
    kind: Kind, share: float, least: float
) -> None:
    rng = random.Random(7)
    scores = iid(4000, rng)
    run = simulate(Limit(kind, "share", share), scores, rng)
    best = sum(sorted(scores, reverse=True)[: run.calls])
    by_chance = run.calls * sum(scores) / len(scores)
    assert (run.gain - by_chance) / (best - by_chance) > least


def test_exploration_is_paid_out_of_the_share() -> None:
    rng = random.Random(7)
    run = simulate(Limit("target", "share", 0.2), iid(2000, rng), rng, explore=0.1)
    assert run.worst_error < 0.01


def test_without_limits_the_policy_decides() -> None:
    assert aim([], QUIET) == FREE
    pacer = warmed([1.0] * 50)
    assert [decide(score, pacer, FREE, draw=0.5).teacher for score in (-0.1, 0.1)] == [False, True]
    assert FREE.state == BudgetState(share=1.0, left=1.0)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_before_scores_are_known_the_policy_s_own_zero_decides(share: float) -> None:
    now = Aim(share=share, chance=share)
    choices = [decide(score, Pacer(), now, draw=0.5) for score in (-1.0, 1.0)]
    assert [(each.teacher, each.propensity) for each in choices] == [(False, 1.0), (True, 1.0)]
    assert choices[0].shift == pytest.approx(0.0, abs=0.3)


def test_at_the_start_a_share_that_is_behind_reaches_below_the_policy_s_zero() -> None:
    behind = Aim(share=0.2, chance=0.6, shared=True)
    assert [decide(score, Pacer(), behind, draw=0.5).teacher for score in (-3.0, -1.0)] == [False, True]


def test_imagined_scores_leave_as_real_ones_come() -> None:
    now = Aim(share=0.2, chance=0.2)
    pacer = warmed([100.0 + i % 10 for i in range(RECENT)], now)
    assert len(pacer.recent) == RECENT
    assert min(pacer.ordered) == (100.0, 1.0)


def test_a_policy_of_another_scale_is_learnt_within_twenty_scores() -> None:
    """Scores that all lie above zero, as a probability does."""
    rng, now = random.Random(1), Aim(share=0.2, chance=0.2, shared=True)
    pacer = warmed([rng.random() for _ in range(20)], now)
    assert [pacer.chance(score, now) for score in (0.3, 0.5, 0.99)] == [0.0, 0.0, 1.0]


def warmed(scores: Sequence[float], now: Aim = FREE) -> Pacer:
    pacer = Pacer()
    for score in scores:
        pacer = step(pacer, score, now, teacher=False)
    return pacer


def test_the_pacer_remembers_the_last_scores_in_order() -> None:
    scores = [float(i * 37 % 101) for i in range(RECENT + 50)]
    pacer = warmed(scores)
    assert pacer.recent == tuple((score, 1.0) for score in scores[-RECENT:])
    assert pacer.ordered == tuple(sorted(pacer.recent))


def test_the_best_fifth_goes_to_the_teacher() -> None:
    pacer = warmed([float(i) for i in range(100)])
    now = Aim(share=0.2, chance=0.2, shared=True)
    assert [pacer.chance(score, now) for score in (10.5, 70.5, 85.5, 99.5)] == [0.0, 0.0, 1.0, 1.0]
    choice = decide(85.5, pacer, now, draw=0.999)
    assert (choice.teacher, choice.propensity, choice.shift) == (True, 1.0, -80.0)


def test_scores_that_tie_share_by_a_coin() -> None:
    pacer = warmed([0.5] * 100)
    now = Aim(share=0.2, chance=0.2, shared=True)
    assert pacer.chance(0.5, now) == pytest.approx(0.2)
    assert decide(0.5, pacer, now, draw=0.19).teacher
    assert not decide(0.5, pacer, now, draw=0.21).teacher


@pytest.mark.parametrize("explore", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("score", [0.5, 85.5, 2.0])
def test_the_propensity_is_the_share_of_draws_that_choose_so(explore: float, score: float) -> None:
    pacer = warmed([float(i % 10) for i in range(100)])
    now = Aim(share=0.75, chance=0.75, shared=True)
    draws = 20_000
    choices = [decide(score, pacer, now, draw=i / draws, explore=explore) for i in range(draws)]
    teachers = sum(choice.teacher for choice in choices) / draws
    assert sum(choice.explored for choice in choices) / draws == pytest.approx(explore, abs=1e-3)
    for choice in choices:
        assert choice.propensity == pytest.approx(teachers if choice.teacher else 1 - teachers, abs=1e-3)
        assert choice.propensity > 0


def test_a_calm_share_limit_asks_for_its_share() -> None:
    limit = Limit("target", "share", 0.2)
    now = aim([Balance(limit, spent=200, allowed=200.0, requests=1000, calls=200)], QUIET)
    assert now == Aim(share=0.2, chance=0.2, left=1.0, shared=True)


@pytest.mark.parametrize(("spent", "expected"), [(230, 0.0), (203, 0.1), (203.0, 0.1), (197, 0.6), (150, 1.0)])
def test_a_target_that_is_ahead_asks_for_less_and_one_behind_for_more(spent: float, expected: float) -> None:
    limit = Limit("target", "share", 0.2)
    now = aim([Balance(limit, spent=spent, allowed=200.0, requests=1000, calls=200)], QUIET)
    assert (now.share, now.chance) == (0.2, pytest.approx(expected))


def test_a_stock_is_spread_over_what_is_still_to_come() -> None:
    limit = Limit("cap", "calls", 200, Window(1, "day"))
    balance = Balance(limit, spent=100, allowed=200, requests=5000, calls=100, resets_in_s=10_000.0)
    assert aim([balance], Traffic(requests_per_s=0.1)) == Aim(share=0.1, chance=0.1, left=0.5)
    assert aim([balance], Traffic(requests_per_s=0.001)) == Aim(share=1.0, chance=1.0, left=0.5)


def test_money_is_spread_by_what_a_call_costs() -> None:
    limit = Limit("cap", "usd", 10.0, Window(1, "day"))
    balance = Balance(limit, spent=5.0, allowed=10.0, requests=5000, calls=100, resets_in_s=10_000.0)
    assert aim([balance], Traffic(requests_per_s=0.1, usd_per_call=0.05)).share == pytest.approx(0.1)
    assert aim([balance], Traffic(requests_per_s=0.1)).share == 1.0  # nothing known yet: the cap itself is enough


def test_an_empty_stock_asks_for_nothing() -> None:
    limit = Limit("cap", "calls", 200, Window(1, "day"))
    balance = Balance(limit, spent=200, allowed=200, requests=5000, calls=200, resets_in_s=10_000.0)
    assert aim([balance], Traffic(requests_per_s=0.1)) == Aim(share=0.0, chance=0.0, left=0.0)
    assert not decide(99.0, Pacer(), Aim(0.0, 0.0, 0.0), draw=0.0).teacher


def test_a_rolling_stock_is_spent_once_per_window() -> None:
    limit = Limit("cap", "calls", 360, Window(1, "hour"))
    balance = Balance(limit, spent=200, allowed=360, requests=3600, calls=200)
    assert aim([balance], Traffic(requests_per_s=1.0)).share == pytest.approx(0.1)


def test_money_per_request_is_a_share_once_the_price_of_a_call_is_known() -> None:
    limit = Limit("target", "usd", 0.003, Window(1, "request"))
    balance = Balance(limit, spent=3.0, allowed=3.0, requests=1000, calls=300)
    assert aim([balance], Traffic(usd_per_call=0.01)).share == pytest.approx(0.3)
    ample = aim([balance], Traffic(usd_per_call=0.002))
    assert (ample.share, ample.chance) == (1.0, 1.0)


def test_slow_calls_are_bounded_by_how_often_calls_are_slow() -> None:
    limit = Limit("target", "latency_s", 2.0, quantile=0.95)
    balance = Balance(limit, spent=50, allowed=50.0, requests=1000, calls=200)
    assert aim([balance], QUIET).share == pytest.approx(0.05 / 0.25)


def test_places_are_bounded_by_how_long_calls_take() -> None:
    limit = Limit("cap", "concurrent", 4)
    balance = Balance(limit, spent=0, allowed=4, requests=100, calls=10)
    assert aim([balance], Traffic(requests_per_s=10, seconds_per_call=2.0)).share == pytest.approx(0.2)


def test_one_user_is_paced_by_the_user_s_own_traffic() -> None:
    limit = Limit("cap", "calls", 10, Window(1, "day"), scope="user")
    half_a_day = Balance(limit, spent=5, allowed=10, requests=50, calls=5, resets_in_s=43_200.0)
    assert aim([half_a_day], Traffic(requests_per_s=100.0)).share == pytest.approx(0.1)


def test_the_tightest_limit_decides() -> None:
    share, stock = Limit("target", "share", 0.2), Limit("cap", "calls", 200, Window(1, "day"))
    balances = [
        Balance(share, spent=200, allowed=200.0, requests=1000, calls=200),
        Balance(stock, spent=100, allowed=200, requests=1000, calls=100, resets_in_s=10_000.0),
    ]
    assert aim(balances, Traffic(requests_per_s=1.0)) == Aim(share=0.01, chance=0.01, left=0.5)
    assert aim(balances, Traffic(requests_per_s=0.001)) == Aim(share=0.2, chance=0.2, left=0.5, shared=True)


def test_a_process_evens_out_what_a_stock_s_share_was_missed_by() -> None:
    rng, now, pacer, calls = random.Random(3), Aim(share=0.1, chance=0.1), Pacer(), 0
    for i in range(2000):
        score = i / 100 + rng.gauss(0, 1)  # drifts upwards for ever
        choice = decide(score, pacer, now, draw=rng.random())
        calls += choice.teacher
        pacer = step(pacer, score, now, teacher=choice.teacher)
    assert calls / 2000 == pytest.approx(0.1, abs=0.04)


@given(
    st.lists(st.floats(-100, 100), max_size=60),
    st.floats(0.01, 0.99),
    st.floats(-1, 2),
    st.floats(-100, 100),
    st.floats(-100, 100),
)
def test_a_better_score_is_never_less_likely(
    scores: list[float], share: float, chance: float, one: float, other: float
) -> None:
    now = Aim(share=share, chance=min(max(chance, 0.0), 1.0), shared=True)
    pacer = warmed(scores, now)
    low, high = sorted([one, other])
    assert 0.0 <= pacer.chance(low, now) <= pacer.chance(high, now) <= 1.0


@given(st.floats(0.01, 0.9), st.integers(0, 5000), st.integers(0, 5000), st.sampled_from(["cap", "target"]))
def test_more_calls_so_far_never_ask_for_more(share: float, requests: int, calls: int, kind: Kind) -> None:
    limit = Limit(kind, "share", share)
    chances = [
        aim([Balance(limit, spent, share * requests, requests, spent)], QUIET).chance for spent in (calls, calls + 1)
    ]
    assert 0.0 <= chances[1] <= chances[0] <= 1.0
