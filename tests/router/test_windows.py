"""Windows worked out by hand, where days are 23 or 25 hours, midnight is missing or comes twice."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.budget import During, Unit, Window
from router.windows import (
    SECOND_US,
    Place,
    bucket_leaves_us,
    calendar_span,
    in_force,
    microseconds,
    next_change_us,
    place,
    rolling_length_us,
    sub_bucket_us,
)


def at(text: str) -> int:
    """ "2026-03-29 01:00" UTC, in microseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_US


def span(window: Window, moment: str) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        datetime.fromtimestamp(edge / SECOND_US, UTC).strftime("%Y-%m-%d %H:%M")
        for edge in calendar_span(window, at(moment))
    )


@pytest.mark.parametrize(
    ("window", "moment", "expected"),
    [
        (Window(1, "day"), "2026-03-20 12:00", ("2026-03-20 00:00", "2026-03-21 00:00")),
        (Window(1, "day"), "2026-03-20 00:00", ("2026-03-20 00:00", "2026-03-21 00:00")),
        # Tokyo is nine hours ahead and never changes its clocks.
        (Window(1, "day", tz="Asia/Tokyo"), "2026-03-20 14:59", ("2026-03-19 15:00", "2026-03-20 15:00")),
        (Window(1, "day", tz="Asia/Tokyo"), "2026-03-20 15:00", ("2026-03-20 15:00", "2026-03-21 15:00")),
        # A quarter-hour zone.
        (Window(1, "day", tz="Asia/Kathmandu"), "2026-03-20 18:15", ("2026-03-20 18:15", "2026-03-21 18:15")),
        # London, 29 March 2026: 23 hours. 25 October 2026: 25 hours.
        (Window(1, "day", tz="Europe/London"), "2026-03-29 12:00", ("2026-03-29 00:00", "2026-03-29 23:00")),
        (Window(1, "day", tz="Europe/London"), "2026-10-25 12:00", ("2026-10-24 23:00", "2026-10-26 00:00")),
        # New York, 8 March 2026.
        (Window(1, "day", tz="America/New_York"), "2026-03-08 12:00", ("2026-03-08 05:00", "2026-03-09 04:00")),
        # Beirut jumps from midnight to one o'clock: the day begins with the jump (2026-03-28 22:00 UTC).
        (Window(1, "day", tz="Asia/Beirut"), "2026-03-29 12:00", ("2026-03-28 22:00", "2026-03-29 21:00")),
        # Asuncion in 2023 set its clocks back from midnight to eleven: that Saturday had 25 hours.
        (Window(1, "day", tz="America/Asuncion"), "2023-03-26 03:30", ("2023-03-25 03:00", "2023-03-26 04:00")),
        # Samoa had no 30 December 2011.
        (Window(1, "day", tz="Pacific/Apia"), "2011-12-30 12:00", ("2011-12-30 10:00", "2011-12-31 10:00")),
        (Window(1, "day", tz="Pacific/Apia"), "2011-12-30 09:59", ("2011-12-29 10:00", "2011-12-30 10:00")),
        # Weeks: 20 March 2026 is a Friday.
        (Window(1, "week"), "2026-03-20 12:00", ("2026-03-16 00:00", "2026-03-23 00:00")),
        (Window(1, "week", week_start=6), "2026-03-20 12:00", ("2026-03-15 00:00", "2026-03-22 00:00")),
        (Window(1, "week", tz="Europe/London"), "2026-03-29 22:59", ("2026-03-23 00:00", "2026-03-29 23:00")),
        # Months and quarters.
        (Window(1, "month"), "2024-02-29 23:59", ("2024-02-01 00:00", "2024-03-01 00:00")),
        (Window(1, "month", tz="Asia/Tokyo"), "2026-12-31 15:00", ("2026-12-31 15:00", "2027-01-31 15:00")),
        (Window(3, "month"), "2026-05-01 00:00", ("2026-04-01 00:00", "2026-07-01 00:00")),
        # Several days and weeks lie end to end.
        (Window(2, "day"), "1970-01-02 12:00", ("1970-01-01 00:00", "1970-01-03 00:00")),
    ],
)
def test_calendar_windows(window: Window, moment: str, expected: tuple[str, str]) -> None:
    assert span(window, moment) == expected


def test_a_fortnight_is_two_whole_weeks() -> None:
    fortnight = Window(2, "week")
    start, end = calendar_span(fortnight, at("2026-03-20 12:00"))
    assert end - start == 14 * 86_400 * SECOND_US
    assert datetime.fromtimestamp(start / SECOND_US, UTC).weekday() == 0
    assert calendar_span(fortnight, end)[0] == end


ZONES = ["UTC", "Asia/Tokyo", "Europe/London", "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Apia"]
CALENDARS: list[Unit] = ["day", "week", "month"]


@given(
    n=st.integers(1, 5),
    unit=st.sampled_from(CALENDARS),
    tz=st.sampled_from(ZONES),
    week_start=st.integers(0, 6),
    now_us=st.integers(at("1990-01-01"), at("2037-01-01")),
)
def test_windows_lie_end_to_end_and_hold_their_moment(
    n: int, unit: Unit, tz: str, week_start: int, now_us: int
) -> None:
    window = Window(n, unit, tz=tz, week_start=week_start)
    start, end = calendar_span(window, now_us)
    assert start <= now_us < end
    assert calendar_span(window, start) == (start, end)
    assert calendar_span(window, end - 1) == (start, end)
    assert calendar_span(window, end)[0] == end


@pytest.mark.parametrize("unit", CALENDARS)
@pytest.mark.parametrize("n", [100, 5_000, 100_000, 10**7, 10**12])
@pytest.mark.parametrize("now_us", [0, at("2026-03-20"), at("8999-12-31")])
@pytest.mark.parametrize("tz", ["Asia/Tokyo", "America/New_York"])
def test_windows_of_many_centuries_hold_their_moment(unit: Unit, n: int, now_us: int, tz: str) -> None:
    start, end = calendar_span(Window(n, unit, tz=tz), now_us)
    assert start <= now_us < end
    rolling = place(Window(n, unit, rolling=True), now_us)
    assert rolling.first <= rolling.bucket
    assert rolling.end_us is not None
    assert now_us < rolling.end_us < 2**63


def test_a_life_is_one_bucket() -> None:
    assert place(None, at("2026-03-20 12:00")) == place(Window(1, "request"), 0) == Place(0, 0, None)


ROLLING = st.builds(
    Window,
    n=st.integers(1, 90),
    unit=st.sampled_from(["second", "minute", "hour", "day", "week", "month"]),
    rolling=st.just(True),
)


@given(window=ROLLING, event_us=st.integers(0, 10**16), age_us=st.integers(0, 10**14))
def test_a_rolling_bucket_counts_until_all_of_it_has_left(window: Window, event_us: int, age_us: int) -> None:
    length, width = rolling_length_us(window), sub_bucket_us(window)
    counted = place(window, event_us).bucket >= place(window, event_us + age_us).first
    if age_us < length:
        assert counted
    if age_us >= length + width:
        assert not counted
    assert width <= length / 200 + 1


@given(window=ROLLING, event_us=st.integers(0, 10**16), age_us=st.integers(0, 10**14))
def test_only_buckets_that_are_wholly_inside_carry_a_share(window: Window, event_us: int, age_us: int) -> None:
    counted = place(window, event_us).bucket > place(window, event_us + age_us).first
    if counted:
        assert age_us < rolling_length_us(window)
    if age_us < rolling_length_us(window) - sub_bucket_us(window):
        assert counted


@given(window=ROLLING, event_us=st.integers(0, 10**16))
def test_a_bucket_leaves_when_it_says(window: Window, event_us: int) -> None:
    bucket = place(window, event_us).bucket
    leaves = bucket_leaves_us(window, bucket)
    assert place(window, leaves - 1).first <= bucket < place(window, leaves).first


OFFICE = During(("mon", "tue", "wed", "thu", "fri"), "09:00", "18:00", "Asia/Tokyo")
NIGHTS = During(("fri", "sat"), "22:00", "06:00", "Europe/London")


@pytest.mark.parametrize(
    ("during", "moment", "expected"),
    [
        (OFFICE, "2026-03-20 00:00", True),  # Friday 09:00 in Tokyo
        (OFFICE, "2026-03-19 23:59", False),
        (OFFICE, "2026-03-20 08:59", True),
        (OFFICE, "2026-03-20 09:00", False),  # 18:00
        (OFFICE, "2026-03-21 03:00", False),  # Saturday noon
        (NIGHTS, "2026-03-20 22:00", True),  # Friday evening
        (NIGHTS, "2026-03-21 05:59", True),  # still Friday's night
        (NIGHTS, "2026-03-21 06:00", False),
        (NIGHTS, "2026-03-20 03:00", False),  # Thursday's night
        (NIGHTS, "2026-03-22 03:00", True),  # Saturday's night runs into Sunday
        (NIGHTS, "2026-03-22 22:30", False),  # Sunday evening
        (NIGHTS, "2026-03-29 04:30", True),  # the night in which clocks go forward ends at 06:00 = 05:00 UTC
        (NIGHTS, "2026-03-29 05:00", False),
        (During(()), "2026-03-20 12:00", True),
        (During(("mon",), "00:00", "24:00"), "2026-03-23 23:59", True),
        (During(("mon",), "00:00", "24:00"), "2026-03-24 00:00", False),
    ],
)
def test_hours_in_force(during: During, moment: str, expected: bool) -> None:
    assert in_force(during, at(moment)) is expected
    assert (
        in_force(During(during.days, during.start, during.end, during.tz, otherwise=True), at(moment)) is not expected
    )


@pytest.mark.parametrize(
    ("during", "moment", "expected"),
    [
        (OFFICE, "2026-03-20 08:30", "2026-03-20 09:00"),
        (OFFICE, "2026-03-20 09:00", "2026-03-23 00:00"),
        (NIGHTS, "2026-03-28 23:00", "2026-03-29 05:00"),
        (During(("mon",), "09:05", "09:07"), "2026-03-23 09:06", "2026-03-23 09:07"),
        (During(("mon",), "09:05", "09:07"), "2026-03-23 09:07", "2026-03-30 09:05"),
    ],
)
def test_when_hours_change_next(during: During, moment: str, expected: str) -> None:
    assert next_change_us(during, at(moment)) == at(expected)


def test_hours_that_never_change() -> None:
    assert next_change_us(During(()), at("2026-03-20 12:00")) is None


@pytest.mark.parametrize("now", [float("nan"), float("inf"), -0.5, 1e12])
def test_times_that_no_calendar_knows(now: Any) -> None:
    with pytest.raises(ValueError, match="now must be"):
        microseconds(now)
