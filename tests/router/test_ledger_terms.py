from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import budget_codec
from router.admission import nano_usd, whole_tokens
from router.budget import Budget, During, Limit, Rule, When, Window
from router.ledger import Subject
from router.terms import CALLS, NANO_USD, OPEN, SLOW, TOKENS, account_name, lines, simplest, terms_of
from router.windows import Place

DAY = Window(1, "day")


def numbers(limit: Limit) -> tuple[int, int, Fraction]:
    (terms,) = terms_of(Budget(limits=(limit,)))
    return terms.column, terms.constant, Fraction(terms.slope, terms.per_slope)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Limit("cap", "share", 0.2), (CALLS, 0, Fraction(1, 5))),
        (Limit("cap", "share", 1 / 3), (CALLS, 0, Fraction(1, 3))),
        (Limit("cap", "calls", 200, DAY), (CALLS, 200, Fraction(0))),
        (Limit("cap", "calls", 2.9, DAY), (CALLS, 2, Fraction(0))),
        (Limit("cap", "tokens", 5000, DAY), (TOKENS, 5000, Fraction(0))),
        (Limit("cap", "tokens", 12.5, Window(1, "request")), (TOKENS, 0, Fraction(25, 2))),
        (Limit("cap", "usd", 12.5), (NANO_USD, 12_500_000_000, Fraction(0))),
        (Limit("cap", "usd", 0.003, Window(1, "request")), (NANO_USD, 0, Fraction(3_000_000))),
        (Limit("cap", "concurrent", 4), (OPEN, 4, Fraction(0))),
        (Limit("cap", "latency_s", 2.0, quantile=0.95), (SLOW, 0, Fraction(1, 20))),
        (Limit("cap", "latency_s", 2.0), (SLOW, 0, Fraction(0))),
    ],
)
def test_a_limit_is_a_straight_line(limit: Limit, expected: tuple[int, int, Fraction]) -> None:
    assert numbers(limit) == expected


@given(st.floats(0.0, 1.0))
def test_a_share_is_never_rounded_above_what_was_written(share: float) -> None:
    fraction = simplest(share)
    assert float(fraction) == share or fraction < Fraction(share)
    assert Fraction(share) - fraction < Fraction(1, 10**6)
    assert fraction.denominator <= 10**6


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions_people_write_are_met_exactly(numerator: int, denominator: int) -> None:
    assert simplest(numerator / denominator) == Fraction(numerator, denominator)


@pytest.mark.parametrize(
    ("usd", "expected"),
    [
        (0.07, 70_000_000),
        (0.1 + 0.2, 300_000_000),
        (1e-10, 1),
        (0.0, 0),
        (-3.0, 0),
        (1e300, 10**15),
        (12.5, 12_500_000_000),
    ],
)
def test_money_is_counted_in_whole_nano_dollars_rounded_up(usd: float, expected: int) -> None:
    assert nano_usd(usd) == expected


def test_tokens_are_kept_within_what_64_bits_can_sum() -> None:
    assert [whole_tokens(each) for each in (-1, 5, 10**30)] == [0, 5, 10**12]


def test_an_account_knows_nothing_of_kinds_measures_and_amounts() -> None:
    limits = (
        Limit("cap", "calls", 5, DAY),
        Limit("target", "usd", 1.0, DAY),
        Limit("cap", "share", 0.2, DAY),
    )
    names = {account_name(each, Subject()) for each in terms_of(Budget(limits=limits))}
    assert names == {"1 day in UTC"}


def test_different_windows_scopes_and_hours_are_different_accounts() -> None:
    limits = (
        Limit("cap", "calls", 5),
        Limit("cap", "calls", 5, DAY),
        Limit("cap", "calls", 5, Window(1, "day", rolling=True)),
        Limit("cap", "calls", 5, Window(1, "day", tz="Asia/Tokyo")),
        Limit("cap", "calls", 5, Window(1, "week")),
        Limit("cap", "calls", 5, Window(1, "week", week_start=6)),
        Limit("cap", "calls", 5, Window(24, "hour")),
        Limit("cap", "calls", 5, DAY, scope="key"),
        Limit("cap", "calls", 5, DAY, scope="user"),
        Limit("cap", "calls", 5, DAY, during=During(("mon",))),
        Limit("cap", "calls", 5, DAY, during=During(("mon",), otherwise=True)),
        Limit("cap", "latency_s", 2.0, DAY, quantile=0.9),
        Limit("cap", "latency_s", 3.0, DAY, quantile=0.9),
    )
    names = [account_name(each, Subject(key="a", user="a")) for each in terms_of(Budget(limits=limits))]
    assert len(set(names)) == len(limits)


def test_only_limits_in_their_hours_bear_on_a_request() -> None:
    noon_us = 1_774_008_000 * 10**6  # a Friday
    fridays = Limit("cap", "calls", 5, during=During(("fri",)))
    mondays = Limit("cap", "calls", 5, during=During(("mon",)))
    found = lines(terms_of(Budget(limits=(fridays, mondays))), Subject(), noon_us)
    assert [(line.terms.limit, line.at) for line in found] == [(fridays, Place(0, 0, None))]


WORDS = st.text(max_size=20)
WINDOWS = st.one_of(
    st.none(),
    st.builds(
        Window, st.integers(1, 50), st.sampled_from(["request", "hour", "day", "week", "month"]), st.booleans(), WORDS
    ),
)
DURINGS = st.one_of(st.none(), st.builds(During, st.tuples(WORDS), WORDS, WORDS, WORDS, st.booleans()))
LIMITS = st.builds(
    Limit,
    st.sampled_from(["cap", "target"]),
    st.sampled_from(["share", "calls", "usd"]),
    st.floats(0, 1e9),
    WINDOWS,
    st.sampled_from(["all", "key"]),
    DURINGS,
    st.one_of(st.none(), st.floats(0, 1)),
)
WHENS = st.one_of(
    st.builds(When, topic=WORDS),
    st.builds(When, header=st.tuples(WORDS, WORDS)),
    st.builds(When, longer_than_tokens=st.integers(0, 10**6)),
    st.builds(When, contains=st.just("code")),
)
BUDGETS = st.builds(
    Budget,
    st.lists(LIMITS, max_size=3).map(tuple),
    st.lists(st.builds(Rule, st.sampled_from(["student", "teacher"]), WHENS), max_size=3).map(tuple),
    st.sampled_from(["student", "reject", "queue"]),
    st.floats(0, 100),
    st.one_of(st.none(), st.floats(0, 1)),
)


@given(BUDGETS)
def test_a_stored_budget_is_the_same_budget(budget: Budget) -> None:
    assert budget_codec.decode(budget_codec.encode(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"limits": [], "rules": [], "colour": 1}', '{"limits": [{}], "rules": []}']
)
def test_what_is_no_stored_budget_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):
        budget_codec.decode(text)
