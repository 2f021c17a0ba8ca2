"""Japanese days and clock times: 「平日9時から18時まで」「月・水・金曜」「午後5時半以降」."""

import re

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KANJI_DAYS = "月火水木金土日"
_DAY = r"(?:[月火水木金土日]曜日?|平日|週末|土日|営業日)"
DAY_LIST = re.compile(
    rf"(?P<each>毎週)?(?P<days>{_DAY}(?:(?:から|~|-|、|・|と|や|および|または|か) ?{_DAY}){{0,9}}"
    r"(?:まで(?!\d))?(?:の間)?"
    rf"|[月火水木金土日](?:から|~|-)[月火水木金土日](?:曜日?)?(?:まで)?(?![一-龯])"
    rf"|[月火水木金土日](?:・[月火水木金土日])+(?:曜日?)?)"
)
_DAY_ONE = re.compile(
    r"(?P<join>から|~|-)?(?P<day>平日|営業日|週末|土日|[月火水木金土日](?=曜|から|~|-|・|まで|$|の間))(?:曜日?)?"
)
_CLOCK_TEXT = (
    r"(?:(?P<half{0}>午前|午後|深夜|夜|"
    r"朝)?(?:(?P<hour{0}>\d{{1,2}})時(?!間)(?:(?P<minute{0}>\d{{1,2}})分(?!間)|"
    r"(?P<thirty{0}>半))?"
    r"|(?P<digital{0}>\d{{1,2}}:\d{{2}}))|(?P<noon{0}>正午)|(?P<midnight{0}>真夜中))"
)
HOURS = re.compile(
    rf"{_CLOCK_TEXT.format('a')} ?(?:から|~|-|より) ?(?:翌日?の?)?{_CLOCK_TEXT.format('b')}(?:まで)?(?:の間)?(?:に|は)?"
)
AFTER = re.compile(rf"{_CLOCK_TEXT.format('a')}(?P<way>以降|以後|から|まで|以前|より前|前)")
CLOCK = re.compile(_CLOCK_TEXT.format("a"))


def days(written: str) -> tuple[str, ...]:
    chosen: set[str] = set()
    last: int | None = None
    for match in _DAY_ONE.finditer(written):
        word = match["day"]
        if word in ("平日", "営業日"):
            chosen.update(DAYS[:5])
            last = None
        elif word in ("週末", "土日"):
            chosen.update(DAYS[5:])
            last = None
        else:
            day = KANJI_DAYS.index(word)
            if match["join"] and last is not None:
                chosen.update(DAYS[(last + step) % 7] for step in range((day - last) % 7 + 1))
            else:
                chosen.add(DAYS[day])
            last = day
    return tuple(day for day in DAYS if day in chosen)


def either_half(match: re.Match[str], first: int, last: int) -> bool:
    """True for 「9時から5時」 and 「午後1時から5時」, where the second hour may be before or after noon."""
    if match["halfb"] or not match["hourb"] or not 0 <= last < first:
        return False
    return last <= 720 and (first <= 720 if not match["halfa"] else last + 720 > first)


def minutes(match: re.Match[str], which: str) -> int:
    """Minutes since midnight; -1 for a time that no clock shows."""
    if match[f"noon{which}"]:
        return 720
    if match[f"midnight{which}"]:
        return 0
    digital = match[f"digital{which}"]
    hour, minute = (
        map(int, digital.split(":"))
        if digital
        else (int(match[f"hour{which}"]), 30 if match[f"thirty{which}"] else int(match[f"minute{which}"] or 0))
    )
    half = match[f"half{which}"]
    if (half in ("午後", "夜") and hour <= 12) or (half in ("午前", "朝") and hour > 12):
        if half in ("午前", "朝"):
            return -1
        hour = hour % 12 + 12
    if minute > 59 or hour > 24 or (hour == 24 and minute):
        return -1
    return 60 * hour + minute
