"""The ledger in a process of its own: all that any ledger must do, and what happens when the process is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from router.budget import Budget, Limit
from router.ledger import Ask
from server.ledgers import Ledger, LedgerUnavailable
from server.ledgers.process import ProcessLedger
from tests.server.ledgers.conformance import ANN, NOON, LedgerConformance, call, running, settle, spent
from tests.server.ledgers.test_sqlite_faults import held_by_another

PATIENT_S = 20.0
"""A deadline that no busy machine misses: these tests are about answers, not about time."""


class TestProcessLedger(LedgerConformance):
    @pytest.fixture
    async def ledger(self, tmp_path: Path) -> AsyncIterator[Ledger]:
        ledger = await ProcessLedger.start(tmp_path / "ledger.db", deadline_s=PATIENT_S)
        yield ledger
        await ledger.close()

    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Callable[[Ledger], Awaitable[Ledger]]]:
        opened: list[ProcessLedger] = []

        async def again(ledger: Ledger) -> Ledger:
            opened.append(await ProcessLedger.start(tmp_path / "ledger.db", deadline_s=PATIENT_S))
            return opened[-1]

        yield again
        for ledger in opened:
            await ledger.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[ProcessLedger]:
    ledger = await ProcessLedger.start(path, deadline_s=PATIENT_S)
    await running(ledger, Limit("cap", "calls", 10), Limit("cap", "tokens", 1000))
    yield ledger
    await ledger.close()


@pytest.fixture
def no_ledger(path: Path) -> Path:
    path.write_bytes(b"not a database, and long enough to be told from one" * 100)
    return path


def kill(ledger: ProcessLedger) -> None:
    assert ledger.pid is not None
    os.kill(ledger.pid, signal.SIGKILL)


async def eventually(ledger: ProcessLedger, expected: list[float]) -> None:
    found: list[float] = []
    for _ in range(300):
        try:
            found = await spent(ledger)
        except LedgerUnavailable:
            found = []
        if found == expected:
            return
        await asyncio.sleep(0.02)
    assert found == expected


async def test_a_process_that_is_killed_comes_back_and_knows_what_was_spent(ledger: ProcessLedger) -> None:
    assert await call(ledger, "a", tokens=100)
    kill(ledger)
    await eventually(ledger, [1.0, 100.0])
    assert await call(ledger, "b", tokens=100)
    assert await spent(ledger) == [2.0, 200.0]


async def test_what_may_have_been_reserved_by_a_process_that_was_lost_is_given_back(
    ledger: ProcessLedger, path: Path
) -> None:
    with held_by_another(path):
        asking = asyncio.ensure_future(call(ledger, "a", tokens=100))
        await asyncio.sleep(0.1)
        kill(ledger)
        with pytest.raises(LedgerUnavailable, match="not running"):
            await asking
    await eventually(ledger, [0.0, 0.0])
    # Given back or never granted: either way the budget knows nothing of it any more.
    assert await call(ledger, "b", tokens=1000)


async def test_an_admission_that_was_committed_and_never_heard_of_is_released(ledger: ProcessLedger) -> None:
    line = ledger._beside.line
    assert line is not None
    line._heard = lambda said: None  # as if the process had died between its commit and its answer
    asking = asyncio.ensure_future(call(ledger, "a", tokens=100))
    while not line.answered:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    kill(ledger)
    with pytest.raises(LedgerUnavailable):
        await asking
    await eventually(ledger, [0.0, 0.0])


async def test_a_settlement_outlives_the_process_that_was_to_write_it(ledger: ProcessLedger, path: Path) -> None:
    assert await call(ledger, "a", tokens=500)
    with held_by_another(path):
        settling = asyncio.ensure_future(settle(ledger, "a", tokens=7))
        await asyncio.sleep(0.1)
        kill(ledger)
        await asyncio.sleep(0.2)
    await settling
    await eventually(ledger, [1.0, 7.0])


async def test_a_file_held_by_another_process_is_unavailable_within_the_deadline(path: Path) -> None:
    ledger = await ProcessLedger.start(path, deadline_s=0.3)
    with held_by_another(path), pytest.raises(LedgerUnavailable, match=r"did not answer within|another process holds"):
        await call(ledger, "a")
    await asyncio.sleep(0.05)
    for _ in range(100):  # on a busy machine the first may be late, too
        try:
            assert await call(ledger, "b")
            break
        except LedgerUnavailable:
            continue
    await ledger.close()


async def test_a_client_that_leaves_meanwhile_gets_its_reservation_given_back(
    ledger: ProcessLedger, path: Path
) -> None:
    with held_by_another(path):
        asking = asyncio.ensure_future(call(ledger, "a", tokens=100))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await eventually(ledger, [0.0, 0.0])


async def test_a_file_that_is_no_ledger_is_said_at_the_start(no_ledger: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"cannot open the ledger .* restore it from a copy"):
        await ProcessLedger.start(no_ledger)


async def test_a_file_that_was_removed_is_not_quietly_written_to(ledger: ProcessLedger, path: Path) -> None:
    os.rename(path, f"{path}.aside")
    with pytest.raises(LedgerUnavailable, match="removed or replaced; restart the gateway"):
        await call(ledger, "a")
    os.rename(f"{path}.aside", path)
    assert await call(ledger, "b")


async def test_a_step_that_no_row_can_hold_fails_alone(ledger: ProcessLedger) -> None:
    spoiled = Ask("a\ud800", ANN, counts_request=True, wants_teacher=True)
    with pytest.raises(LedgerUnavailable, match="the ledger failed"):
        await ledger.admit(spoiled, NOON)
    assert await call(ledger, "b")


async def test_a_budget_changed_by_another_worker_comes_with_the_next_admission(
    ledger: ProcessLedger, path: Path
) -> None:
    other = await ProcessLedger.start(path, deadline_s=PATIENT_S)
    mine, _, version = await ledger.budget()
    assert mine == (await other.budget())[0]
    await running(other, Limit("cap", "calls", 1))
    admission = await ledger.admit(Ask("a", ANN, counts_request=True, wants_teacher=True), NOON)
    assert admission.budget == Budget(limits=(Limit("cap", "calls", 1),))
    assert admission.budget_version == version + 1
    await other.close()


async def test_closing_writes_what_waits_and_says_so_afterwards(path: Path) -> None:
    ledger = await ProcessLedger.start(path, deadline_s=PATIENT_S)
    await running(ledger, Limit("cap", "calls", 10))
    asking = [asyncio.ensure_future(call(ledger, str(i))) for i in range(7)]
    await asyncio.sleep(0)
    await ledger.close()
    assert all(await asyncio.gather(*asking))
    with pytest.raises(LedgerUnavailable, match="closed"):
        await call(ledger, "late")
    again = await ProcessLedger.start(path, deadline_s=PATIENT_S)
    assert await spent(again) == [7.0]
    await again.close()
