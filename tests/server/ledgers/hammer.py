"""One worker of `test_sqlite_processes`: threads full of clients that ask, settle and release until they are killed.

`python -m tests.server.ledgers.hammer LEDGER OUT NAME`. Writes one line to OUT for every answer it was given.
"""

import asyncio
import os
import random
import sys
import threading
import time
import zlib
from pathlib import Path

from router.ledger import Ask, Settlement, Subject
from server.ledgers import LedgerUnavailable
from server.ledgers.sqlite import SqliteLedger

THREADS, CLIENTS, ESTIMATE = 2, 12, 100


def billed(id: str) -> int:
    """What the call of this id turns out to cost, so that the test can add it up again."""
    return zlib.crc32(id.encode()) % ESTIMATE


async def client(ledger: SqliteLedger, name: str, out: int) -> None:
    rng = random.Random(name)
    for number in range(10**9):
        id = f"{name}-{number}"
        ask = Ask(id, Subject(key=f"key{rng.randrange(3)}"), True, rng.random() < 0.5, tokens=ESTIMATE)
        try:
            admission = await ledger.admit(ask, time.time())
            if not ask.wants_teacher:
                continue
            share = admission.balances[0]
            write(out, f"{id} {int(admission.granted)} {share.calls} {share.requests}")
            if admission.granted and rng.random() < 0.9:
                outcome = "released" if rng.random() < 0.2 else "settled"
                settlement = Settlement(id, outcome, tokens=billed(id))
                await asyncio.gather(*(ledger.settle([settlement], time.time()) for _ in range(rng.randrange(1, 3))))
        except LedgerUnavailable:
            write(out, f"{id} unavailable")


def write(out: int, line: str) -> None:
    os.write(out, line.encode() + b"\n")


def loop(path: Path, name: str, out: int) -> None:
    async def main() -> None:
        ledger = SqliteLedger.open(path, deadline_s=5.0)
        await asyncio.gather(*(client(ledger, f"{name}-{i}", out) for i in range(CLIENTS)))

    asyncio.run(main())


if __name__ == "__main__":
    ledger_path, out_path, worker = sys.argv[1:]
    descriptor = os.open(out_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for each in range(THREADS):
        threading.Thread(target=loop, args=(Path(ledger_path), f"{worker}-{each}", descriptor)).start()
