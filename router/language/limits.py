"""One clause to one limit: which measure, how much, over which window, for whom and when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar, cast

from router.budget import CALENDAR_UNITS, During, Kind, Limit, Measure, Scope, Unit, Window
from router.language.characters import Normal
from router.language.clauses import Clause
from router.language.messages import unreadable
from router.language.pieces import (
    Amount,
    Bound,
    Days,
    Duration,
    Each,
    Flag,
    Hours,
    Model,
    Per,
    Piece,
    Quantile,
    Ratio,
    WeekStart,
    Word,
    Zone,
)
from router.language.unreadable import Unreadable

EVERY_DAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LONGEST_WINDOW = 1_000_000
LARGEST = Fraction(10) ** 15
_P = TypeVar("_P", bound=Piece)


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for the whole text."""

    normal: Normal
    language: str
    timezone: str
    week_start: int
    rates: Mapping[str, float]

    def error(self, code: str, at: Piece | Clause | tuple[int, int], **values: object) -> Unreadable:
        span = at if isinstance(at, tuple) else at.at if isinstance(at, Clause) else (at.start, at.end)
        text = self.normal.text[slice(*span)]
        span = (
            (span[0] + len(text) - len(text.lstrip()), span[1] - len(text) + len(text.rstrip()))
            if text.strip()
            else span
        )
        return unreadable(self.language, code, self.normal.source, self.normal.span(*span), **values)


@dataclass(frozen=True, slots=True)
class Said:
    """A limit with the place where it was said, for the errors."""

    limit: Limit
    at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Led:
    """What a part set off at the front says for all limits of its sentence."""

    per: Per | None = None
    each: Each | None = None
    days: Days | None = None
    hours: Hours | None = None
    outside: bool = False
    zone: Zone | None = None


_SORTS = (Amount, Bound, Ratio, Per, Each, Days, Hours, Zone, WeekStart, Quantile, Duration, Model)
_FLAGS: frozenset[Flag] = frozenset(
    {
        "never",
        "always",
        "only",
        "verb",
        "answer",
        "calls",
        "requests",
        "tokens",
        "share",
        "to",
        "otherwise",
        "outside",
        "concurrent",
        "average",
        "total",
        "latency",
    }
)


def refuse_strangers(clause: Clause, sorts: tuple[type[Piece], ...], flags: frozenset[Flag], setting: Setting) -> None:
    """Raises where the clause holds a piece that its kind of statement would pass over: nothing is read and dropped."""
    for piece in clause.pieces:
        known = piece.flag in flags if isinstance(piece, Word) else isinstance(piece, sorts)
        if not known:
            raise setting.error("unclear", clause)


def only(clause: Clause, sort: type[_P], code: str, setting: Setting) -> _P | None:
    """The one piece of this sort, or None. Two of them are an error that quotes the second."""
    found = [piece for piece in clause.pieces if isinstance(piece, sort)]
    if len(found) > 1:
        raise setting.error(code, found[1])
    return found[0] if found else None


def read_limit(clause: Clause, before: Limit | None, led: Led, setting: Setting) -> Limit:
    """The limit that `clause` says. `before`: the limit said just before, whose words a bare number takes over."""
    refuse_strangers(clause, _SORTS, _FLAGS, setting)
    if clause.join == "or":
        raise setting.error("or", clause)
    for model in clause.pieces:
        if isinstance(model, Model) and model.name == "student":
            raise setting.error("student_limit", clause)
    flags = clause.flags
    clause = _windowed(clause, setting)
    measure, value, quantile, bare = _what(clause, before, setting)
    kind = _kind(clause, before, setting)
    takes_over = before is not None and before.measure == measure and (bare or "otherwise" in flags)
    # "300 calls a day, but only 10 calls per user": a lifetime would have been said.
    takes_window = takes_over or (before is not None and before.measure == measure and clause.join is not None)
    scope: Scope
    each = only(clause, Each, "two_scopes", setting)
    if each is None and not ("total" in flags and clause.has(Per)):  # "overall, 2,000 a day" is said of everybody
        each = led.each
    scope = each.scope if each else before.scope if takes_over and before and "total" not in flags else "all"
    during = _during(clause, before, led, setting)
    per = _per(clause, led, measure, setting)
    if per is None and takes_window and before and "total" not in flags:
        per = before.per
    days = only(clause, Days, "two_times", setting) or led.days
    if per is None and days and days.each and measure not in ("concurrent", "latency_s") and "total" not in flags:
        per = Window(1, "day", tz=_zone(clause, led, Per, setting))
    if (measure == "concurrent") < ("concurrent" in flags) or (
        "tokens" in flags and measure not in ("tokens", "token_share")
    ):
        raise setting.error("unclear", clause)
    if measure == "token_share" and (per, scope, during) != (None, "all", None):
        raise setting.error("token_share", clause)
    if measure == "concurrent" and per is not None:
        raise setting.error("window", next((piece for piece in clause.pieces if isinstance(piece, Per)), clause))
    ratio = only(clause, Ratio, "two_windows", setting)
    if ratio and measure in ("tokens", "usd"):
        if ratio.requests <= 0 or per is not None:
            raise setting.error("window", ratio)
        value, per = value / ratio.requests, Window(1, "request")
    if "average" in flags and not (per and per.unit == "request"):
        raise setting.error("average", next(p for p in clause.pieces if isinstance(p, Word) and p.flag == "average"))
    return Limit(kind, measure, float(value), per, scope, during, None if quantile is None else float(quantile))


def _what(clause: Clause, before: Limit | None, setting: Setting) -> tuple[Measure, Fraction, Fraction | None, bool]:
    """Measure, value, quantile, and whether the number was bare. Refuses values that no limit can have."""
    quantile = only(clause, Quantile, "two_amounts", setting)
    duration = only(clause, Duration, "two_amounts", setting)
    amount = only(clause, Amount, "two_amounts", setting)
    ratio = only(clause, Ratio, "two_windows", setting)
    flags = clause.flags
    if duration is not None and (quantile or (amount and amount.measure == "share" and _of_answers(clause))):
        share = quantile.value if quantile else cast(Amount, amount).value
        if quantile and amount:
            raise setting.error("two_amounts", amount)
        if not 0 < share <= 1:
            raise setting.error("quantile", quantile or cast(Amount, amount))
        if duration.seconds <= 0:
            raise setting.error("latency_zero", duration)
        return "latency_s", duration.seconds, share, False
    if quantile is not None:
        raise setting.error("no_amount", clause)
    if (duration is not None and amount is not None) or (amount is not None and "latency" in flags):
        raise setting.error("latency", clause)
    if amount is None:
        raise setting.error("latency" if "latency" in flags else "no_noun_unit", duration or clause)
    measure, value = amount.measure, amount.value
    bare = measure is None
    if ratio and measure in (None, "calls"):
        if ratio.requests <= 0:
            raise setting.error("window", ratio)
        measure, value, bare = "share", value / ratio.requests, False
    elif "concurrent" in flags and measure in (None, "calls"):
        measure, bare = "concurrent", False
    elif measure is None:
        measure = _by_noun(clause) or (before.measure if before and before.measure != "latency_s" else None)
        bare = _by_noun(clause) is None
        if measure is None:
            raise setting.error("no_measure", amount)
    elif ratio and measure == "share":
        raise setting.error("two_windows", ratio)
    elif measure == "share" and "tokens" in flags and "requests" not in flags:
        measure = "token_share"
    if measure == "usd" and amount.currency not in (None, "USD"):
        rate = setting.rates.get(amount.currency)
        if rate is None:
            raise setting.error("currency", amount, currency=amount.currency)
        value *= Fraction(str(rate))
    if value < 0:
        raise setting.error("negative", amount)
    if measure in ("share", "token_share") and value > 1:
        raise setting.error("share_high", amount)
    if value > LARGEST:
        raise setting.error("too_big", amount)
    if measure in ("calls", "tokens", "concurrent") and value.denominator != 1:
        raise setting.error("not_whole", amount, what=measure)
    return measure, value, None, bare


def _of_answers(clause: Clause) -> bool:
    """True where a share with a length of time speaks of latency: by its nouns, or because it is "under" that time."""
    said = any(isinstance(piece, Bound) and piece.way == "under" for piece in clause.pieces)
    return said or bool(clause.flags & {"answer", "latency"})


def _windowed(clause: Clause, setting: Setting) -> Clause:
    """ "10 calls within 5 minutes" and 「5分に10回」: where an amount is counted, a length of time is its window."""
    amount = next((piece for piece in clause.pieces if isinstance(piece, Amount)), None)
    if amount is None or not clause.has(Duration) or clause.has(Quantile) or clause.flags & {"answer", "latency"}:
        return clause
    out: list[Piece] = []
    for place, piece in enumerate(clause.pieces):
        if not isinstance(piece, Duration):
            out.append(piece)
        elif setting.language == "ja":
            if amount.measure == "share" and any(
                isinstance(after, Bound) for after in clause.pieces[place + 1 : place + 2]
            ):
                raise setting.error("latency", clause)  # 「2秒以内に95%」
            out.append(Per(piece.start, piece.end, piece.n, piece.unit))
        elif out and isinstance(out[-1], Bound) and out[-1].way == "within" and amount.measure != "share":
            out[-1] = Per(out[-1].start, piece.end, piece.n, piece.unit)
        elif amount.measure == "share":
            out.append(piece)
        else:
            raise setting.error("unclear", clause)
    return replace(clause, pieces=tuple(out))


def _by_noun(clause: Clause) -> Measure | None:
    """What a bare number counts by the nouns of its clause: "teacher calls: at most 200 a day"."""
    flags = clause.flags
    if "share" in flags:
        return "token_share" if "tokens" in flags else "share"
    if "tokens" in flags:
        return "tokens"
    return "calls" if flags & {"calls", "requests"} else None


def _kind(clause: Clause, before: Limit | None, setting: Setting) -> Kind:
    bounds = [piece for piece in clause.pieces if isinstance(piece, Bound)]
    ways = {bound.way for bound in bounds}
    never = next((piece for piece in clause.pieces if isinstance(piece, Word) and piece.flag == "never"), None)
    if never and "always" in clause.flags:
        raise setting.error("unclear", clause)
    if "floor" in ways or (never is None and "over" in ways) or (never and ways & {"under"}):
        raise setting.error("floor", bounds[0])
    if never and "over" not in ways:
        raise setting.error("over_target" if bounds else "unclear", clause)
    if "target" in ways:
        return "target"
    if ways or "only" in clause.flags:
        return "cap"
    return before.kind if before and clause.join is not None else "cap"


def _per(clause: Clause, led: Led, measure: Measure, setting: Setting) -> Window | None:
    per = only(clause, Per, "two_windows", setting)
    start = only(clause, WeekStart, "two_windows", setting)
    if per is None and led.per and measure not in ("concurrent", "latency_s") and led.per.unit != "request":
        per = led.per
    if per is None:
        if start:
            raise setting.error("alone", start)
        return None
    if per.unit == "request":
        if measure not in ("tokens", "usd"):
            raise setting.error("request_only", per)
        return Window(1, "request")
    return window(per, _zone(clause, led, Per, setting), start, setting)


def window(per: Per, tz: str, start: WeekStart | None, setting: Setting) -> Window:
    """The window in normal form: `rolling`, `tz` and `week_start` are set only where they make a difference."""
    n, unit = per.n, per.unit
    for smaller, many in (("minute", 60), ("second", 60)):
        if n.denominator != 1 and unit in ("minute", "hour") and smaller != unit:
            n, unit = n * many, cast(Unit, smaller)
    if unit == "millisecond" or n.denominator != 1 or not 1 <= n <= LONGEST_WINDOW:
        raise setting.error("window", per)
    if unit not in CALENDAR_UNITS:
        if per.mark == "calendar":
            raise setting.error("calendar", per)
        return Window(int(n), unit)
    if per.mark == "rolling":
        return Window(int(n), unit, rolling=True)
    first = (start.day if start else setting.week_start) if unit == "week" else 0
    if start and unit != "week":
        raise setting.error("alone", start)
    return Window(int(n), unit, tz=tz, week_start=first)


def _zone(clause: Clause, led: Led, sort: type[Piece], setting: Setting) -> str:
    """The zone of the window (sort Per) or of the hours: the one said beside it, else the only one, else the text's."""
    zones = [piece for piece in clause.pieces if isinstance(piece, Zone)]
    if len(zones) > 1:
        return _beside(clause, sort, setting, zones)
    return zones[0].name if zones else led.zone.name if led.zone else setting.timezone


def _beside(clause: Clause, sort: type[Piece], setting: Setting, zones: list[Zone]) -> str:
    marks = [piece for piece in clause.pieces if isinstance(piece, (Per, Days, Hours, Zone))]
    if setting.language == "ja":
        marks.reverse()  # a zone stands before its noun there
    owner: type[Piece] | None = None
    for piece in marks:
        if isinstance(piece, Zone):
            if owner is sort:
                return piece.name
        else:
            owner = Per if isinstance(piece, Per) else Hours
    if len(zones) > 2 or sort is Per or owner is None:
        raise setting.error("two_times", zones[1])
    return setting.timezone


def _during(clause: Clause, before: Limit | None, led: Led, setting: Setting) -> During | None:
    flags = clause.flags
    days = only(clause, Days, "two_times", setting)
    hours = only(clause, Hours, "two_times", setting)
    if "otherwise" in flags:
        if before is None or before.during is None or days or hours:
            raise setting.error(
                "otherwise", next(p for p in clause.pieces if isinstance(p, Word) and p.flag == "otherwise")
            )
        return replace(before.during, otherwise=not before.during.otherwise)
    outside = "outside" in flags
    if days is None and hours is None:
        if outside:
            raise setting.error(
                "otherwise", next(p for p in clause.pieces if isinstance(p, Word) and p.flag == "outside")
            )
        days, hours, outside = led.days, led.hours, led.outside
    return during(days, hours, outside, _zone(clause, led, Hours, setting), setting)


def during(days: Days | None, hours: Hours | None, outside: bool, tz: str, setting: Setting) -> During | None:
    """The hours in force, or None where they are all hours."""
    if days is None and hours is None:
        return None
    first, last = (hours.first, hours.last) if hours else (0, 1440)
    if hours and -2 in (first, last):
        raise setting.error("half_day", hours)
    if hours and (not 0 <= first <= 1440 or not 0 <= last <= 1440):
        raise setting.error("time", hours)
    first, last = first % 1440, last or 1440
    chosen = days.days if days else EVERY_DAY
    everything = chosen == EVERY_DAY and (first, last) == (0, 1440)
    if (hours and first == last) or (everything and outside):
        raise setting.error("time", cast(Any, hours or days))
    if everything:
        return None
    return During(chosen, _clock(first), _clock(last), tz, outside)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
