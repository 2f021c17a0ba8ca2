"""The default ledger: one SQLite file in WAL mode, shared by every worker process of a host.

Group commit: what arrives in one turn of the event loop is done in one transaction. A transaction takes some tens of
microseconds and waits for nobody; where another process holds the file the whole group tries again a moment later,
without blocking the loop, until its deadline.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from router import windows
from router.admission import estimate
from router.budget import Budget
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from server.ledgers import LedgerUnavailable, steps
from server.ledgers.sqlite_rows import SqliteRows, connect, prepare

log = logging.getLogger(__name__)

RETRY_S = 0.001
SETTLE_FOR_S = 60.0


@dataclass(slots=True)
class Step:
    """One step that waits for its transaction."""

    run: Callable[[SqliteRows], Any]
    done: "asyncio.Future[Any]"
    deadline: float
    """On the event loop's clock."""


class SqliteLedger:
    def __init__(self, path: Path, connection: sqlite3.Connection, deadline_s: float) -> None:
        self._path = path
        self._connection = connection
        self._rows = SqliteRows(connection)
        self._deadline_s = deadline_s
        self._file = _identity(path)
        self._waiting: list[Step] = []
        self._scheduled: asyncio.Handle | None = None

    @classmethod
    def open(cls, path: Path | str, deadline_s: float = 0.05) -> Self:
        """Makes the file where there is none. Raises LedgerUnavailable where it is no ledger or cannot be written."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = connect(path)
            connection.execute("PRAGMA busy_timeout = 5000")
            prepare(connection)
            connection.execute("PRAGMA busy_timeout = 0")
        except (sqlite3.Error, OSError, ValueError) as error:
            raise LedgerUnavailable(f"cannot open the ledger {path}: {error}") from error
        return cls(path, connection, deadline_s)

    async def admit(self, ask: Ask, now: float) -> Admission:
        now_us = windows.microseconds(now)
        estimate(ask)  # refuse what is no amount before it can spoil a group

        def run(rows: SqliteRows) -> Admission:
            return steps.admit(rows, rows.running(), ask, rows.tick(now_us))

        result: Admission = await self._step(run, self._deadline_s)
        return result

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        """Returns when written, or after the deadline: then it goes on trying in the background."""
        now_us = windows.microseconds(now)

        def run(rows: SqliteRows) -> None:
            moment = rows.tick(now_us)
            for settlement in settlements:
                steps.settle(rows, settlement, moment)

        writing = asyncio.ensure_future(self._step(run, SETTLE_FOR_S))
        await asyncio.wait({writing}, timeout=self._deadline_s)

    async def balances(self, subject: Subject, now: float) -> tuple[Balance, ...]:
        now_us = windows.microseconds(now)

        def run(rows: SqliteRows) -> tuple[Balance, ...]:
            return steps.balances(rows, rows.running(), subject, rows.tick(now_us))

        result: tuple[Balance, ...] = await self._step(run, self._deadline_s)
        return result

    async def budget(self) -> tuple[Budget, str, int]:
        running: steps.Running = await self._step(SqliteRows.running, self._deadline_s)
        return running.budget, running.text, running.version

    async def set_budget(self, budget: Budget, text: str, by: str, now: float) -> int:
        def run(rows: SqliteRows) -> int:
            return rows.put_budget(budget, text, by, now)

        version: int = await self._step(run, max(self._deadline_s, 1.0))
        return version

    async def close(self) -> None:
        self._flush()
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._fail(self._waiting, "the ledger is closed")
        self._waiting = []
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    async def _step(self, run: Callable[[SqliteRows], Any], deadline_s: float) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(Step(run, done, loop.time() + deadline_s))
        if self._scheduled is None:
            self._scheduled = loop.call_soon(self._flush)
        return await done

    def _flush(self) -> None:
        self._scheduled = None
        waiting = [step for step in self._waiting if not step.done.done()]
        self._waiting = []
        if not waiting:
            return
        rows = self._rows
        try:
            if _identity(self._path) != self._file:
                raise sqlite3.OperationalError("the file was removed or replaced; restart the gateway")
            rows.begin()
            results = [step.run(rows) for step in waiting]
            rows.commit()
        except sqlite3.OperationalError as error:
            rows.rollback()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                self._again(waiting)
            else:
                self._fail(waiting, str(error))
        except Exception as error:
            rows.rollback()
            log.exception("a ledger step failed")
            self._fail(waiting, str(error))
        else:
            for step, result in zip(waiting, results, strict=True):
                step.done.set_result(result)

    def _again(self, waiting: list[Step]) -> None:
        loop = asyncio.get_running_loop()
        late = [step for step in waiting if loop.time() >= step.deadline]
        self._fail(late, "another process holds it")
        self._waiting = [step for step in waiting if not step.done.done()] + self._waiting
        if self._waiting:
            self._scheduled = loop.call_later(RETRY_S, self._flush)

    def _fail(self, waiting: list[Step], why: str) -> None:
        for step in waiting:
            if not step.done.done():
                step.done.set_exception(LedgerUnavailable(f"ledger {self._path}: {why}"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
