"""A policy that fails again and again is set aside, tried beside the answers, and let back in."""

from hypothesis import given
from hypothesis import strategies as st

from router.breaker import GOOD_PROBES, MOST_FAILURES, SOUND, Breaker, failed, may_probe, pause_s, probed, succeeded


def set_aside(now: float, breaker: Breaker = SOUND) -> Breaker:
    for _ in range(MOST_FAILURES):
        breaker = failed(breaker, now)
    assert breaker.aside
    return breaker


def let_in(now: float, breaker: Breaker) -> Breaker:
    for _ in range(GOOD_PROBES):
        breaker = probed(breaker, now, good=True)
    assert not breaker.aside
    return breaker


def test_success_after_success_is_the_same_object() -> None:
    assert succeeded(SOUND) is SOUND


def test_failures_now_and_then_are_borne() -> None:
    breaker = SOUND
    for _ in range(50):
        breaker = failed(breaker, 0.0)
        assert breaker.failing
        for _ in range(5):
            breaker = succeeded(breaker)
        assert not breaker.failing
        assert not breaker.aside


def test_one_that_is_set_aside_is_probed_after_a_pause_until_enough_probes_are_good() -> None:
    breaker = set_aside(100.0)
    assert not may_probe(breaker, 100.0 + pause_s(1) - 0.01)
    assert may_probe(breaker, 100.0 + pause_s(1))
    breaker = probed(breaker, 101.0, good=True)
    assert may_probe(breaker, 101.0)
    breaker = probed(breaker, 101.0, good=False)
    assert not may_probe(breaker, 101.0)
    assert breaker.good_probes == 0
    breaker = let_in(103.0, breaker)
    assert not breaker.failing


def test_one_that_fails_again_soon_waits_longer_and_one_that_lasted_does_not() -> None:
    breaker = let_in(10.0, set_aside(0.0))
    assert not may_probe(set_aside(20.0, breaker), 20.0 + pause_s(2) - 0.01)
    assert may_probe(set_aside(1000.0, breaker), 1000.0 + pause_s(1))


@given(st.lists(st.sampled_from(["good", "bad"]), max_size=200))
def test_it_is_set_aside_exactly_when_the_window_holds_too_many_failures(outcomes: list[str]) -> None:
    breaker, seen = SOUND, []
    for outcome in outcomes:
        breaker = succeeded(breaker) if outcome == "good" else failed(breaker, 0.0)
        seen.append(outcome)
        assert breaker.aside == (seen[-20:].count("bad") >= MOST_FAILURES)
        if breaker.aside:
            breaker, seen = SOUND, []
