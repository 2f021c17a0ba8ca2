"""Limits made ready for the step of admission: which account, which of its numbers, which straight line."""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from router import windows
from router.budget import Budget, During, Limit, Scope, Window
from router.ledger import Subject
from router.windows import Place

REQUESTS, CALLS, TOKENS, NANO_USD, SLOW, OPEN = 0, 1, 2, 3, 4, 5
"""Which number of an account a limit is about; OPEN is not in the tally but the leases that are open."""


class Terms(NamedTuple):
    """One limit, made ready: plain numbers and the stem of its account's name."""

    limit: Limit
    stem: str
    window: Window | None
    during: During | None
    scope: Scope
    column: int
    constant: int
    slope: int
    per_slope: int
    """The slope is `slope` / `per_slope`: two integers, so that a fifth of five requests is exactly one."""
    refuses: bool

    def allowed(self, requests: int) -> int:
        return self.constant + self.slope * requests // self.per_slope


class Line(NamedTuple):
    """One limit as it bears on one subject at one moment. All a store needs in order to do the step."""

    terms: Terms
    account: str
    at: Place


def terms_of(budget: Budget) -> tuple[Terms, ...]:
    """A share of tokens is no account of the ledger: `router.token_share` keeps it, inside answers."""
    return tuple(_terms(limit) for limit in budget.limits if limit.measure != "token_share")


def _terms(limit: Limit) -> Terms:
    column, constant, slope = CALLS, 0, Fraction(0)
    per_request = limit.per is not None and limit.per.unit == "request"
    match limit.measure:
        case "share":
            slope = simplest(limit.at_most)
        case "calls":
            constant = math.floor(limit.at_most)
        case "tokens":
            column = TOKENS
            slope, constant = (simplest(limit.at_most), 0) if per_request else (slope, math.floor(limit.at_most))
        case "usd":
            column = NANO_USD
            nano = math.floor(round(limit.at_most * 1e9, 3))
            slope, constant = (Fraction(nano), 0) if per_request else (slope, nano)
        case "concurrent":
            column, constant = OPEN, math.floor(limit.at_most)
        case "latency_s":
            # Without a quantile it is every single call, which nobody can promise beforehand: nothing is admitted.
            column, slope = SLOW, 1 - simplest(1.0 if limit.quantile is None else limit.quantile)
    return Terms(
        limit=limit,
        stem=_stem(limit),
        window=limit.per,
        during=limit.during,
        scope=limit.scope,
        column=column,
        constant=constant,
        slope=slope.numerator,
        per_slope=slope.denominator,
        refuses=limit.kind == "cap",
    )


def simplest(value: float) -> Fraction:
    """The fraction a person meant by `value`: the simplest that reads as the same float, else rounded down."""
    fraction = Fraction(value).limit_denominator(10**6)
    return fraction if float(fraction) == value else Fraction(math.floor(value * 10**6), 10**6)


def _stem(limit: Limit) -> str:
    """Names an account but for the value of its scope. Kind, measure and amount are no part of it."""
    window, during = limit.per, limit.during
    if window is None or window.unit == "request":
        parts = ["life"]
    elif window.rolls:
        parts = [f"any {window.n} {window.unit}"]
    elif window.unit == "week":
        parts = [f"{window.n} week from {windows.WEEKDAYS[window.week_start]} in {window.tz}"]
    else:
        parts = [f"{window.n} {window.unit} in {window.tz}"]
    if during is not None:
        sign = "not " if during.otherwise else ""
        parts.append(f"{sign}{' '.join(during.days)} {during.start}-{during.end} in {during.tz}")
    if limit.measure == "latency_s":
        parts.append(f"over {limit.at_most!r} s")  # what counts as slow is part of what is counted
    return "; ".join(parts)


LONGEST_NAME = 80


def scope_value(scope: Scope, subject: Subject) -> str:
    """The value of the scope as accounts are named by it. Clients choose some of these: long or odd ones are hashed."""
    if scope == "all":
        return ""
    value: str = getattr(subject, scope)
    if len(value) <= LONGEST_NAME and (value.isascii() or _encodable(value)):
        return value
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _encodable(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def account_name(terms: Terms, subject: Subject) -> str:
    if terms.scope == "all":
        return terms.stem
    return f"{terms.stem}; {terms.scope} {scope_value(terms.scope, subject)}"


def lines(terms: Sequence[Terms], subject: Subject, now_us: int) -> list[Line]:
    """The limits in force for `subject` at this moment."""
    return [
        Line(each, account_name(each, subject), windows.place(each.window, now_us))
        for each in terms
        if each.during is None or windows.in_force(each.during, now_us)
    ]
