from collections.abc import AsyncIterator

import pytest

from server.ledgers import Ledger
from server.ledgers.memory import MemoryLedger
from tests.server.ledgers.conformance import LedgerConformance


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    async def ledger(self) -> AsyncIterator[Ledger]:
        ledger = MemoryLedger()
        yield ledger
        await ledger.close()
