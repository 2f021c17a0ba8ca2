"""The ledger in one SQLite file in WAL mode, shared by every process of a host; survives kill -9.

`LedgerFile` is the file; `SqliteLedger` works on it in a thread. A gateway's workers use `server.ledgers.process`.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from router import windows
from router.admission import estimate
from router.budget import Budget
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from server.ledgers import LedgerUnavailable, steps
from server.ledgers.group_commit import GroupCommit, Step
from server.ledgers.sqlite_rows import SqliteRows, connect, prepare
from server.ledgers.steps import Admitted
from server.ledgers.upkeep import Upkeep

OPEN_WITHIN_S = 5.0
SETTLE_WITHIN_S = 60.0
"""How long a settlement is tried. Losing it leaves the upper estimate charged, which breaks no promise."""
BUDGET_WITHIN_S = 2.0
CLOSE_WITHIN_S = 2.0


class LedgerFile:
    """The file, open for one thread that commits. Make it with `open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.rows = SqliteRows(connection)
        self._identity = _identity(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Makes the file where there is none. Raises LedgerUnavailable where it is no ledger or cannot be written."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # it names users: for nobody else's eyes
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            connection = connect(path, wait_s=OPEN_WITHIN_S)
            try:
                prepare(connection)
                connection.execute("PRAGMA busy_timeout = 0")
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError, ValueError) as error:
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
            advice = "; restore it from a copy, or move it away to start with an empty one" if damaged else ""
            raise LedgerUnavailable(f"cannot open the ledger {path}: {error}{advice}") from error
        return cls(path, connection)

    def check(self) -> None:
        # SQLite goes on writing to a file that was unlinked while the other workers start a new, empty one.
        if _identity(self.path) != self._identity:
            raise sqlite3.OperationalError(f"{self.path} was removed or replaced; restart the gateway")


class SqliteLedger:
    """See `server.ledgers.Ledger`. Make it with `open`."""

    def __init__(self, file: LedgerFile, deadline_s: float) -> None:
        self._connection = file.connection
        self._deadline_s = deadline_s
        self._group = GroupCommit(file.rows, file.check)
        self._upkeep = Upkeep(file.path)

    @classmethod
    def open(cls, path: Path | str, deadline_s: float = 0.05) -> Self:
        """Makes the file where there is none. Raises LedgerUnavailable where it is no ledger or cannot be written."""
        return cls(LedgerFile.open(path), deadline_s)

    @property
    def lost_settlements(self) -> int:
        """Settlements given up after `SETTLE_WITHIN_S`; their upper estimates stay charged."""
        return self._group.lost

    async def admit(self, ask: Ask, now: float) -> Admission:
        now_us = windows.microseconds(now)
        estimate(ask)  # raises for what is no amount, before it meets others in a group

        def run(rows: SqliteRows) -> Admitted:
            return steps.admit(rows, rows.running(), ask, rows.tick(now_us))

        def undo(admitted: Admitted) -> None:
            # Granted too late, or to a request that is gone: nobody will call the teacher, so give it back.
            if admitted.reserved:
                self._submit_settlements([Settlement(ask.id, "released")], now_us)

        step = Step(run, answer_in_s=self._deadline_s, try_for_s=self._deadline_s, undo=undo)
        self._group.submit(step)
        try:
            admitted: Admitted = await step.future
        except asyncio.CancelledError:
            if step.future.done() and not step.future.cancelled() and step.future.exception() is None:
                undo(step.future.result())
            raise
        return admitted.admission

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        """Returns when written, or after the deadline: then it goes on trying in the background. Raises nothing."""
        if settlements:
            await self._submit_settlements(settlements, windows.microseconds(now)).future

    async def balances(self, subject: Subject, now: float) -> tuple[Balance, ...]:
        now_us = windows.microseconds(now)

        def run(rows: SqliteRows) -> tuple[Balance, ...]:
            return steps.balances(rows, rows.running(), subject, rows.tick(now_us))

        found: tuple[Balance, ...] = await self._do(run, self._deadline_s)
        return found

    async def budget(self) -> tuple[Budget, str, int]:
        running: steps.Running = await self._do(SqliteRows.running, BUDGET_WITHIN_S)
        return running.budget, running.text, running.version

    async def set_budget(self, budget: Budget, text: str, by: str, now: float) -> int:
        """Waits longer than an admission may: a person asked for it.

        Raises LedgerUnavailable, and ValueError for a budget that cannot be held; then nothing has changed.
        """
        now_us = windows.microseconds(now)
        steps.check(budget, now_us)

        def run(rows: SqliteRows) -> int:
            rows.tick(now_us)
            return rows.put_budget(budget, text, by, now)

        version: int = await self._do(run, BUDGET_WITHIN_S)
        return version

    async def close(self) -> None:
        """Writes what waits, for a few seconds at most."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._upkeep.close()
        if self._group.close(CLOSE_WITHIN_S):
            self._connection.close()

    def _submit_settlements(self, settlements: Sequence[Settlement], now_us: int) -> Step:
        def run(rows: SqliteRows) -> None:
            moment = rows.tick(now_us)
            for settlement in settlements:
                steps.settle(rows, settlement, moment)

        step = Step(run, answer_in_s=self._deadline_s, try_for_s=SETTLE_WITHIN_S)
        self._group.submit(step)
        return step

    async def _do(self, run: Callable[[SqliteRows], Any], within_s: float) -> Any:
        step = Step(run, answer_in_s=within_s, try_for_s=within_s)
        self._group.submit(step)
        return await step.future


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
