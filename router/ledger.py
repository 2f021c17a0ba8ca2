"""What a budget has spent: the values that go in and come out. Stores live in `server.ledgers`.

`router.accounts` counts, `router.terms` makes limits ready, `router.admission` judges; all pure arithmetic.

Every limit is one line of integer arithmetic on an account:

    spent + reserved + estimate  <=  constant + slope x requests

calls, tokens, usd     constant = at_most, slope = 0          (usd in whole nano-dollars, rounded up)
share                  constant = 0, slope = at_most, and a teacher call weighs 1
tokens, usd a request  constant = 0, slope = at_most
concurrent             constant = at_most, and what is spent are the open leases
latency_s, quantile q  slope = 1 - q; a call weighs 1 until it is known to have been quick enough

An account is a window, a scope and the hours it counts in; it counts requests, calls, tokens and money side by side
and knows nothing of kinds and amounts. So a budget that changes finds what was spent in the windows that go on.
Only caps refuse. Targets are counted and shown, and `router.pacing` steers by them.
"""

from dataclasses import dataclass
from typing import Literal

from policies.values import quickly_made
from router.budget import Budget, Limit


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose request it is: the value of each scope."""

    key: str = ""
    user: str = ""
    tenant: str = ""
    model: str = ""


@quickly_made
@dataclass(frozen=True)
class Ask:
    """One step of admission: count the request, or reserve a teacher call, or both in one.

    `tokens` and `usd` are upper estimates of what the teacher call will be billed. `lease_s` bounds how long a
    reservation occupies a place under a `concurrent` limit; what it has charged elsewhere stays charged.
    """

    id: str
    """Unique to this request and reservation: counting, asking or settling twice with one id changes nothing.

    Asked again it is granted as before; an id whose reservation was released is refused.
    """
    subject: Subject
    counts_request: bool
    wants_teacher: bool
    tokens: int = 0
    usd: float = 0.0
    lease_s: float = 600.0
    earlier_requests: int = 0
    """Requests of the same subject that wanted no teacher call and are counted, late, together with this one."""
    earlier_since: float | None = None
    """When the first of them came. They count as of then, and not at all in a window that has ended since: counting
    late may let a share grow later, but never lend one day's requests to the next."""


@quickly_made
@dataclass(frozen=True)
class Balance:
    """Where one limit stands for one subject at one moment, in the limit's own measure."""

    limit: Limit
    spent: float
    """Settled and reserved together."""
    allowed: float
    """What may be spent now: `at_most`, or `at_most` x requests so far for a share or a per-request limit."""
    requests: int
    """Requests counted in the limit's window."""
    calls: int
    """Teacher calls counted in the limit's window."""
    resets_in_s: float | None = None
    """Seconds until the calendar window ends; None for rolling and whole-life limits."""


@quickly_made
@dataclass(frozen=True)
class Admission:
    """The ledger's answer to one Ask."""

    granted: bool
    """True also for an Ask that wanted no teacher call."""
    refused_by: Limit | None
    retry_after_s: float | None
    """When the refusing limit may have room again, where that can be known."""
    balances: tuple[Balance, ...]
    """All limits in force for this subject after this step."""
    budget: Budget
    """The budget that was in force in this very step."""
    budget_version: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a teacher call, once reserved, has really cost.

    `outcome` `released`: it billed nothing and counts nothing.
    """

    id: str
    outcome: Literal["settled", "released"]
    tokens: int = 0
    usd: float = 0.0
    latency_s: float | None = None
