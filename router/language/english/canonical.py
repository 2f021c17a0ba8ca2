"""The English canonical sentence: every limit in the one way that leaves nothing open."""

from router.budget import Budget, During, Limit, Measure, Rule, When, Window
from router.language import tongues
from router.language.english import topics
from router.language.figures import exact, money, share, thousands
from router.language.lexing import escaped

WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAY_NAMES = dict(zip(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), WEEK, strict=True))
SCOPES = {"all": "", "key": " per API key", "user": " per user", "tenant": " per tenant", "model": " per model"}
NOUNS: dict[Measure, str] = {"calls": "teacher call", "tokens": "teacher token", "concurrent": "teacher call"}


def sentences(budget: Budget, explicit: bool) -> list[str]:
    """One sentence per statement. `explicit` names time zones and first days of the week also where they are usual."""
    out = [f"{limit(one, explicit)}." for one in budget.limits]
    if not out:
        out.append("No limit on the teacher.")
    out += [f"{rule(one)}." for one in budget.rules]
    if budget.explore is not None:
        out.append(f"{share(budget.explore)} of requests are decided at random.")
    out.append(f"When the budget is exhausted {_fate(budget)}.")
    return out


def _fate(budget: Budget) -> str:
    if budget.when_exhausted == "reject":
        return "requests are refused with error 429"
    if budget.when_exhausted == "queue":
        return f"requests wait in a queue for up to {_counted(exact(budget.queue_s), 'second')}"
    return "the student answers"


def limit(one: Limit, explicit: bool = False) -> str:
    """The words of one limit, without a full stop."""
    if one.measure == "latency_s":
        goal = "Aim for " if one.kind == "target" else ""
        words = f"{goal}{share(one.quantile or 0.0)} of answers within {_counted(exact(one.at_most), 'second')}"
        return words + SCOPES[one.scope] + _window(one.per, explicit) + _times(one.during, one.per, explicit)
    words = ("Aim for " if one.kind == "target" else "At most ") + _amount(one)
    if one.measure == "concurrent":
        words += " at a time"
    words += SCOPES[one.scope]
    if one.per is None and one.measure in ("calls", "tokens", "usd"):
        words += " in total"
    return words + _window(one.per, explicit) + _times(one.during, one.per, explicit)


def _amount(one: Limit) -> str:
    if one.measure == "share":
        return f"{share(one.at_most)} of requests to the teacher"
    if one.measure == "token_share":
        return f"{share(one.at_most)} of the tokens from the teacher"
    if one.measure == "usd":
        return f"${money(one.at_most)} on the teacher"
    return _counted(thousands(one.at_most), NOUNS[one.measure])


def _counted(number: str, noun: str) -> str:
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def _window(per: Window | None, explicit: bool) -> str:
    if per is None:
        return ""
    if per.unit == "request":
        return " per request on average"
    mark = "" if per.unit in ("second", "minute", "hour") else "rolling " if per.rolling else "calendar "
    words = f" per {mark}{per.unit}" if per.n == 1 else f" per {per.n} {mark}{per.unit}s"
    if per.rolls:
        return words
    if per.unit == "week" and (per.week_start or explicit):
        words += f" starting {WEEK[per.week_start]}"
    return words


def zone(tz: str) -> str:
    """ "in Asia/Tokyo time"; a name without a region stands in quotes, so that nothing else can be read into it."""
    return f" in {tz} time" if "/" in tz or tz == "UTC" else f' in "{tz}" time'


def _times(during: During | None, per: Window | None, explicit: bool) -> str:
    """The hours, and the zones of window and hours: both where they differ, none where they are UTC."""
    windowed = per is not None and not per.rolls and per.unit != "request"
    tz = per.tz if per is not None and windowed else None
    if during is None:
        return zone(tz) if tz and (tz != "UTC" or explicit) else ""
    said = explicit or during.tz != "UTC" or (tz or "UTC") != "UTC"
    first = zone(tz) if tz and said else ""
    return first + _hours(during) + (zone(during.tz) if said else "")


def _hours(during: During) -> str:
    days = {"mon tue wed thu fri": "weekdays", "sat sun": "weekends"}.get(" ".join(during.days))
    if days is None and len(during.days) < 7:
        days = " and ".join(f"{DAY_NAMES[day]}s" for day in during.days)
    hours = f"from {during.start} to {during.end}" if (during.start, during.end) != ("00:00", "24:00") else ""
    when = f"on {days} {hours}".strip() if days else hours
    return f" except {when}" if during.otherwise else f" {when}"


def rule(one: Rule) -> str:
    """The words of one rule, without a full stop."""
    if one.route == "teacher":
        return f"{_requests(one.when)} always ask the teacher while the budget allows"
    return f"{_requests(one.when)} never ask the teacher"


def _requests(when: When) -> str:
    if when.topic is not None:
        return f"Requests about {when.topic if topics.plain(when.topic) else quoted(when.topic)}"
    if when.contains is not None:
        return "Requests that contain code"
    if when.longer_than_tokens is not None:
        return f"Requests longer than {when.longer_than_tokens:,} tokens"
    if when.shorter_than_tokens is not None:
        return f"Requests shorter than {when.shorter_than_tokens:,} tokens"
    if when.tag is not None:
        return f"Requests tagged {quoted(when.tag)}"
    if when.header is not None:
        return f"Requests with the header {quoted(when.header[0])} set to {quoted(when.header[1])}"
    if when.key_group is not None:
        return f"Requests from the key group {quoted(when.key_group)}"
    if when.language in tongues.ENGLISH:
        return f"Requests in {tongues.ENGLISH[when.language]}"
    return f"Requests in the language {quoted(when.language or '')}"


def quoted(value: str) -> str:
    """In quotation marks that read back exactly."""
    return f'"{escaped(value, chr(34))}"'
