"""What the promise says, spelled out over the list of everything that happened. Slow, and knows nothing of accounts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from math import floor
from zoneinfo import ZoneInfo

from router.budget import Budget, During, Limit, Window
from router.ledger import Ask, Settlement, Subject

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LENGTH_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 31 * 86400}


def exact(value: float) -> Fraction:
    return Fraction(repr(value))


def local(now: float, tz: str) -> datetime:
    return datetime.fromtimestamp(now, ZoneInfo(tz))


def period(window: Window, now: float) -> int:
    """The number of the calendar window that holds `now`."""
    today = local(now, window.tz).date()
    match window.unit:
        case "day":
            return (today - date(1970, 1, 1)).days // window.n
        case "week":
            return (today - (date(1, 1, 1) + timedelta(days=window.week_start))).days // 7 // window.n
        case _:
            return (today.year * 12 + today.month - 1) // window.n


def covers(during: During | None, now: float) -> bool:
    if during is None:
        return True
    moment = local(now, during.tz)
    found = False
    for back in (0, 1):
        day = moment.date() - timedelta(days=back)
        if during.days and DAYS[day.weekday()] not in during.days:
            continue
        start = _minutes(during.start)
        end = _minutes(during.end)
        if end <= start:
            end += 1440
        clock = moment.hour * 60 + moment.minute + back * 1440
        found = found or start <= clock < end
    return found != during.otherwise


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    return hours * 60 + minutes


@dataclass
class Event:
    at: float
    subject: Subject
    counted_for: frozenset[tuple[object, ...]]
    """The windows some limit of the budget counted at that moment."""
    call: bool
    tokens: int = 0
    usd: float = 0.0
    latency_s: float | None = None
    lease_until: float = 0.0
    open: bool = False


def identity(limit: Limit) -> tuple[object, ...]:
    """Limits with the same identity look at the same spending, before and after a change of the budget."""
    per = None if limit.per is None or limit.per.unit == "request" else limit.per
    return (per, limit.scope, limit.during, limit.at_most if limit.measure == "latency_s" else None)


def same_scope(limit: Limit, one: Subject, other: Subject) -> bool:
    return limit.scope == "all" or getattr(one, limit.scope) == getattr(other, limit.scope)


@dataclass
class Reference:
    """Follows a ledger's answers and says which of them break the promise."""

    budget: Budget = field(default_factory=Budget)
    now: float = 0.0
    events: list[Event] = field(default_factory=list)
    calls: dict[str, Event] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def tick(self, now: float) -> None:
        self.now = max(self.now, now)

    def in_force(self) -> list[Limit]:
        return [limit for limit in self.budget.limits if covers(limit.during, self.now)]

    def asked(self, ask: Ask, granted: bool) -> list[str]:
        """Complaints about the answer to `ask`."""
        known = self.calls.get(ask.id) if ask.wants_teacher else None
        windows = frozenset(identity(limit) for limit in self.in_force())
        if (ask.counts_request or ask.earlier_requests) and known is None and ask.id not in self.counted:
            self.counted.add(ask.id)
            if ask.counts_request:
                self.events.append(Event(self.now, ask.subject, windows, call=False))
            since = min(self.now if ask.earlier_since is None else ask.earlier_since, self.now)
            then = frozenset(identity(limit) for limit in self.in_force() if covers(limit.during, since))
            self.events += [Event(since, ask.subject, then, call=False)] * ask.earlier_requests
        if not ask.wants_teacher:
            return [] if granted else ["an ask that wanted nothing was refused"]
        if known is not None:
            return []
        caps = [limit for limit in self.in_force() if limit.kind == "cap"]
        if not granted:
            tight = any(self._room(limit, ask, slack=Fraction(1, 100)) < 0 for limit in caps)
            return [] if tight else [f"refused with room everywhere: {ask}"]
        broken = [f"{limit} broken by {ask}" for limit in caps if self._room(limit, ask, slack=Fraction(0)) < 0]
        call = Event(
            self.now,
            ask.subject,
            windows,
            call=True,
            tokens=ask.tokens,
            usd=ask.usd,
            lease_until=self.now + ask.lease_s,
            open=True,
        )
        self.events.append(call)
        self.calls[ask.id] = call
        return broken

    def settled(self, settlement: Settlement) -> None:
        call = self.calls.get(settlement.id)
        if call is None or not call.open:
            return
        call.open = False
        if settlement.outcome == "released":
            self.events.remove(call)
        else:
            call.tokens, call.usd, call.latency_s = settlement.tokens, settlement.usd, settlement.latency_s

    def _room(self, limit: Limit, ask: Ask, slack: Fraction) -> Fraction:
        """What is left under `limit` once `ask` is granted. `slack` widens rolling windows to the ledger's harm."""
        calls = [event for event in self._inside(limit, ask.subject, 1 + slack) if event.call]
        requests = sum(not event.call for event in self._inside(limit, ask.subject, 1 - slack))
        at_most = exact(limit.at_most)
        match limit.measure:
            case "share":
                meant = at_most.limit_denominator(1000)  # a third, however many threes the float has
                return floor(meant * requests) - Fraction(len(calls) + 1)
            case "calls":
                return at_most - len(calls) - 1
            case "tokens":
                used = sum(call.tokens for call in calls) + ask.tokens
                return self._times(limit, requests) - used
            case "usd":
                return self._times(limit, requests) - sum((exact(call.usd) for call in calls), exact(ask.usd))
            case "concurrent":
                busy = [
                    event
                    for event in self.events
                    if event.open and event.lease_until > self.now and same_scope(limit, event.subject, ask.subject)
                ]
                return at_most - len(busy) - 1
            case "latency_s":
                slow = [call for call in calls if call.latency_s is None or call.latency_s > limit.at_most]
                return (1 - exact(limit.quantile or 1.0)) * requests - len(slow) - 1

    @staticmethod
    def _times(limit: Limit, requests: int) -> Fraction:
        per_request = limit.per is not None and limit.per.unit == "request"
        return exact(limit.at_most) * (requests if per_request else 1)

    def _inside(self, limit: Limit, subject: Subject, stretch: Fraction) -> Iterable[Event]:
        mine = identity(limit)
        for event in self.events:
            if mine in event.counted_for and same_scope(limit, event.subject, subject):
                if limit.per is None or limit.per.unit == "request":
                    yield event
                elif not limit.per.rolls:
                    if period(limit.per, event.at) == period(limit.per, self.now):
                        yield event
                elif self.now - event.at < limit.per.n * LENGTH_S[limit.per.unit] * stretch:
                    yield event
