from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from server.ledgers import Ledger
from server.ledgers.sqlite import SqliteLedger
from tests.server.ledgers.conformance import LedgerConformance

PATIENT_S = 20.0
"""A deadline that no busy machine misses: these tests are about answers, not about time."""


class TestSqliteLedger(LedgerConformance):
    @pytest.fixture
    async def ledger(self, tmp_path: Path) -> AsyncIterator[Ledger]:
        ledger = SqliteLedger.open(tmp_path / "ledger.db", deadline_s=PATIENT_S)
        yield ledger
        await ledger.close()

    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Callable[[Ledger], Awaitable[Ledger]]]:
        opened: list[SqliteLedger] = []

        async def again(ledger: Ledger) -> Ledger:
            opened.append(SqliteLedger.open(tmp_path / "ledger.db", deadline_s=PATIENT_S))
            return opened[-1]

        yield again
        for ledger in opened:
            await ledger.close()
