"""What every ledger must do, whatever it keeps its rows in. A test module subclasses `LedgerConformance` and says how
to open one; `reopen` where rows outlive the process."""

from collections.abc import Awaitable, Callable

import pytest

from router.budget import Budget, During, Limit, Window
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from server.ledgers import Ledger

NOON = 1_774_008_000.0
"""2026-03-20 12:00 UTC, a Friday."""
DAY_S = 86_400.0
ANN, BOB = Subject(key="ann"), Subject(key="bob")


def cap(measure: str, at_most: float, per: Window | None = None, **more: object) -> Limit:
    return Limit("cap", measure, at_most, per, **more)  # type: ignore[arg-type]


def target(measure: str, at_most: float, per: Window | None = None, **more: object) -> Limit:
    return Limit("target", measure, at_most, per, **more)  # type: ignore[arg-type]


async def count(ledger: Ledger, id: str, now: float = NOON, subject: Subject = ANN) -> Admission:
    return await ledger.admit(Ask(id, subject, counts_request=True, wants_teacher=False), now)


async def call(
    ledger: Ledger,
    id: str,
    now: float = NOON,
    subject: Subject = ANN,
    *,
    tokens: int = 0,
    usd: float = 0.0,
    lease_s: float = 600.0,
) -> bool:
    """Asks for a teacher call without counting a request."""
    ask = Ask(id, subject, counts_request=False, wants_teacher=True, tokens=tokens, usd=usd, lease_s=lease_s)
    return (await ledger.admit(ask, now)).granted


async def both(ledger: Ledger, id: str, now: float = NOON, subject: Subject = ANN) -> bool:
    return (await ledger.admit(Ask(id, subject, counts_request=True, wants_teacher=True), now)).granted


async def settle(ledger: Ledger, id: str, now: float = NOON, **billed: object) -> None:
    await ledger.settle([Settlement(id, "settled", **billed)], now)  # type: ignore[arg-type]


async def release(ledger: Ledger, id: str, now: float = NOON) -> None:
    await ledger.settle([Settlement(id, "released")], now)


async def spent(ledger: Ledger, now: float = NOON, subject: Subject = ANN) -> list[float]:
    return [balance.spent for balance in await ledger.balances(subject, now)]


async def running(ledger: Ledger, *limits: Limit, now: float = NOON) -> Ledger:
    await ledger.set_budget(Budget(limits=limits), "words", "tests", now)
    return ledger


class LedgerConformance:
    @pytest.fixture
    def ledger(self) -> Ledger:
        raise NotImplementedError

    @pytest.fixture
    def reopen(self) -> Callable[[Ledger], Awaitable[Ledger]] | None:
        """As after a kill: nothing is settled, nothing is said goodbye to. None where nothing outlives the process."""
        return None

    async def test_without_a_budget_everything_is_granted(self, ledger: Ledger) -> None:
        admission = await ledger.admit(Ask("a", ANN, counts_request=True, wants_teacher=True), NOON)
        assert admission == Admission(True, None, None, (), Budget(), 0)
        assert await ledger.budget() == (Budget(), "", 0)

    async def test_calls_are_granted_up_to_the_cap_and_no_further(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 3, Window(1, "day")))
        assert [await call(ledger, f"c{i}") for i in range(5)] == [True, True, True, False, False]

    async def test_a_fifth_of_five_requests_is_one(self, ledger: Ledger) -> None:
        await running(ledger, cap("share", 0.2))
        assert [await both(ledger, f"r{i}") for i in range(15)] == [i in (4, 9, 14) for i in range(15)]

    @pytest.mark.parametrize("share", [0.07, 0.1, 0.29, 1 / 3, 0.57, 0.7])
    async def test_a_share_uses_all_of_it_whatever_floats_make_of_the_product(
        self, ledger: Ledger, share: float
    ) -> None:
        await running(ledger, cap("share", share))
        granted = [await both(ledger, f"r{i}") for i in range(300)]
        assert sum(granted) == round(share * 300)

    async def test_a_refused_request_counts_as_a_request(self, ledger: Ledger) -> None:
        await running(ledger, cap("share", 0.5))
        assert not await both(ledger, "one")
        assert await call(ledger, "two", subject=ANN) is False
        assert await both(ledger, "three")

    async def test_an_answer_says_who_refused_and_where_everything_stands(self, ledger: Ledger) -> None:
        daily, share = cap("calls", 1, Window(1, "day")), target("share", 0.5)
        await running(ledger, daily, share)
        await both(ledger, "a")
        refused = await ledger.admit(Ask("b", ANN, counts_request=True, wants_teacher=True), NOON)
        assert refused == Admission(
            granted=False,
            refused_by=daily,
            retry_after_s=DAY_S / 2,
            balances=(
                Balance(daily, spent=1.0, allowed=1.0, requests=2, calls=1, resets_in_s=DAY_S / 2),
                Balance(share, spent=1.0, allowed=1.0, requests=2, calls=1, resets_in_s=None),
            ),
            budget=Budget(limits=(daily, share)),
            budget_version=1,
        )

    async def test_all_limits_are_charged_or_none(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 10, Window(1, "day")), cap("usd", 0.5, Window(1, "day"), scope="key"))
        assert not await call(ledger, "dear", usd=0.6)
        assert await spent(ledger) == [0.0, 0.0]
        assert await call(ledger, "cheap", usd=0.5)
        assert await spent(ledger) == [1.0, 0.5]

    async def test_targets_are_counted_and_refuse_nothing(self, ledger: Ledger) -> None:
        await running(ledger, target("calls", 1, Window(1, "day")))
        assert [await call(ledger, f"c{i}") for i in range(3)] == [True, True, True]
        assert await spent(ledger) == [3.0]

    async def test_a_cap_and_a_target_on_the_same_window_are_charged_once(self, ledger: Ledger) -> None:
        await running(ledger, cap("share", 0.9), target("share", 0.5))
        assert [await both(ledger, f"r{i}") for i in range(3)] == [False, True, True]
        assert await spent(ledger) == [2.0, 2.0]

    async def test_each_key_has_its_own_account(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day"), scope="key"))
        assert [await call(ledger, "a", subject=ANN), await call(ledger, "b", subject=BOB)] == [True, True]
        assert [await call(ledger, "c", subject=ANN), await call(ledger, "d", subject=BOB)] == [False, False]

    @pytest.mark.parametrize("value", ["x" * 5000, "名前", "broken \ud800 text", "; key ann", "'; DROP TABLE accounts"])
    async def test_any_text_can_be_a_scope(self, ledger: Ledger, value: str) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day"), scope="user"))
        odd = Subject(user=value)
        assert [await call(ledger, f"c{i}", subject=odd) for i in range(2)] == [True, False]
        assert await call(ledger, "other", subject=Subject(user="somebody else"))
        assert await spent(ledger, subject=odd) == [1.0]

    async def test_asking_twice_with_one_id_charges_once(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day")), cap("share", 1.0))
        assert [await both(ledger, "same"), await both(ledger, "same")] == [True, True]
        assert await spent(ledger) == [1.0, 1.0]
        assert (await ledger.balances(ANN, NOON))[1].requests == 1

    async def test_asking_again_after_it_was_settled_charges_nothing(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 5, Window(1, "day")))
        await call(ledger, "same")
        await settle(ledger, "same")
        assert await call(ledger, "same")
        assert await spent(ledger) == [1.0]

    async def test_what_was_given_back_cannot_be_used_after_all(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 5, Window(1, "day")))
        await call(ledger, "same")
        await release(ledger, "same")
        assert not await call(ledger, "same")
        assert await spent(ledger) == [0.0]

    async def test_a_request_is_counted_once(self, ledger: Ledger) -> None:
        await running(ledger, cap("share", 0.5))
        await count(ledger, "same")
        await count(ledger, "same")
        assert not await both(ledger, "same")
        assert (await ledger.balances(ANN, NOON))[0].requests == 1

    async def test_settling_corrects_the_estimate_to_the_bill(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 1000, Window(1, "day")), cap("usd", 1.0, Window(1, "day")))
        await call(ledger, "c", tokens=900, usd=0.9)
        assert await spent(ledger) == [900.0, 0.9]
        await settle(ledger, "c", tokens=100, usd=0.05)
        assert await spent(ledger) == [100.0, 0.05]

    async def test_a_bill_above_the_estimate_is_the_truth_and_stops_what_follows(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 1000, Window(1, "day")))
        await call(ledger, "c", tokens=100)
        await settle(ledger, "c", tokens=1500)
        assert await spent(ledger) == [1500.0]
        assert not await call(ledger, "d", tokens=1)

    async def test_settling_twice_changes_nothing(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 1000, Window(1, "day")))
        await call(ledger, "c", tokens=500)
        await settle(ledger, "c", tokens=100)
        await settle(ledger, "c", tokens=300)
        await release(ledger, "c")
        assert await spent(ledger) == [100.0]

    async def test_releasing_twice_refunds_once(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 2, Window(1, "day")))
        await call(ledger, "a")
        await call(ledger, "b")
        await release(ledger, "a")
        await release(ledger, "a")
        await settle(ledger, "a", tokens=5)
        assert await spent(ledger) == [1.0]

    async def test_unknown_reservations_are_ignored(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 2, Window(1, "day")))
        await settle(ledger, "never heard of", tokens=5)
        await ledger.settle([], NOON)
        assert await spent(ledger) == [0.0]

    async def test_an_absurd_bill_does_not_break_the_ledger(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 1000, Window(1, "day")), cap("usd", 5, Window(1, "day"), scope="key"))
        await call(ledger, "c", tokens=10)
        await settle(ledger, "c", tokens=10**40, usd=1e300)
        assert not await call(ledger, "d")
        await ledger.settle([Settlement("c", "settled", tokens=-5, usd=-1.0)], NOON)
        assert await spent(ledger) == [1e12, 1e6]

    async def test_concurrent_places_are_taken_and_given_back(self, ledger: Ledger) -> None:
        await running(ledger, cap("concurrent", 2))
        assert [await call(ledger, id) for id in "abc"] == [True, True, False]
        await settle(ledger, "a")
        assert [await call(ledger, id) for id in "de"] == [True, False]
        assert await spent(ledger) == [2.0]

    async def test_a_dead_process_gives_its_place_back_when_the_lease_ends_but_stays_charged(
        self, ledger: Ledger
    ) -> None:
        await running(ledger, cap("concurrent", 1), cap("calls", 5, Window(1, "day")))
        await call(ledger, "dead", lease_s=60)
        assert not await call(ledger, "early", NOON + 59)
        assert await call(ledger, "late", NOON + 60)
        assert await spent(ledger, NOON + 60) == [1.0, 2.0]

    async def test_concurrent_places_are_counted_per_scope(self, ledger: Ledger) -> None:
        await running(ledger, cap("concurrent", 1, scope="key"))
        assert [await call(ledger, "a", subject=ANN), await call(ledger, "b", subject=BOB)] == [True, True]
        assert not await call(ledger, "c", subject=BOB)

    async def test_a_slow_call_uses_up_the_quantile(self, ledger: Ledger) -> None:
        await running(ledger, cap("latency_s", 2.0, quantile=0.9))
        for i in range(10):
            await count(ledger, f"r{i}")
        assert [await call(ledger, "a"), await call(ledger, "b")] == [True, False]
        await settle(ledger, "a", latency_s=2.0)
        assert await call(ledger, "c")
        await settle(ledger, "c", latency_s=2.1)
        assert await spent(ledger) == [1.0]
        assert not await call(ledger, "d")

    async def test_usd_per_request_is_held_at_every_admission(self, ledger: Ledger) -> None:
        await running(ledger, cap("usd", 0.003, Window(1, "request")))
        for i in range(9):
            await count(ledger, f"r{i}")
        assert not await call(ledger, "a", usd=0.03)
        await count(ledger, "r9")
        assert await call(ledger, "b", usd=0.03)

    async def test_ten_times_seven_cents_are_seventy(self, ledger: Ledger) -> None:
        await running(ledger, cap("usd", 0.7, Window(1, "day")))
        assert [await call(ledger, f"c{i}", usd=0.07) for i in range(11)] == [True] * 10 + [False]

    async def test_a_day_ends_at_midnight_of_its_zone(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day", tz="Asia/Tokyo")))
        midnight = NOON + 3 * 3600  # 15:00 UTC
        assert await call(ledger, "a", NOON)
        assert not await call(ledger, "b", midnight - 0.001)
        assert await call(ledger, "c", midnight)

    async def test_any_hour_means_any_hour(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 2, Window(1, "hour")))
        assert [await call(ledger, "a", NOON), await call(ledger, "b", NOON + 1800)] == [True, True]
        assert not await call(ledger, "c", NOON + 3599.9)
        assert await call(ledger, "d", NOON + 3600 + 18)  # the first has left, with at most one bucket of waste
        assert not await call(ledger, "e", NOON + 5399)
        assert await call(ledger, "f", NOON + 5400 + 18)

    async def test_a_rolling_refusal_says_when_to_come_back(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "hour")))
        await call(ledger, "a", NOON)
        refused = await ledger.admit(Ask("b", ANN, counts_request=False, wants_teacher=True), NOON + 600)
        assert refused.retry_after_s is not None
        assert 3000 <= refused.retry_after_s <= 3000 + 18
        assert await call(ledger, "c", NOON + 600 + refused.retry_after_s)

    async def test_a_full_rolling_window_is_used_to_98_percent(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 100, Window(1, "hour")))
        granted = [await call(ledger, f"c{i}", NOON + 12 * i) for i in range(3000)]  # 300 an hour for ten hours
        assert sum(granted) >= 0.98 * 1000
        times = [12 * i for i, each in enumerate(granted) if each]
        assert max(sum(t - 3600 < other <= t for other in times) for t in times) <= 100

    async def test_requests_counted_late_count_as_of_when_they_came(self, ledger: Ledger) -> None:
        day, hour = cap("share", 0.5, Window(1, "day")), cap("share", 0.5, Window(1, "hour"))
        await running(ledger, day, hour, cap("share", 0.5))
        midnight = NOON + DAY_S / 2

        async def late(id: str, count: int, since: float, now: float) -> list[int]:
            ask = Ask(id, ANN, False, False, earlier_requests=count, earlier_since=since)
            await ledger.admit(ask, now)
            return [balance.requests for balance in (await ledger.admit(ask, now)).balances]

        assert await late("a", 4, midnight - 2, midnight - 1) == [4, 4, 4]
        assert await late("b", 10, midnight - 1, midnight + 1) == [0, 14, 14]  # no day lends to the next
        assert await late("c", 1, NOON - DAY_S, midnight + 1) == [0, 14, 15]
        assert await late("d", 2, midnight + 60, midnight + 1) == [2, 16, 17]  # a clock that stepped back
        assert await late("e", 0, midnight, midnight + 1) == [2, 16, 17]
        assert [each.requests for each in await ledger.balances(ANN, midnight + 3590)] == [2, 2, 17]
        assert [each.requests for each in await ledger.balances(ANN, midnight + 3620)] == [2, 0, 17]

    async def test_a_settlement_goes_where_the_call_was_charged(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 100, Window(1, "day")), cap("tokens", 100, Window(1, "hour")))
        await call(ledger, "yesterday", NOON, tokens=80)
        tomorrow = NOON + DAY_S
        await call(ledger, "today", tomorrow, tokens=30)
        await settle(ledger, "yesterday", tomorrow, tokens=10)
        assert await spent(ledger, tomorrow) == [30.0, 30.0]

    async def test_a_settlement_reaches_back_into_a_rolling_window(self, ledger: Ledger) -> None:
        await running(ledger, cap("tokens", 100, Window(1, "hour")))
        await call(ledger, "a", NOON, tokens=80)
        await call(ledger, "b", NOON + 1800, tokens=20)
        await settle(ledger, "a", NOON + 1800, tokens=10)
        assert await spent(ledger, NOON + 1800) == [30.0]
        assert await spent(ledger, NOON + 3700) == [20.0]
        assert await spent(ledger, NOON + 9000) == [0.0]

    async def test_a_clock_that_steps_back_reopens_nothing(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day")), cap("calls", 3, Window(1, "minute")))
        assert await call(ledger, "a", NOON)
        assert await call(ledger, "b", NOON + DAY_S)
        assert not await call(ledger, "c", NOON)
        assert not await call(ledger, "d", NOON - 10 * DAY_S)
        assert await spent(ledger, NOON) == [1.0, 1.0]

    async def test_hours_that_a_limit_does_not_cover_are_free_and_not_counted(self, ledger: Ledger) -> None:
        office = During(("mon", "tue", "wed", "thu", "fri"), "09:00", "18:00", "UTC")
        evening = NOON + 7 * 3600
        await running(ledger, cap("calls", 1, Window(1, "day"), during=office), now=NOON - 4 * 3600)
        assert [await call(ledger, f"n{i}", NOON - 4 * 3600) for i in range(3)] == [True] * 3  # 08:00
        assert [await call(ledger, f"d{i}", NOON) for i in range(2)] == [True, False]
        assert [await call(ledger, f"e{i}", evening) for i in range(2)] == [True, True]
        assert await ledger.balances(ANN, evening) == ()

    async def test_a_new_budget_finds_what_was_spent_in_windows_that_go_on(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 5, Window(1, "day")))
        for i in range(4):
            await call(ledger, f"c{i}", usd=0.1)
        await running(ledger, cap("calls", 4, Window(1, "day")), cap("usd", 0.45, Window(1, "day")))
        assert await spent(ledger) == [4.0, 0.4]
        assert not await call(ledger, "more")
        assert (await ledger.budget())[1:] == ("words", 2)

    async def test_a_changed_budget_judges_the_very_next_ask(self, ledger: Ledger) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day")))
        first = await ledger.admit(Ask("a", ANN, counts_request=False, wants_teacher=True), NOON)
        await running(ledger, cap("calls", 0, Window(1, "day")))
        second = await ledger.admit(Ask("b", ANN, counts_request=False, wants_teacher=True), NOON)
        assert (first.granted, first.budget_version) == (True, 1)
        assert (second.granted, second.budget_version) == (False, 2)

    @pytest.mark.parametrize(
        "impossible",
        [
            cap("calls", 5, Window(1, "day", tz="Mars/Olympus")),
            cap("calls", float("inf"), Window(1, "day")),
            cap("share", float("nan")),
            cap("calls", 5, during=During(("mon",), "nine", "18:00")),
        ],
    )
    async def test_a_budget_that_cannot_be_held_is_refused_and_changes_nothing(
        self, ledger: Ledger, impossible: Limit
    ) -> None:
        await running(ledger, cap("calls", 1, Window(1, "day")))
        with pytest.raises(ValueError, match="cannot be held"):
            await running(ledger, impossible)
        assert (await ledger.budget())[2] == 1
        assert [await call(ledger, "a"), await call(ledger, "b")] == [True, False]

    @pytest.mark.parametrize(
        "per", [Window(10**9, "month"), Window(10**9, "month", rolling=True), Window(10**6, "day")]
    )
    async def test_windows_longer_than_history_hold(self, ledger: Ledger, per: Window) -> None:
        await running(ledger, cap("calls", 1, per))
        assert [await call(ledger, "a"), await call(ledger, "b", NOON + 400 * DAY_S)] == [True, False]

    async def test_a_time_no_calendar_knows_is_refused(self, ledger: Ledger) -> None:
        for now in (float("nan"), float("inf"), -1.0, 1e15):
            with pytest.raises(ValueError, match="now must be"):
                await count(ledger, "a", now)

    async def test_money_that_is_no_number_is_refused(self, ledger: Ledger) -> None:
        await running(ledger, cap("usd", 1.0, Window(1, "day")))
        with pytest.raises(ValueError):
            await call(ledger, "a", usd=float("nan"))
        assert await spent(ledger) == [0.0]

    async def test_everything_outlives_the_process(
        self, ledger: Ledger, reopen: Callable[[Ledger], Awaitable[Ledger]] | None
    ) -> None:
        if reopen is None:
            pytest.skip("nothing outlives this ledger's process")
        budget = Budget(limits=(cap("calls", 3, Window(1, "hour")), cap("concurrent", 2), target("share", 0.5)))
        await ledger.set_budget(budget, "in words", "ann", NOON)
        for id in "ab":
            await both(ledger, id, NOON + DAY_S)
        await settle(ledger, "a", NOON + DAY_S, tokens=3)
        before = await ledger.balances(ANN, NOON + DAY_S)
        again = await reopen(ledger)
        assert await again.budget() == (budget, "in words", 1)
        assert await again.balances(ANN, NOON) == before  # the clock does not go back either
        await settle(again, "b", NOON + DAY_S)
        await settle(again, "a", NOON + DAY_S, tokens=999)
        assert await spent(again, NOON + DAY_S) == [2.0, 0.0, 2.0]
