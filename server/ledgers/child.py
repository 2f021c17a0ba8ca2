"""The ledger process of a worker: commits what the worker asks, in groups, until the worker hangs up.

python -m server.ledgers.child --path FILE --socket FD

It ends when the other end of the socket closes, and so with a worker that was killed outright; what it has read by then
it does first. Signals are the worker's business: it decides when its last settlement is written.
"""

import argparse
import gc
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.frames import MOST_READ, Frames, frame
from server.ledgers import LedgerUnavailable
from server.ledgers.group_commit import MOST_STEPS, Commits
from server.ledgers.sqlite import LedgerFile
from server.ledgers.upkeep import Upkeep
from server.ledgers.wire import Run, run_of, said_of


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One ledger file, written to over a socket. `tw serve` starts it.")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--socket", type=int, required=True, metavar="FD")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=options.socket) as line:
        try:
            file = LedgerFile.open(options.path)
        except LedgerUnavailable as error:
            _say(line, frame({"error": str(error)}))
            return 1
        _say(line, frame({}))
        gc.collect()
        gc.freeze()
        upkeep = Upkeep(file.path)
        OverSocket(line, file).work()
        upkeep.close()
        file.connection.close()
    return 0


class Item:
    """See `server.ledgers.group_commit.Work`."""

    __slots__ = ("deadline", "n", "patient", "run")

    def __init__(self, n: int, run: Run, deadline: float, patient: bool) -> None:
        self.n = n
        self.run = run
        self.deadline = deadline
        self.patient = patient

    @property
    def abandoned(self) -> bool:
        """Never: one whose client has gone is done and then undone, since only the worker knows."""
        return False


class OverSocket(Commits[Item]):
    """Steps from the worker, outcomes to it, in the main thread of a process that does nothing else."""

    def __init__(self, line: socket.socket, file: LedgerFile) -> None:
        super().__init__(file.rows, file.check)
        self._line = line
        self._frames = Frames()
        self._waiting: list[Item] = []
        self._told: int | None = None
        """The budget that the worker knows."""

    def _arrived(self, wait_s: float | None) -> list[Item]:
        if not self._waiting and not self._closing:
            self._receive(wait_s)
        elif not self._waiting and wait_s:
            time.sleep(wait_s)
        taken, self._waiting = self._waiting[:MOST_STEPS], self._waiting[MOST_STEPS:]
        return taken

    def _receive(self, wait_s: float | None) -> None:
        self._line.settimeout(None if wait_s is None else max(wait_s, 1e-4))
        try:
            data = self._line.recv(MOST_READ)
        except TimeoutError:
            return
        except OSError:
            data = b""
        if not data:
            self._closing = True
        for content in self._frames.feed(data):
            for n, verb, deadline, patient, *row in content:
                try:
                    self._waiting.append(Item(n, run_of(verb, row), deadline, patient))
                except Exception as error:
                    _say(self._line, frame([[n, None, f"the ledger failed: {error}"]]))

    def _finish(self, finished: Sequence[tuple[Item, Any]]) -> None:
        said: list[list[Any]] = []
        for item, outcome in finished:
            if isinstance(outcome, Exception):
                said.append([item.n, None, str(outcome)])
                continue
            running, result = outcome
            if running is not None and running.version != self._told:
                self._told = running.version
                said.append([0, said_of(running)])
            said.append([item.n, result])
        _say(self._line, frame(said))


def _say(line: socket.socket, data: bytes) -> None:
    try:
        line.settimeout(None)
        line.sendall(data)
    except OSError:  # the worker has gone: nobody listens any more, and what was done stays done
        return


if __name__ == "__main__":
    sys.exit(main())
