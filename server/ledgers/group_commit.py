"""Steps of the ledger, committed in groups: what arrives while one transaction runs goes into the next one together.

A transaction costs more than the steps in it, and under load the group grows by itself. `Commits` is the order of
things; who hands the steps in and who hears of them is a thread (here) or a process (`server.ledgers.child`).
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from server.ledgers import LedgerUnavailable
from server.ledgers.sqlite_rows import SqliteRows
from server.ledgers.waiting import Waiting

log = logging.getLogger(__name__)

MOST_STEPS = 128
"""In one transaction, so that no process holds the file for long."""
BUSY_RETRY_S = 0.0005
ERROR_RETRY_S = 0.2

PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)
"""Another process is at work: try again."""


class Work(Protocol):
    """Something to do inside a transaction."""

    run: Callable[[SqliteRows], Any]
    deadline: float
    """On the monotonic clock, until when it is tried."""
    patient: bool
    """Nobody waits until then: it is tried again after errors, too."""

    @property
    def abandoned(self) -> bool:
        """Nobody wants it any more."""
        ...


W = TypeVar("W", bound=Work)


class Commits(Generic[W]):
    """Runs steps over `rows`. `check` raises sqlite3.Error where the file may not be trusted any more."""

    def __init__(self, rows: SqliteRows, check: Callable[[], None]) -> None:
        self._rows = rows
        self._check = check
        self._resting: deque[tuple[float, W]] = deque()
        self._closing = False
        self.lost = 0
        """Patient steps that were given up."""

    def _arrived(self, wait_s: float | None) -> list[W]:
        """What has arrived, waiting so long for the first; None: for ever."""
        raise NotImplementedError

    def _finish(self, finished: Sequence[tuple[W, Any]]) -> None:
        """Tells of outcomes: a result or an exception each."""
        raise NotImplementedError

    def work(self) -> None:
        """Until closing, and until nothing is left to do."""
        again: list[W] = []
        while True:
            group = again + self._gather(wait_s=BUSY_RETRY_S if again else None)
            if not group and not self._resting and self._closing:
                return
            again = self._commit([step for step in group if self._in_time(step)])

    def _gather(self, wait_s: float | None) -> list[W]:
        """What has arrived; waits for the first, unless something else is due earlier."""
        if self._resting:
            due = self._resting[0][0] - time.monotonic()
            wait_s = max(due, 0.0) if wait_s is None else wait_s
        steps = self._arrived(wait_s)
        while self._resting and (self._closing or self._resting[0][0] <= time.monotonic()):
            steps.append(self._resting.popleft()[1])
        return steps

    def _in_time(self, step: W) -> bool:
        if time.monotonic() < step.deadline and not step.abandoned:
            return True
        if step.patient:
            self.lost += 1
            log.error("the ledger could not write a settlement; its upper estimate stays charged")
        self._finish([(step, LedgerUnavailable("another process holds the ledger"))])
        return False

    def _commit(self, group: list[W]) -> list[W]:
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

    def _failed(self, step: W, error: Exception) -> list[W]:
        if not isinstance(error, sqlite3.Error):
            log.error("a step of the ledger failed", exc_info=error)
        if step.patient and not self._closing:
            self._resting.append((time.monotonic() + ERROR_RETRY_S, step))
            return []
        unavailable = LedgerUnavailable(f"the ledger failed: {error}")
        unavailable.__cause__ = error
        self._finish([(step, unavailable)])
        return []


class Step(Waiting):
    """Something to do inside a transaction, and the future that waits for it on the event loop."""

    __slots__ = ("deadline", "run")

    def __init__(
        self,
        run: Callable[[SqliteRows], Any],
        *,
        answer_in_s: float,
        try_for_s: float,
        undo: Callable[[Any], None] | None = None,
    ) -> None:
        """`try_for_s`: how long the thread keeps trying."""
        super().__init__(answer_in_s=answer_in_s, patient=try_for_s > answer_in_s, undo=undo)
        self.run = run
        self.deadline = time.monotonic() + try_for_s

    @property
    def abandoned(self) -> bool:
        return not self.patient and self.future.done()


class GroupCommit(Commits[Step]):
    """A thread of its own, so that a slow disk or a process that holds the file does not stop the event loop."""

    def __init__(self, rows: SqliteRows, check: Callable[[], None]) -> None:
        super().__init__(rows, check)
        self._arriving: SimpleQueue[Step | None] = SimpleQueue()
        self._thread = threading.Thread(target=self.work, name="ledger", daemon=True)
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

    def _arrived(self, wait_s: float | None) -> list[Step]:
        steps: list[Step] = []
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
        return steps

    def _finish(self, finished: Sequence[tuple[Step, Any]]) -> None:
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
