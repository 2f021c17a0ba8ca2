"""What keeps a ledger's file small, off the path of requests: checkpoints of the log, and rows whose time is over.

It works through a connection of its own, so that its disk syncs delay no admission, and deletes in small bites.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from router.windows import SECOND_US
from server.ledgers.sqlite_rows import connect
from server.ledgers.steps import State

EVERY_S = 2.0
PRUNE_EVERY = 15
"""Rounds between two prunings."""
LOG_BYTES = 4 * 2**20
BITE = 200

KEEP_CLOSED_US = 3600 * SECOND_US
"""For so long a reservation that is settled answers to its id."""
KEEP_OPEN_US = 24 * 3600 * SECOND_US
"""For so long after its lease a reservation can still be settled; then its estimate stays charged for good."""


class Upkeep:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Path(f"{path}-wal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)

    def _work(self) -> None:
        rounds = 0
        while not self._stop.wait(EVERY_S):
            rounds += 1
            # A ledger in trouble says so where it is asked; here there is only less or more to tidy up.
            with contextlib.suppress(sqlite3.Error, OSError):
                if self._log.stat().st_size > LOG_BYTES:
                    checkpoint(self._path)
                if rounds % PRUNE_EVERY == 0:
                    prune(self._path)


def checkpoint(path: Path) -> None:
    connection = connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        connection.close()


def prune(path: Path) -> int:
    """Deletes accounts whose window is over and reservations nobody will name again; returns how many rows.

    Goes by the ledger's own time, which never goes back. Raises sqlite3.Error, also where another process is at work.
    """
    connection = connect(path, wait_s=0.05)
    try:
        ((now_us,),) = connection.execute("SELECT now_us FROM clock").fetchall()
        names = connection.execute("SELECT name FROM accounts WHERE end_us <= ?", (now_us,)).fetchall()
        ids = connection.execute(
            "SELECT id FROM reservations WHERE closed_us <= ? OR (state = ? AND lease_us <= ?)",
            (now_us - KEEP_CLOSED_US, State.OPEN, now_us - KEEP_OPEN_US),
        ).fetchall()
        for start in range(0, len(names), BITE):
            with _transaction(connection):
                for (name,) in names[start : start + BITE]:
                    over = connection.execute("DELETE FROM accounts WHERE name = ? AND end_us <= ?", (name, now_us))
                    if over.rowcount:  # it may have come to life again meanwhile
                        connection.execute("DELETE FROM buckets WHERE account = ?", (name,))
        for start in range(0, len(ids), BITE):
            with _transaction(connection):
                connection.executemany("DELETE FROM reservations WHERE id = ?", ids[start : start + BITE])
    finally:
        connection.close()
    return len(names) + len(ids)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
