"""A budget as frozen values. Words become budgets in `router.language`; `router.ledger` holds them."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cap", "target"]
Measure = Literal["share", "token_share", "calls", "tokens", "usd", "concurrent", "latency_s"]
"""`share` is of requests; `token_share` of the tokens of answers, for a teacher that helps inside them."""
Scope = Literal["all", "key", "user", "tenant", "model"]
Unit = Literal["request", "second", "minute", "hour", "day", "week", "month"]
Route = Literal["student", "teacher"]
WhenExhausted = Literal["student", "reject", "queue"]

CALENDAR_UNITS: tuple[Unit, ...] = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Window:
    """The time a limit counts over: `n` units.

    Second, minute and hour always roll. Day, week and month are calendar windows in `tz` unless `rolling`.
    `request` means "per request on average" and is no window of time.
    """

    n: int
    unit: Unit
    rolling: bool = False
    tz: str = "UTC"
    week_start: int = 0
    """0 Monday .. 6 Sunday; only weeks read it."""

    @property
    def rolls(self) -> bool:
        return self.rolling or self.unit in ("second", "minute", "hour")


@dataclass(frozen=True, slots=True)
class During:
    """The hours a limit is in force: on `days` (mon..sun), from `start` up to `end` ("HH:MM"), in zone `tz`.

    `end` <= `start` runs past midnight. `otherwise` turns it into its complement.
    """

    days: tuple[str, ...]
    start: str = "00:00"
    end: str = "24:00"
    tz: str = "UTC"
    otherwise: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    kind: Kind
    measure: Measure
    at_most: float
    per: Window | None = None
    """None: the budget's whole life."""
    scope: Scope = "all"
    during: During | None = None
    quantile: float | None = None
    """Only with `latency_s`: 0.95 for "p95 under 2 seconds"."""


@dataclass(frozen=True, slots=True)
class When:
    """The condition of a rule; exactly one field is set."""

    topic: str | None = None
    contains: Literal["code"] | None = None
    longer_than_tokens: int | None = None
    shorter_than_tokens: int | None = None
    tag: str | None = None
    header: tuple[str, str] | None = None
    """(name in lower case, value)"""
    key_group: str | None = None
    language: str | None = None
    """ISO 639-1 code."""


@dataclass(frozen=True, slots=True)
class Rule:
    route: Route
    when: When


@dataclass(frozen=True, slots=True)
class Budget:
    limits: tuple[Limit, ...] = ()
    rules: tuple[Rule, ...] = ()
    when_exhausted: WhenExhausted = "student"
    queue_s: float = 30.0
    """The longest wait when `when_exhausted` is `queue`."""
    explore: float | None = None
    """The share of requests decided by a coin, where the sentence says so ("try 1% at random")."""
