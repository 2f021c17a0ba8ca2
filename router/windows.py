"""Which stretch of time a limit counts over, at a given moment. Whole microseconds since the epoch throughout.

A *calendar* window is one bucket that starts where the window starts. A *rolling* window is a ring of `SUB_BUCKETS`
narrow buckets: a bucket's spending counts until the whole bucket has left the window, so that the promise "no more
than n in any hour" is never broken and at most one bucket in `SUB_BUCKETS` is wasted. A *life* is one bucket for ever.
"""

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.budget import During, Window

SECOND_US = 1_000_000
QUARTER_US = 900 * SECOND_US
MINUTE_US = 60 * SECOND_US
SUB_BUCKETS = 200

ROLLING_S: dict[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    # The longest month, so that "in any month" holds whichever month is meant.
    "month": 31 * 86_400,
}
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EPOCH_DAY = date(1970, 1, 1).toordinal()
FIRST_S = -2_208_988_800
"""1900. Windows of many centuries begin here and end at `LAST_S`, lest they run out of calendar."""
LAST_S = 221_845_392_000
"""The year 9000."""
NEVER_US = 2**62
"""Later than any moment; still a 64-bit integer."""


class Place(NamedTuple):
    """Where a moment falls in a window."""

    bucket: int
    """The bucket an event at this moment is counted in."""
    first: int
    """The oldest bucket that still counts."""
    end_us: int | None
    """When everything counted at this moment will have left the window; None: never."""


LIFE = Place(0, 0, None)


def microseconds(now: float) -> int:
    """Raises ValueError for a time no calendar knows."""
    if not 0 <= now < LAST_S:
        raise ValueError(f"now must be seconds since 1970 and before the year 9000, got {now!r}")
    return int(now * SECOND_US)


def place(window: Window | None, now_us: int) -> Place:
    """`None` and "per request" count over the budget's whole life."""
    if window is None or window.unit == "request":
        return LIFE
    if window.rolls:
        length = rolling_length_us(window)
        width = sub_bucket_us(window)
        bucket = now_us // width
        return Place(bucket, (now_us - length) // width, min((bucket + 2) * width + length, NEVER_US))
    start, end = calendar_span(window, now_us)
    return Place(start, start, end)


def rolling_length_us(window: Window) -> int:
    return window.n * ROLLING_S[window.unit] * SECOND_US


def sub_bucket_us(window: Window) -> int:
    return -(-rolling_length_us(window) // SUB_BUCKETS)


def bucket_leaves_us(window: Window, bucket: int) -> int:
    """The moment from which a rolling window's `bucket` no longer counts."""
    return (bucket + 1) * sub_bucket_us(window) + rolling_length_us(window)


def calendar_span(window: Window, now_us: int) -> tuple[int, int]:
    """[start, end) of the calendar window that holds `now_us`."""
    # Zones shift by quarters of an hour, so a quarter rarely holds a boundary; where one does, step on from it.
    quarter = now_us - now_us % QUARTER_US
    start, end = _span(window, quarter)
    while now_us >= end:
        start, end = _span(window, end)
    return start, end


@lru_cache(maxsize=1024)
def _span(window: Window, now_us: int) -> tuple[int, int]:
    zone = ZoneInfo(window.tz)
    index = _index(window, datetime.fromtimestamp(now_us // SECOND_US, zone).date())
    start, end = _start_us(window, index, zone), _start_us(window, index + 1, zone)
    while now_us < start:  # a clock set back over midnight reads the old date again
        index -= 1
        start, end = _start_us(window, index, zone), start
    while now_us >= end:  # a whole day that a zone skipped
        index += 1
        start, end = end, _start_us(window, index + 1, zone)
    return start, end


def _index(window: Window, day: date) -> int:
    if window.unit == "day":
        return (day.toordinal() - EPOCH_DAY) // window.n
    if window.unit == "week":
        # Ordinal 1 is a Monday.
        return (day.toordinal() - 1 - window.week_start) // 7 // window.n
    return (day.year * 12 + day.month - 1) // window.n


def _start_us(window: Window, index: int, zone: ZoneInfo) -> int:
    if window.unit == "month":
        year, month = divmod(index * window.n, 12)
        ordinal = date(year, month + 1, 1).toordinal() if 1900 <= year < 9000 else year * 365
    elif window.unit == "week":
        ordinal = index * window.n * 7 + 1 + window.week_start
    else:
        ordinal = index * window.n + EPOCH_DAY
    seconds = (ordinal - EPOCH_DAY) * 86_400
    if not FIRST_S < seconds < LAST_S:
        return (FIRST_S if seconds <= FIRST_S else LAST_S) * SECOND_US
    return _midnight(date.fromordinal(ordinal), zone) * SECOND_US


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first second, since the epoch, at which the zone's clocks read `day` or later."""
    wall = datetime(day.year, day.month, day.day)
    before = int(wall.replace(tzinfo=zone, fold=0).timestamp())
    after = int(wall.replace(tzinfo=zone, fold=1).timestamp())
    if before <= after:  # the usual day, or midnight twice: the first one counts
        return before
    # Midnight was skipped: the day begins where the clocks jumped.
    low, high = after, before
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= wall:
            high = middle
        else:
            low = middle
    return high


def in_force(during: During | None, now_us: int) -> bool:
    return during is None or _in_force(during, now_us // MINUTE_US)


@lru_cache(maxsize=256)
def _in_force(during: During, minute: int) -> bool:
    local = datetime.fromtimestamp(minute * 60, ZoneInfo(during.tz))
    clock = local.hour * 60 + local.minute
    start, end = clock_minutes(during.start), clock_minutes(during.end)
    today = _on(during, local.date())
    if start < end:
        inside = today and start <= clock < end
    else:  # past midnight: the evening belongs to its own day, the small hours to the day before
        inside = (today and clock >= start) or (_on(during, local.date() - timedelta(days=1)) and clock < end)
    return inside != during.otherwise


def _on(during: During, day: date) -> bool:
    return not during.days or WEEKDAYS[day.weekday()] in during.days


def clock_minutes(text: str) -> int:
    """ "09:30" -> 570; "24:00" -> 1440."""
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def next_change_us(during: During, now_us: int) -> int | None:
    """When `in_force` next changes, to the minute, within eight days; None where it never does."""
    state = in_force(during, now_us)
    minute = now_us // MINUTE_US
    # Zones shift by quarters of an hour, so within an hour only these minutes can be boundaries.
    named = (0, clock_minutes(during.start), clock_minutes(during.end))
    offsets = sorted({(minutes + shift) % 60 for minutes in named for shift in (0, 15, 30, 45)})
    hour = minute - minute % 60
    for base in range(hour, hour + 8 * 24 * 60, 60):
        for offset in offsets:
            candidate = base + offset
            if candidate > minute and _in_force.__wrapped__(during, candidate) != state:
                return candidate * MINUTE_US
    return None
