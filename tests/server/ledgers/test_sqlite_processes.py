"""Four processes hammer one file and are killed with SIGKILL in the middle, again and again."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from math import floor
from pathlib import Path

from router.budget import Budget, Limit, Window
from server.ledgers.sqlite import SqliteLedger
from tests.server.ledgers.hammer import ESTIMATE, billed

ROOT = Path(__file__).parents[3]
MONTHLY = 300


def start(ledger: Path, out: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.server.ledgers.hammer", ledger, out, name], cwd=ROOT)


def grown(out: Path, lines: int, within_s: float = 60.0) -> None:
    """Waits until that many answers more have been written down."""
    aim, until = answers(out) + lines, time.monotonic() + within_s
    while answers(out) < aim:
        assert time.monotonic() < until, "the workers have stopped"
        time.sleep(0.02)


def answers(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def test_no_kill_breaks_a_cap_charges_twice_or_loses_a_reservation(tmp_path: Path) -> None:
    path, out = tmp_path / "ledger.db", tmp_path / "answers"
    budget = Budget(
        limits=(
            Limit("cap", "share", 0.2),
            Limit("cap", "calls", MONTHLY, Window(30, "day", rolling=True)),
            Limit("target", "tokens", 10**6, Window(30, "day", rolling=True), scope="key"),
        )
    )
    asyncio.run(_set(path, budget))
    rng, workers = random.Random(5), [start(path, out, f"w{i}") for i in range(4)]
    try:
        for round in range(4):
            grown(out, 250)
            victim = rng.randrange(4)
            workers[victim].send_signal(signal.SIGKILL)
            workers[victim].wait()
            workers[victim] = start(path, out, f"w{victim}r{round}")
        grown(out, 250)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    answered = [line.split() for line in out.read_text().splitlines() if len(line.split()) == 4]
    granted = {id for id, yes, _, _ in answered if yes == "1"}
    assert len(granted) > 50
    for id, yes, calls, requests in answered:
        if yes == "1":
            assert int(calls) <= floor(int(requests) / 5), id

    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    accounts = {row[0]: row[1:] for row in connection.execute("SELECT name, requests, calls, tokens FROM accounts")}
    reservations = dict(connection.execute("SELECT id, state FROM reservations").fetchall())
    connection.close()
    assert granted <= set(reservations)
    kept = {id: state for id, state in reservations.items() if state != 2}
    tokens = sum(billed(id) if state == 1 else ESTIMATE for id, state in kept.items())
    life, month = accounts.pop("life"), accounts.pop("any 30 day")
    assert life == month
    assert life[1:] == (len(kept), tokens)
    assert life[1] <= min(MONTHLY, floor(life[0] / 5))
    assert [sum(column) for column in zip(*accounts.values(), strict=True)] == list(life)


async def _set(path: Path, budget: Budget) -> None:
    ledger = SqliteLedger.open(path, deadline_s=5.0)
    await ledger.set_budget(budget, "words", "tests", time.time())
    await ledger.close()
