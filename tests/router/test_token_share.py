"""The promise on the share of tokens, and how often help is asked for under it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.aim import FREE, Aim, Weighed
from router.token_share import HelpTraffic, Leaning, TokenAccount, percent, tokens_share, wanted

STEPS = st.lists(st.tuples(st.sampled_from(["student", "help"]), st.integers(1, 30), st.integers(0, 30)), max_size=80)


@given(st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 0.5, 1.0]), STEPS)
def test_no_order_of_writing_and_helping_breaks_the_share(share: float, steps: list[tuple[str, int, int]]) -> None:
    account = TokenAccount()
    for who, tokens, written in steps:
        if who == "student":
            account = account.wrote(tokens)
        elif account.has_room(share, tokens):
            account = account.reserved(tokens).given_back(tokens - min(written, tokens))
        assert account.teacher <= share * account.total + 1e-9


def test_a_help_needs_the_tokens_that_make_it_a_share() -> None:
    account = TokenAccount().wrote(32)
    assert account.has_room(0.2, 8)
    assert not account.has_room(0.2, 9)
    assert not TokenAccount().has_room(0.2, 1)
    assert TokenAccount().has_room(1.0, 100)


def test_two_accounts_within_the_share_are_within_it_together() -> None:
    one, other = TokenAccount(2, 10), TokenAccount(1, 5)
    assert (one.teacher + other.teacher) / (one.total + other.total) <= 0.2


def test_without_limits_nothing_steers() -> None:
    assert wanted(TokenAccount(), None, 8, 1, FREE, HelpTraffic()) == Aim()


def test_more_is_wanted_the_more_the_teacher_is_behind() -> None:
    accounts = [TokenAccount(teacher, 1000) for teacher in (300, 200, 180, 100, 0)]
    chances = [wanted(account, 0.2, 4, 1, FREE, HelpTraffic()).chance for account in accounts]
    assert chances == sorted(chances)
    assert chances[0] == 0.0
    assert chances[-1] == 1.0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("tokens", [1, 4, 16])
@pytest.mark.parametrize("watched", [1, 2, 8])
def test_in_the_long_run_checks_lead_to_help_as_often_as_the_share_allows(
    share: float, tokens: int, watched: int
) -> None:
    # At rest: neither behind nor ahead of what is left for the next helps.
    account = TokenAccount(round(share * 100_000) - max(2 * tokens, 6), 100_000)
    chance = wanted(account, share, tokens, watched, FREE, HelpTraffic()).chance
    # Where a check ends in help, the least sure of the watched tokens and those behind it are not the student's.
    draw = Random(1)
    written, whole = 0, 0
    for _ in range(40_000):
        helped = draw.random() < chance
        written += tokens if helped else 0
        whole += draw.randrange(watched) + tokens if helped else watched
    most = tokens / (tokens + (watched - 1) / 2)
    assert written / whole == pytest.approx(min(share, most), abs=0.02)


def test_calls_and_tokens_of_the_budgets_sentence_are_shared_out_over_the_checks() -> None:
    traffic = HelpTraffic(checks_per_answer=40.0, tokens_per_call=50.0)
    assert wanted(TokenAccount(), None, 4, 1, Aim(share=0.2, chance=0.2), traffic).chance == 0.2 / 40
    tokens = Aim(weighed=Weighed("tokens", 100.0))
    assert wanted(TokenAccount(), None, 4, 1, tokens, traffic).chance == 2 / 40


def test_the_restriction_is_the_largest_level_within_the_share() -> None:
    levels = (5, 10, 20, 50)
    assert [percent(share, levels) for share in (0.02, 0.1, 0.29, 1.0)] == [5, 10, 20, 50]
    assert percent(0.29, ()) == 29
    assert tokens_share(0.2, FREE, 8, HelpTraffic()) == 0.2
    assert tokens_share(None, Aim(share=0.5, chance=0.5), 8, HelpTraffic(tokens_per_answer=40.0)) == 0.1


def test_a_student_that_asks_too_rarely_is_leant_to_ask_more_and_the_other_way_round() -> None:
    behind, ahead = Leaning(), Leaning()
    for _ in range(20):
        behind = behind.step(TokenAccount(0, 1000), 0.2, 4)
        ahead = ahead.step(TokenAccount(300, 1000), 0.2, 4)
    assert [round(each.offset, 9) for each in (behind, ahead)] == [1.5, -1.5]
    assert Leaning().step(TokenAccount(200 - 8, 1000), 0.2, 4) == Leaning()
