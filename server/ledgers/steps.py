"""The steps of a ledger over whatever keeps its rows: `router.admission` says what is right, `Rows` says where it lies.

A store calls these inside one atomic section. They ask for the few rows a step touches and put back what changed, so
a store that works elsewhere (one script in Redis, say) sees here exactly which plain numbers the script must read,
compare and write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from router import accounts, terms, windows
from router.accounts import Standing, Tally
from router.admission import Charge, Estimate, balance, charges, correction, estimate, has_room, retry_after_s
from router.budget import Budget, Scope
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from router.terms import Line, Terms
from router.windows import SECOND_US


class State(IntEnum):
    OPEN = 0
    SETTLED = 1
    RELEASED = 2


class Reservation(NamedTuple):
    """A teacher call that was granted. Kept for a while after its end, so that saying it twice changes nothing."""

    id: str
    state: State
    lease_us: int
    """Until when it occupies a place under a `concurrent` limit."""
    closed_us: int | None
    subject: Subject
    estimate: Estimate
    charges: tuple[Charge, ...]


class Rows(Protocol):
    """What a step reads and writes, all inside one transaction."""

    def standing(self, account: str) -> Standing | None: ...

    def put_standing(self, account: str, standing: Standing) -> None: ...

    def buckets_through(self, account: str, bucket: int) -> Sequence[tuple[int, Tally]]:
        """The buckets up to and with `bucket`."""
        ...

    def drop_buckets_before(self, account: str, bucket: int) -> None: ...

    def oldest_bucket(self, account: str) -> int | None:
        """The oldest bucket in which a call is counted."""
        ...

    def add_to_bucket(self, account: str, bucket: int, more: Tally) -> None: ...

    def reservation(self, id: str) -> Reservation | None: ...

    def put_reservation(self, reservation: Reservation) -> None:
        """Inserts or replaces."""
        ...

    def open_leases(self, scope: Scope, value: str, now_us: int) -> int:
        """Open reservations of this scope whose lease runs beyond `now_us`."""
        ...

    def first_sight(self, id: str) -> bool:
        """Whether a request of this id has not been counted yet; from now on it has."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """The running budget, made ready."""

    version: int
    budget: Budget
    text: str
    terms: tuple[Terms, ...]


NO_BUDGET = Running(0, Budget(), "", ())


def check(budget: Budget, now_us: int) -> None:
    """Raises ValueError for a budget that no ledger could hold: its admissions would fail one by one."""
    try:
        for each in terms.terms_of(budget):
            windows.place(each.window, now_us)
            if each.during is not None:
                windows.next_change_us(each.during, now_us)
    except (ArithmeticError, KeyError, OSError, ValueError) as error:
        raise ValueError(f"this budget cannot be held: {error}") from error


def running(version: int, budget: Budget, text: str) -> Running:
    return Running(version, budget, text, terms.terms_of(budget))


class Admitted(NamedTuple):
    admission: Admission
    reserved: bool
    """Whether this very step made a reservation; false where it had been made before."""


def admit(rows: Rows, budget: Running, ask: Ask, now_us: int) -> Admitted:
    """Counts the request if it is to be counted, and reserves the teacher call under every cap or under none."""
    lines = terms.lines(budget.terms, ask.subject, now_us)
    before = _standings(rows, lines)
    standings = dict(before)
    known = rows.reservation(ask.id) if ask.wants_teacher else None
    counts = ask.counts_request or ask.earlier_requests > 0
    if counts and known is None and rows.first_sight(ask.id):
        if ask.counts_request:
            _add(rows, lines, standings, accounts.ONE_REQUEST)
        if ask.earlier_requests > 0:
            since = ask.earlier_since
            since_us = now_us if since is None else min(windows.microseconds(since), now_us)
            _add_earlier(rows, lines, standings, Tally(requests=ask.earlier_requests), since_us)

    granted, reserved, refusal = True, False, None
    if known is not None:
        # Asked before: nothing is charged again. What was given back cannot be used after all.
        granted = known.state is not State.RELEASED
    elif ask.wants_teacher:
        reserve = estimate(ask)
        refusal = _refusal(rows, lines, standings, ask, reserve.charge, now_us)
        granted = reserved = refusal is None
        if reserved:
            _add(rows, lines, standings, reserve.charge)
            lease_us = now_us + int(ask.lease_s * SECOND_US)
            where = charges(lines, standings)
            rows.put_reservation(Reservation(ask.id, State.OPEN, lease_us, None, ask.subject, reserve, where))

    for account, standing in standings.items():
        if standing is not before[account]:
            rows.put_standing(account, standing)
    line, wait_s = refusal if refusal is not None else (None, None)
    admission = Admission(
        granted=granted,
        refused_by=None if line is None else line.terms.limit,
        retry_after_s=wait_s,
        balances=_balances(rows, lines, standings, ask.subject, now_us),
        budget=budget.budget,
        budget_version=budget.version,
    )
    return Admitted(admission, reserved)


def settle(rows: Rows, settlement: Settlement, now_us: int) -> None:
    """Into the windows it was reserved in; where such a window is over there is nothing left to correct."""
    known = rows.reservation(settlement.id)
    if known is None or known.state is not State.OPEN:
        return
    for charge in known.charges:
        standing = rows.standing(charge.account)
        if standing is None or not standing.first <= charge.bucket <= standing.bucket:
            continue
        delta = correction(charge, known.estimate, settlement)
        if standing.first < standing.bucket:  # a rolling window keeps its buckets
            rows.add_to_bucket(charge.account, charge.bucket, delta)
        rows.put_standing(charge.account, standing._replace(total=standing.total.plus(delta)))
    state = State.RELEASED if settlement.outcome == "released" else State.SETTLED
    rows.put_reservation(known._replace(state=state, closed_us=now_us))


def balances(rows: Rows, budget: Running, subject: Subject, now_us: int) -> tuple[Balance, ...]:
    lines = terms.lines(budget.terms, subject, now_us)
    return _balances(rows, lines, _standings(rows, lines), subject, now_us)


def _standings(rows: Rows, lines: Sequence[Line]) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for line in lines:
        if line.account in found:
            continue
        kept = rows.standing(line.account)
        if kept is None or line.at.first <= kept.first or not _rolls(line.terms):
            found[line.account] = accounts.rolled(kept, line.at)
            continue
        moved = accounts.rolled(kept, line.at, rows.buckets_through(line.account, line.at.first))
        rows.drop_buckets_before(line.account, line.at.first)
        rows.put_standing(line.account, moved)
        found[line.account] = moved
    return found


def _rolls(terms: Terms) -> bool:
    return terms.window is not None and terms.window.rolls


def _add(rows: Rows, lines: Sequence[Line], standings: dict[str, Standing], more: Tally) -> None:
    """Once per account, however many limits look at it."""
    seen = set()
    for line in lines:
        if line.account in seen:
            continue
        seen.add(line.account)
        standing = standings[line.account]
        standings[line.account] = standing._replace(total=standing.total.plus(more))
        if _rolls(line.terms):
            rows.add_to_bucket(line.account, standing.bucket, more)


def _add_earlier(rows: Rows, lines: Sequence[Line], standings: dict[str, Standing], more: Tally, since_us: int) -> None:
    """Requests counted late, into the bucket they came in."""
    for account, line in {line.account: line for line in lines}.items():
        standing, window = standings[account], line.terms.window
        bucket = min(windows.place(window, since_us).bucket, standing.bucket)
        if bucket < standing.first or not windows.in_force(line.terms.during, since_us):
            continue
        standings[account] = accounts.counted_in(standing, bucket, more)
        if _rolls(line.terms):
            rows.add_to_bucket(account, bucket, more)


def _refusal(
    rows: Rows, lines: Sequence[Line], standings: dict[str, Standing], ask: Ask, charge: Tally, now_us: int
) -> tuple[Line, float | None] | None:
    """The refusing cap whose room is known to be furthest away, and how far; None where every cap has room."""
    found: tuple[Line, float | None] | None = None
    for line in lines:
        if not line.terms.refuses:
            continue
        standing = standings[line.account]
        if has_room(line, standing, _open_leases(rows, line, ask.subject, now_us), charge):
            continue
        oldest = rows.oldest_bucket(line.account) if _rolls(line.terms) else None
        wait = retry_after_s(line, oldest, now_us)
        if found is None or (wait is not None and (found[1] is None or wait > found[1])):
            found = line, wait
    return found


def _open_leases(rows: Rows, line: Line, subject: Subject, now_us: int) -> int:
    if line.terms.column != terms.OPEN:
        return 0
    return rows.open_leases(line.terms.scope, terms.scope_value(line.terms.scope, subject), now_us)


def _balances(
    rows: Rows, lines: Sequence[Line], standings: dict[str, Standing], subject: Subject, now_us: int
) -> tuple[Balance, ...]:
    return tuple(
        balance(line, standings[line.account], _open_leases(rows, line, subject, now_us), now_us) for line in lines
    )
