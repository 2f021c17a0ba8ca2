"""Whether limits agree with each other: no target above its cap, nothing limited twice."""

from router.budget import Limit, Window
from router.language.canonical import describe_limit
from router.language.limits import Said, Setting

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000}


def check(said: list[Said], setting: Setting) -> tuple[Limit, ...]:
    """The limits without repetitions. Raises Unreadable about the later of two that cannot both be meant."""
    kept: list[Said] = []
    for entry in said:
        if any(entry.limit == other.limit for other in kept):
            continue
        for other in kept:
            code = clash(other.limit, entry.limit)
            if code:
                words = [describe_limit(limit.limit, setting.language) for limit in (other, entry)]
                raise setting.error(code, _blamed(other, entry).at, first=words[0], second=words[1])
        kept.append(entry)
    return tuple(entry.limit for entry in kept)


def _blamed(first: Said, second: Said) -> Said:
    """Of a target and its cap the target is quoted, else what was said later."""
    return first if first.limit.kind == "target" != second.limit.kind else second


def clash(first: Limit, second: Limit) -> str | None:
    """The name of the error in saying both, or None."""
    if first.measure != second.measure or first.quantile != second.quantile or first.during != second.during:
        return None
    if first.kind == second.kind:
        return "two_limits" if (first.per, first.scope) == (second.per, second.scope) else None
    cap, target = (first, second) if first.kind == "cap" else (second, first)
    if target.at_most <= cap.at_most or cap.scope not in (target.scope, "all"):
        return None
    if target.per == cap.per:
        return "contradiction" if target.scope == cap.scope or _adds_up(cap) else None
    return "contradiction" if _adds_up(cap) and _within(target.per, cap.per) else None


def _adds_up(limit: Limit) -> bool:
    """True for measures of which a part is never more than the whole: counts, not shares and averages."""
    return limit.measure in ("calls", "tokens", "usd", "concurrent") and not (limit.per and limit.per.unit == "request")


def _within(short: Window | None, long: Window | None) -> bool:
    """True where everything spent in one `short` window is surely spent in one `long` window too."""
    if short is None or short.unit == "request":
        return False
    if long is None:
        return True
    return long.unit != "request" and short.n * _SECONDS[short.unit] <= long.n * _SECONDS[long.unit] and not long.rolls
