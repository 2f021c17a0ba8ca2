"""What a worker and its ledger process say to each other, in `server.frames`.

worker -> child   [[n, verb, deadline, tries, ...], ...]   what was asked in one turn of the worker's loop
child  -> worker  [[n, outcome] or [n, null, "why"], ...]  what one transaction has done

`n` is the worker's number for the step, `deadline` until when it is tried (seconds of the monotonic clock, which all
processes of a host share), `tries` whether it is tried again after errors. A budget is said in full once, as
[0, [version, budget, text]], ahead of the first outcome that is about it; after that, by its version.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from router import budget_codec
from router.admission import MOST_NANO_USD, MOST_TOKENS
from router.budget import Limit
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from server.ledgers import steps
from server.ledgers.sqlite_rows import SqliteRows
from server.ledgers.steps import Admitted, Running

ADMIT, SETTLE, BALANCES, BUDGET, SET_BUDGET = "admit", "settle", "balances", "budget", "set_budget"
ESCAPED = "escaped"
"""A verb and its row as text, where they hold what strict JSON does not."""

Run = Callable[[SqliteRows], Any]


# The worker's side


def admit_row(ask: Ask, now_us: int) -> list[Any]:
    subject = ask.subject
    return [
        now_us, ask.id, subject.key, subject.user, subject.tenant, subject.model, ask.counts_request, ask.wants_teacher,
        min(ask.tokens, MOST_TOKENS), _finite(ask.usd), ask.lease_s, ask.earlier_requests, ask.earlier_since,
    ]  # fmt: skip


def settle_row(settlements: Sequence[Settlement], now_us: int) -> list[Any]:
    return [
        now_us,
        [
            [each.id, each.outcome, min(max(each.tokens, 0), MOST_TOKENS), _finite(each.usd), each.latency_s]
            for each in settlements
        ],
    ]


def subject_row(subject: Subject, now_us: int) -> list[Any]:
    return [now_us, subject.key, subject.user, subject.tenant, subject.model]


def item(n: int, verb: str, deadline: float, *, tries: bool, row: Sequence[Any]) -> bytes:
    """One of the steps of a frame."""
    try:
        return orjson.dumps([n, verb, deadline, tries, *row])
    except TypeError:  # half of a pair of surrogates, say, which is a name like any other
        return orjson.dumps([n, ESCAPED, deadline, tries, verb, json.dumps(row)])


def admitted_of(outcome: Sequence[Any], budgets: dict[int, Running]) -> Admitted:
    version, granted, reserved, refused_by, retry_after_s, balances = outcome
    running = budgets[version]
    return Admitted(
        Admission(
            granted,
            None if refused_by is None else running.terms[refused_by].limit,
            retry_after_s,
            balances_of(balances, running),
            running.budget,
            version,
        ),
        reserved,
    )


def balances_of(rows: Sequence[Sequence[Any]], running: Running) -> tuple[Balance, ...]:
    terms = running.terms
    return tuple([Balance(terms[place].limit, *numbers) for place, *numbers in rows])


def running_of(said: Sequence[Any]) -> Running:
    version, encoded, text = said
    return steps.running(version, budget_codec.decode(encoded), text)


def _finite(usd: float) -> float:
    """Infinity is no JSON; what is above all bounds is cut to the bound by the ledger anyway."""
    return float(MOST_NANO_USD) if usd == math.inf else usd


# The child's side


def run_of(verb: str, row: Sequence[Any]) -> Run:
    """What to do inside the transaction; its result is the outcome as it is said to the worker, after the budget that
    it is about."""
    match verb:
        case "admit":
            return _admit(row)
        case "settle":
            return _settle(row)
        case "balances":
            return _balances(row)
        case "budget":
            return lambda rows: (rows.running(), rows.running().version)
        case "set_budget":
            return _set_budget(row)
        case "escaped":
            return run_of(row[0], json.loads(row[1]))
    raise ValueError(f"no step of a ledger is called {verb!r}")


def said_of(running: Running) -> list[Any]:
    return [running.version, budget_codec.encode(running.budget), running.text]


def _admit(row: Sequence[Any]) -> Run:
    now_us, id, key, user, tenant, model, *asked = row
    ask = Ask(id, Subject(key, user, tenant, model), *asked)

    def run(rows: SqliteRows) -> tuple[Running, list[Any]]:
        running = rows.running()
        admission, reserved = steps.admit(rows, running, ask, rows.tick(now_us))
        refused_by = None if admission.refused_by is None else _place(admission.refused_by, running)
        balances = _rows_of(admission.balances, running)
        return running, [
            running.version, admission.granted, reserved, refused_by, admission.retry_after_s, balances
        ]  # fmt: skip

    return run


def _settle(row: Sequence[Any]) -> Run:
    now_us, said = row
    settlements = [Settlement(*each) for each in said]

    def run(rows: SqliteRows) -> tuple[None, None]:
        moment = rows.tick(now_us)
        for settlement in settlements:
            steps.settle(rows, settlement, moment)
        return None, None

    return run


def _balances(row: Sequence[Any]) -> Run:
    now_us, *subject = row

    def run(rows: SqliteRows) -> tuple[Running, list[Any]]:
        running = rows.running()
        found = steps.balances(rows, running, Subject(*subject), rows.tick(now_us))
        return running, [running.version, _rows_of(found, running)]

    return run


def _set_budget(row: Sequence[Any]) -> Run:
    now_us, encoded, text, by, now = row
    budget = budget_codec.decode(encoded)

    def run(rows: SqliteRows) -> tuple[None, int]:
        rows.tick(now_us)
        return None, rows.put_budget(budget, text, by, now)

    return run


def _rows_of(balances: Sequence[Balance], running: Running) -> list[list[Any]]:
    return [
        [_place(each.limit, running), each.spent, each.allowed, each.requests, each.calls, each.resets_in_s]
        for each in balances
    ]


def _place(limit: Limit, running: Running) -> int:
    """Of a limit among those that the ledger keeps. By the object it is: two limits of a budget may be equal."""
    return next(place for place, each in enumerate(running.terms) if each.limit is limit)
