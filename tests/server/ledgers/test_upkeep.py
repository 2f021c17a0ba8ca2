"""The file does not grow for days: what is over is deleted, and deleting it changes no answer."""

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.budget import Window
from router.ledger import Subject
from server.ledgers.sqlite import SqliteLedger
from server.ledgers.upkeep import _alone, checkpoint, frames_in_log, prune
from tests.server.ledgers.conformance import NOON, both, call, cap, running, settle, spent

HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger.open(path, deadline_s=20.0)
    yield ledger
    await ledger.close()


def size(file: str) -> int:
    return os.path.getsize(file)


def rows(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    connection.close()
    return int(count)


async def test_windows_that_are_over_are_deleted(ledger: SqliteLedger, path: Path) -> None:
    await running(
        ledger,
        cap("calls", 5, Window(1, "day"), scope="user"),
        cap("calls", 5, Window(1, "hour"), scope="user"),
        cap("calls", 500),
    )
    for i in range(30):
        assert await call(ledger, f"c{i}", subject=Subject(user=f"u{i}"))
    assert (rows(path, "accounts"), rows(path, "buckets")) == (61, 30)
    prune(path)
    assert (rows(path, "accounts"), rows(path, "buckets")) == (61, 30)
    await call(ledger, "later", NOON + 2 * HOUR_S, subject=Subject(user="u0"))
    prune(path)
    assert (rows(path, "accounts"), rows(path, "buckets")) == (32, 1)  # days, one hour, the life
    await call(ledger, "tomorrow", NOON + DAY_S, subject=Subject(user="u0"))
    prune(path)
    assert (rows(path, "accounts"), rows(path, "buckets")) == (3, 1)
    assert await spent(ledger, NOON + DAY_S, Subject(user="u0")) == [1.0, 1.0, 32.0]


async def test_reservations_are_forgotten_an_hour_after_they_were_settled(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("calls", 5))
    await call(ledger, "settled")
    await settle(ledger, "settled")
    await call(ledger, "open", NOON + HOUR_S - 1)
    prune(path)
    assert rows(path, "reservations") == 2
    await both(ledger, "tick", NOON + HOUR_S)
    prune(path)
    assert rows(path, "reservations") == 2  # open, tick
    await settle(ledger, "settled", NOON + HOUR_S)
    assert await spent(ledger, NOON + HOUR_S) == [3.0]


async def test_an_open_reservation_can_be_settled_for_a_day_after_its_lease(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("tokens", 5000))
    await call(ledger, "slow", tokens=1000, lease_s=60)
    await call(ledger, "lost", tokens=1000, lease_s=30)
    await both(ledger, "tick", NOON + DAY_S + 59)
    prune(path)
    await settle(ledger, "slow", NOON + DAY_S + 59, tokens=5)
    await settle(ledger, "lost", NOON + DAY_S + 59, tokens=5)
    assert await spent(ledger, NOON + DAY_S + 59) == [1005.0]


async def test_a_rolling_window_keeps_no_more_than_its_ring(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("calls", 10**6, Window(1, "hour")))
    for i in range(1000):
        await call(ledger, f"c{i}", NOON + 30 * i)
    assert rows(path, "buckets") <= 202


async def test_a_checkpoint_lets_the_log_start_again(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("calls", 10**6))

    async def write(prefix: str) -> tuple[int, int]:
        for i in range(100):
            await both(ledger, f"{prefix}{i}")
        return frames_in_log(path), size(f"{path}-wal")

    frames, bytes_before = await write("a")
    assert frames > 100
    assert checkpoint(path)
    await both(ledger, "starts anew")
    assert 0 < frames_in_log(path) < 10
    frames_after, bytes_after = await write("b")
    assert frames_after < 1.5 * frames
    assert bytes_after < 1.5 * bytes_before


async def test_a_log_that_is_finished_is_not_checkpointed_again(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("calls", 10**6))
    assert [checkpoint(path), checkpoint(path)] == [True, False]
    await both(ledger, "more")
    assert [checkpoint(path), checkpoint(path)] == [True, False]


async def test_two_processes_never_checkpoint_at_once(ledger: SqliteLedger, path: Path) -> None:
    await running(ledger, cap("calls", 10**6))
    with _alone(path) as note:
        assert note is not None
        assert not checkpoint(path)
    assert checkpoint(path)
