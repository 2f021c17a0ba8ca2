"""Where the ledger lives. All stores keep one contract; `tests/server/ledgers/conformance.py` holds them to it."""

from collections.abc import Sequence
from typing import Protocol

from router.budget import Budget
from router.ledger import Admission, Ask, Balance, Settlement, Subject


class LedgerUnavailable(Exception):
    """The store could not be reached, or did not answer within its deadline."""


class Ledger(Protocol):
    """All steps are atomic over all limits, across every process that shares the store."""

    async def admit(self, ask: Ask, now: float) -> Admission:
        """Counts and reserves in one step. Concurrent calls may be committed as one group. Raises LedgerUnavailable."""
        ...

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        """Idempotent by reservation id; unknown ids are ignored."""
        ...

    async def balances(self, subject: Subject, now: float) -> tuple[Balance, ...]: ...

    async def budget(self) -> tuple[Budget, str, int]:
        """The running budget, the text it was written in, and its version. No answer waits for it, so it may take
        longer than an admission: at the start the machine is busy."""
        ...

    async def set_budget(self, budget: Budget, text: str, by: str, now: float) -> int:
        """Atomic; returns the new version. Windows that go on keep what was spent. Logged with who and when.

        Raises LedgerUnavailable, and ValueError for a budget that cannot be held; then nothing has changed.
        """
        ...

    async def close(self) -> None: ...
