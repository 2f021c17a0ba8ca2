"""What keeps a ledger's file small, off the path of requests: checkpoints of the log, and rows whose time is over.

It works through a connection of its own, so that its disk syncs delay no admission, and deletes in small bites.
"""

import contextlib
import os
import sqlite3
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from router.windows import SECOND_US
from server.ledgers.sqlite_rows import connect
from server.ledgers.steps import State

if sys.platform != "win32":
    import fcntl

EVERY_S = 2.0
PRUNE_EVERY = 15
"""Rounds between two prunings."""
LOG_FRAMES = 4000
"""Pages written to the log before it is copied into the file: about 16 MiB."""
BITE = 200

KEEP_CLOSED_US = 3600 * SECOND_US
"""For so long a reservation that is settled answers to its id."""
KEEP_OPEN_US = 24 * 3600 * SECOND_US
"""For so long after its lease a reservation can still be settled; then its estimate stays charged for good."""


class Upkeep:
    def __init__(self, path: Path) -> None:
        self._path = path
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
                if frames_in_log(self._path) > LOG_FRAMES:
                    checkpoint(self._path)
                if rounds % PRUNE_EVERY == 0:
                    prune(self._path)


def checkpoint(path: Path) -> bool:
    """Copies the log into the file, unless another process is at it or nothing was written since the last time.

    Both for one reason: SQLite before 3.51.3 can damage a file when a commit starts the log anew while a second
    checkpoint runs on a log that a first one has just finished (sqlite.org/wal.html#walresetbug). Here no checkpoint
    starts on a log that is finished, and never two at once.
    """
    with _alone(path) as finished:
        if finished is None:
            return False
        generation = _generation(path)
        finished.seek(0)
        if finished.read() == generation:
            return False
        connection = connect(path)
        try:
            ((busy, frames, copied),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close()
        if not busy and frames == copied:
            finished.seek(0)
            finished.write(generation)
            finished.flush()
        return True


def frames_in_log(path: Path) -> int:
    """How many frames were written since the log last started anew. What follows them is left over from before.

    The log is never cut (that would cost milliseconds in the way of a commit), so its size says nothing; its frames
    carry the salts of the header, until the first that does not (sqlite.org/fileformat.html#the_write_ahead_log).
    """
    with open(f"{path}-wal", "rb") as log:
        header = log.read(32)
        page_size = int.from_bytes(header[8:12], "big")
        frame_size = page_size + 24

        def is_old(frame: int) -> bool:
            log.seek(32 + frame * frame_size + 8)
            return log.read(8) != header[16:24]

        frames = range((os.fstat(log.fileno()).st_size - 32) // frame_size) if page_size else range(0)
        return bisect_left(frames, True, key=is_old)


def _generation(path: Path) -> bytes:
    """What tells the log apart from the one before: its sequence number and salts."""
    with open(f"{path}-wal", "rb") as log:
        return log.read(24)[12:]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO | None]:
    """The one process that may checkpoint gets the note of which log was finished last; the others get None."""
    # A file of its own: opening and closing the database's files by hand would drop SQLite's locks on them.
    with os.fdopen(os.open(f"{path}-upkeep", os.O_RDWR | os.O_CREAT, 0o600), "r+b") as note:
        if sys.platform != "win32":
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
        yield note


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
