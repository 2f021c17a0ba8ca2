"""One thread that owns the SQLite connection and commits what arrives while it works as one transaction.

Why a thread: a slow disk or a process that holds the file must not stop the event loop. Why in groups: a transaction
costs more than the steps in it, and under load the group grows by itself.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from server.ledgers import LedgerUnavailable
from server.ledgers.sqlite_rows import SqliteRows

log = logging.getLogger(__name__)

MOST_STEPS = 128
"""In one transaction, so that no process holds the file for long."""
BUSY_RETRY_S = 0.0005
ERROR_RETRY_S = 0.2

PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)
"""Another process is at work: try again."""

_PENDING = object()
_DELIVERED = object()


class Step:
    """Something to do inside a transaction, and the future that waits for it on the event loop."""

    __slots__ = ("deadline", "future", "loop", "outcome", "patient", "run", "timer", "undo")

    def __init__(
        self,
        run: Callable[[SqliteRows], Any],
        *,
        answer_in_s: float,
        try_for_s: float,
        undo: Callable[[Any], None] | None = None,
    ) -> None:
        """`undo` gets the result where nobody waits for it any more. `try_for_s`: how long the thread keeps trying."""
        self.run = run
        self.undo = undo
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.deadline = time.monotonic() + try_for_s
        self.patient = try_for_s > answer_in_s
        self.outcome: Any = _PENDING
        self.timer = self.loop.call_later(answer_in_s, self._expire, answer_in_s)

    def deliver(self) -> None:
        """On the event loop, once the outcome is known; again, it does nothing."""
        if self.outcome is _DELIVERED:
            # A timer that found the answer was quicker than the thread's own call: nobody is late, nothing is undone.
            return
        self.timer.cancel()
        outcome, self.outcome = self.outcome, _DELIVERED
        if isinstance(outcome, Exception):
            if not self.future.done():
                self.future.set_exception(outcome)
        elif not self.future.done():
            self.future.set_result(outcome)
        elif self.undo is not None:
            self.undo(outcome)

    def _expire(self, answer_in_s: float) -> None:
        if self.future.done():
            return
        if self.outcome is not _PENDING:  # the answer is there, only this loop was late to hear it
            self.deliver()
        elif self.patient:
            self.future.set_result(None)
        else:
            self.future.set_exception(LedgerUnavailable(f"the ledger did not answer within {answer_in_s * 1e3:g} ms"))


class GroupCommit:
    """Runs steps over `rows`. `check` raises sqlite3.Error where the file may not be trusted any more."""

    def __init__(self, rows: SqliteRows, check: Callable[[], None]) -> None:
        self._rows = rows
        self._check = check
        self._arriving: SimpleQueue[Step | None] = SimpleQueue()
        self._resting: deque[tuple[float, Step]] = deque()
        self._closing = False
        self.lost = 0
        """Patient steps that were given up."""
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, step: Step) -> None:
        if self._closing:
            step.outcome = LedgerUnavailable("the ledger is closed")
            step.deliver()
            return
        self._arriving.put(step)

    def close(self, timeout_s: float) -> bool:
        """Does what waits, then ends the thread; False where it has not ended in time. Blocks."""
        self._closing = True
        self._arriving.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        again: list[Step] = []
        while True:
            group = again + self._gather(wait_s=BUSY_RETRY_S if again else None)
            if not group and not self._resting and self._closing:
                return
            again = self._commit([step for step in group if self._in_time(step)])

    def _gather(self, wait_s: float | None) -> list[Step]:
        """What has arrived; waits for the first, unless something else is due earlier."""
        steps: list[Step] = []
        if self._resting:
            due = self._resting[0][0] - time.monotonic()
            wait_s = max(due, 0.0) if wait_s is None else wait_s
        try:
            arrived = self._arriving.get(timeout=wait_s)
            while True:
                if arrived is not None:
                    steps.append(arrived)
                if len(steps) >= MOST_STEPS:
                    break
                arrived = self._arriving.get_nowait()
        except Empty:
            pass
        while self._resting and (self._closing or self._resting[0][0] <= time.monotonic()):
            steps.append(self._resting.popleft()[1])
        return steps

    def _in_time(self, step: Step) -> bool:
        if time.monotonic() < step.deadline and not (step.future.done() and not step.patient):
            return True
        if step.patient:
            self.lost += 1
            log.error("the ledger could not write a settlement; its upper estimate stays charged")
        self._finish([(step, LedgerUnavailable("another process holds the ledger"))])
        return False

    def _commit(self, group: list[Step]) -> list[Step]:
        """One transaction. Returns the steps that are to be tried again."""
        if not group:
            return []
        rows = self._rows
        try:
            self._check()
            rows.begin()
            results = [step.run(rows) for step in group]
            rows.commit()
        except Exception as error:
            rows.rollback()
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in PASSING:
                return group
            if len(group) > 1:  # so that one bad step spoils no other
                return [step for each in group for step in self._commit([each])]
            return self._failed(group[0], error)
        self._finish(list(zip(group, results, strict=True)))
        return []

    def _failed(self, step: Step, error: Exception) -> list[Step]:
        if not isinstance(error, sqlite3.Error):
            log.error("a step of the ledger failed", exc_info=error)
        if step.patient and not self._closing:
            self._resting.append((time.monotonic() + ERROR_RETRY_S, step))
            return []
        unavailable = LedgerUnavailable(f"the ledger failed: {error}")
        unavailable.__cause__ = error
        self._finish([(step, unavailable)])
        return []

    def _finish(self, finished: list[tuple[Step, Any]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Step]] = {}
        for step, outcome in finished:
            step.outcome = outcome
            by_loop.setdefault(step.loop, []).append(step)
        for loop, steps in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, steps)
            except RuntimeError:
                # The loop is closed and nobody waits: what was reserved stays charged, as after a crash.
                continue


def _deliver(steps: list[Step]) -> None:
    for step in steps:
        step.deliver()
