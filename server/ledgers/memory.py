"""A ledger in the memory of one process: for tests, and for a gateway whose budget may die with it."""

from collections import OrderedDict
from collections.abc import Sequence

from router import windows
from router.accounts import Standing, Tally
from router.budget import Budget, Scope
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from router.terms import scope_value
from server.ledgers import steps
from server.ledgers.steps import NO_BUDGET, Reservation, Running, State

REMEMBERED_REQUESTS = 16_384
"""How many counted requests a process remembers, so that counting one twice changes nothing."""


class MemoryRows:
    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}
        self.buckets: dict[str, dict[int, Tally]] = {}
        self.reservations: dict[str, Reservation] = {}
        self._counted: OrderedDict[str, None] = OrderedDict()

    def standing(self, account: str) -> Standing | None:
        return self.standings.get(account)

    def put_standing(self, account: str, standing: Standing) -> None:
        self.standings[account] = standing

    def buckets_through(self, account: str, bucket: int) -> Sequence[tuple[int, Tally]]:
        return [(each, tally) for each, tally in self.buckets.get(account, {}).items() if each <= bucket]

    def drop_buckets_before(self, account: str, bucket: int) -> None:
        kept = self.buckets.get(account, {})
        for each in [each for each in kept if each < bucket]:
            del kept[each]

    def oldest_bucket(self, account: str) -> int | None:
        return min((each for each, tally in self.buckets.get(account, {}).items() if tally.calls > 0), default=None)

    def add_to_bucket(self, account: str, bucket: int, more: Tally) -> None:
        kept = self.buckets.setdefault(account, {})
        kept[bucket] = kept.get(bucket, Tally()).plus(more)

    def reservation(self, id: str) -> Reservation | None:
        return self.reservations.get(id)

    def put_reservation(self, reservation: Reservation) -> None:
        self.reservations[reservation.id] = reservation

    def open_leases(self, scope: Scope, value: str, now_us: int) -> int:
        return sum(
            each.state is State.OPEN and each.lease_us > now_us and scope_value(scope, each.subject) == value
            for each in self.reservations.values()
        )

    def first_sight(self, id: str) -> bool:
        if id in self._counted:
            return False
        self._counted[id] = None
        if len(self._counted) > REMEMBERED_REQUESTS:
            self._counted.popitem(last=False)
        return True


class MemoryLedger:
    """Keeps everything it ever saw; a process that serves for days wants `SqliteLedger`."""

    def __init__(self) -> None:
        self._rows = MemoryRows()
        self._now_us = 0
        self._history: list[tuple[Running, str, float]] = [(NO_BUDGET, "", 0.0)]

    async def admit(self, ask: Ask, now: float) -> Admission:
        return steps.admit(self._rows, self._running, ask, self._tick(now)).admission

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        now_us = self._tick(now)
        for settlement in settlements:
            steps.settle(self._rows, settlement, now_us)

    async def balances(self, subject: Subject, now: float) -> tuple[Balance, ...]:
        return steps.balances(self._rows, self._running, subject, self._tick(now))

    async def budget(self) -> tuple[Budget, str, int]:
        return self._running.budget, self._running.text, self._running.version

    async def set_budget(self, budget: Budget, text: str, by: str, now: float) -> int:
        steps.check(budget, self._tick(now))
        self._history.append((steps.running(self._running.version + 1, budget, text), by, now))
        return self._running.version

    async def close(self) -> None:
        return None

    @property
    def _running(self) -> Running:
        return self._history[-1][0]

    def _tick(self, now: float) -> int:
        """The ledger's time never goes back: a clock that does reopens no window."""
        self._now_us = max(self._now_us, windows.microseconds(now))
        return self._now_us
