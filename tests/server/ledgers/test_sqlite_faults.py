"""What a ledger does when its file, its disk or its neighbours misbehave: it says so in time, and breaks no promise."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from router.budget import Budget, Limit, Window
from router.ledger import Ask, Settlement
from server.ledgers import LedgerUnavailable
from server.ledgers.sqlite import SqliteLedger
from tests.server.ledgers.conformance import ANN, NOON, both, call, cap, count, release, running, settle, spent

DEADLINE_S = 1.5
ROOT_IGNORES_MODES = pytest.mark.skipif(os.geteuid() == 0, reason="root may write to anything")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger.open(path, deadline_s=DEADLINE_S)
    await running(ledger, cap("calls", 10, Window(1, "day")), cap("tokens", 1000, Window(1, "day")))
    yield ledger
    await ledger.close()


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def eventually(ledger: SqliteLedger, expected: list[float]) -> None:
    for _ in range(200):
        with suppress(LedgerUnavailable):
            if await spent(ledger) == expected:
                return
        await asyncio.sleep(0.02)
    assert await spent(ledger) == expected


async def test_a_file_held_by_another_process_is_unavailable_within_the_deadline(
    ledger: SqliteLedger, path: Path
) -> None:
    with held_by_another(path):
        ticks, started = 0, time.monotonic()

        async def breathe() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        breathing = asyncio.ensure_future(breathe())
        with pytest.raises(LedgerUnavailable, match=r"did not answer within|another process holds"):
            await call(ledger, "a")
        waited_s = time.monotonic() - started
        breathing.cancel()
    assert DEADLINE_S <= waited_s < DEADLINE_S + 2.0
    assert ticks > 3, "the event loop stood still"
    assert await call(ledger, "b")
    assert (await spent(ledger))[0] == 1.0


async def test_a_short_hold_is_waited_for(ledger: SqliteLedger, path: Path) -> None:
    patient = SqliteLedger.open(path, deadline_s=10.0)
    with held_by_another(path):
        asking = asyncio.ensure_future(call(patient, "a"))
        await asyncio.sleep(0.05)
        assert not asking.done()
    assert await asking
    await patient.close()


async def test_a_settlement_never_raises_and_is_written_when_the_file_is_free_again(
    ledger: SqliteLedger, path: Path
) -> None:
    await call(ledger, "a", tokens=500)
    with held_by_another(path):
        started = time.monotonic()
        await settle(ledger, "a", tokens=20)
        assert time.monotonic() - started < DEADLINE_S + 2.0
    await eventually(ledger, [1.0, 20.0])


async def test_a_full_disk_is_said_and_over_when_there_is_room_again(ledger: SqliteLedger) -> None:
    connection = ledger._connection
    await call(ledger, "before", tokens=500)
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    async def fill() -> None:
        for i in range(300):
            await call(ledger, f"c{i}-{'x' * 200}", tokens=0)
            await release(ledger, f"c{i}-{'x' * 200}")

    with pytest.raises(LedgerUnavailable, match="full"):
        await fill()
    await settle(ledger, "before", tokens=7)
    connection.execute("PRAGMA max_page_count = 100000")
    await eventually(ledger, [1.0, 7.0])
    assert await call(ledger, "after")


async def test_a_file_that_may_not_be_written_is_unavailable(ledger: SqliteLedger) -> None:
    ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable, match="readonly"):
        await call(ledger, "a")
    ledger._connection.execute("PRAGMA query_only = OFF")
    assert await call(ledger, "b")


async def test_a_file_that_was_removed_is_not_quietly_written_to(ledger: SqliteLedger, path: Path) -> None:
    aside = f"{path}.aside"
    os.rename(path, aside)
    with pytest.raises(LedgerUnavailable, match="removed or replaced; restart the gateway"):
        await call(ledger, "a")
    _write(path, b"")  # a new, empty one in its place has forgotten what was spent
    with pytest.raises(LedgerUnavailable, match="removed or replaced"):
        await call(ledger, "b")
    os.replace(aside, path)
    assert await call(ledger, "c")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _damage(path: Path) -> None:
    """Everything but the first page becomes noise, with nothing left in the log to repair it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (len(content) - 4096))


async def test_a_file_that_is_damaged_while_it_is_used_is_unavailable(ledger: SqliteLedger, path: Path) -> None:
    for i in range(5):
        await call(ledger, f"c{i}")
    other = SqliteLedger.open(path, deadline_s=DEADLINE_S)
    _damage(path)
    with pytest.raises(LedgerUnavailable, match="malformed"):
        await call(other, "a")
    await other.close()


async def test_a_damaged_file_is_refused_at_the_start(path: Path) -> None:
    ledger = SqliteLedger.open(path, deadline_s=DEADLINE_S)
    await running(ledger, cap("calls", 10, Window(1, "day")))
    await ledger.close()
    _damage(path)
    with pytest.raises(LedgerUnavailable, match=r"cannot open the ledger .* malformed"):
        SqliteLedger.open(path, deadline_s=DEADLINE_S)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be read as a header" * 20, b"\x00" * 4096]
)
def test_a_file_that_is_no_ledger_is_refused_at_the_start(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerUnavailable, match=f"cannot open the ledger {path}"):
        SqliteLedger.open(path)
    assert path.read_bytes() == content


def test_a_ledger_of_another_version_is_refused_at_the_start(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerUnavailable, match="schema 99"):
        SqliteLedger.open(path)


def test_a_place_where_no_file_can_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="cannot open the ledger"):
        SqliteLedger.open(tmp_path / "file" / "ledger.db")


@ROOT_IGNORES_MODES
def test_a_read_only_file_is_refused_at_the_start(path: Path) -> None:
    asyncio.run(SqliteLedger.open(path).close())
    path.chmod(0o444)
    with pytest.raises(LedgerUnavailable, match="cannot open the ledger"):
        SqliteLedger.open(path)


async def test_a_grant_that_comes_too_late_is_given_back(ledger: SqliteLedger) -> None:
    slow = ledger._group._rows
    begin = slow.begin

    def late() -> None:
        time.sleep(2 * DEADLINE_S)
        begin()

    slow.begin = late  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable, match=f"did not answer within {DEADLINE_S * 1000:g} ms"):
        await call(ledger, "late", tokens=10)
    slow.begin = begin  # type: ignore[method-assign]
    await eventually(ledger, [0.0, 0.0])
    assert not await call(ledger, "late"), "nobody may use it any more"


async def test_asking_again_too_late_does_not_give_back_what_is_in_use(ledger: SqliteLedger) -> None:
    assert await call(ledger, "same")
    slow = ledger._group._rows
    begin = slow.begin

    def late() -> None:
        time.sleep(2 * DEADLINE_S)
        begin()

    slow.begin = late  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable):
        await call(ledger, "same")
    slow.begin = begin  # type: ignore[method-assign]
    await asyncio.sleep(3 * DEADLINE_S)
    assert (await spent(ledger))[0] == 1.0


@pytest.mark.parametrize("turns", range(6))
async def test_a_request_that_goes_away_while_it_asks_leaves_nothing_charged(ledger: SqliteLedger, turns: int) -> None:
    asking = asyncio.ensure_future(call(ledger, "gone"))
    for _ in range(turns):
        await asyncio.sleep(0.0005 * turns)
    gone = asking.cancel()
    if gone:
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(ledger, [0.0, 0.0])
    else:
        assert await asking


async def test_one_bad_step_spoils_no_other(ledger: SqliteLedger) -> None:
    good = [asyncio.ensure_future(both(ledger, f"g{i}")) for i in range(5)]
    bad = asyncio.ensure_future(
        ledger.admit(Ask("bad", ANN, True, True, lease_s=1e300), NOON)  # no lease ends that late
    )
    assert await asyncio.gather(*good) == [True] * 5
    with pytest.raises(LedgerUnavailable):
        await bad
    assert (await spent(ledger))[0] == 5.0


async def test_what_waits_is_written_before_the_ledger_closes(path: Path) -> None:
    ledger = SqliteLedger.open(path, deadline_s=DEADLINE_S)
    await running(ledger, cap("tokens", 1000, Window(1, "day")))
    await call(ledger, "a", tokens=500)
    settling = asyncio.ensure_future(ledger.settle([Settlement("a", "settled", tokens=5)], NOON))
    await asyncio.sleep(0)
    await ledger.close()
    await settling
    with pytest.raises(LedgerUnavailable, match="closed"):
        await call(ledger, "b")
    again = SqliteLedger.open(path, deadline_s=DEADLINE_S)
    assert await spent(again) == [5.0]
    await again.close()


async def test_what_another_process_writes_is_seen_at_once(ledger: SqliteLedger, path: Path) -> None:
    other = SqliteLedger.open(path, deadline_s=10.0)
    for i in range(5):
        assert await call(ledger, f"a{i}")
        assert await call(other, f"b{i}")
    assert not await call(ledger, "a5")
    assert not await call(other, "b5")
    await other.set_budget(Budget(limits=(Limit("cap", "calls", 11, Window(1, "day")),)), "more", "ann", NOON)
    assert [await call(ledger, "a6"), await call(ledger, "a7")] == [True, False]
    assert (await ledger.budget())[1:] == ("more", 2)
    await other.close()


async def test_every_budget_is_kept_with_who_and_when(ledger: SqliteLedger, path: Path) -> None:
    await ledger.set_budget(Budget(), "nothing at all", "ann", NOON + 5)
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT version, at, changed_by, text FROM budgets").fetchall()
    connection.close()
    assert rows == [(1, NOON, "tests", "words"), (2, NOON + 5, "ann", "nothing at all")]


async def test_what_arrives_together_is_committed_together(path: Path) -> None:
    ledger = SqliteLedger.open(path, deadline_s=10.0)
    rows = ledger._group._rows
    commit, commits = rows.commit, 0

    def counting() -> None:
        nonlocal commits
        commits += 1
        commit()

    rows.commit = counting  # type: ignore[method-assign]
    patient = [asyncio.ensure_future(count(ledger, f"r{i}")) for i in range(200)]
    answers = await asyncio.gather(*patient)
    assert len(answers) == 200
    assert commits < 20
    await ledger.close()


async def test_one_ledger_serves_one_event_loop_after_the_other(path: Path) -> None:
    ledger = SqliteLedger.open(path, deadline_s=10.0)

    def elsewhere() -> bool:
        return asyncio.run(both(ledger, "there"))

    assert await both(ledger, "here")
    assert await asyncio.to_thread(elsewhere)
    await ledger.close()
