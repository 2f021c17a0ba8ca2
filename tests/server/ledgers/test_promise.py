"""The promise itself: whatever happens in whatever order, no cap is broken, nothing is charged twice, and nothing is
refused while there is room. Both stores walk the same way; a brute-force reference judges every answer."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from router.budget import Budget, During, Limit, Window
from router.ledger import Ask, Settlement, Subject
from server.ledgers.memory import MemoryLedger
from server.ledgers.sqlite import SqliteLedger
from server.ledgers.upkeep import prune
from tests.server.ledgers.reference import Reference

# Two days before clocks change in London, on a Friday.
START = 1_774_612_800.0
HOUR_S, DAY_S = 3600.0, 86_400.0
PATIENT_S = 60.0
IN_MEMORY = Path("/dev/shm")  # the promise does not depend on the disk, and disks are slow

WINDOWS = st.sampled_from(
    [
        None,
        Window(1, "day"),
        Window(1, "day", tz="Asia/Tokyo"),
        Window(2, "week", tz="Europe/London", week_start=6),
        Window(1, "month", tz="America/New_York"),
        Window(10, "second"),
        Window(1, "hour"),
        Window(1, "day", rolling=True),
    ]
)
HOURS = st.sampled_from(
    [
        None,
        None,
        None,
        During(("mon", "tue", "wed", "thu", "fri"), "09:00", "18:00", "Asia/Tokyo"),
        During(("fri", "sat"), "22:00", "06:00", "Europe/London", otherwise=True),
    ]
)
SHARES = st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 0.7, 1.0])
MEASURES = st.one_of(
    st.tuples(st.just("share"), SHARES, WINDOWS, st.none()),
    st.tuples(st.just("calls"), st.integers(0, 6), WINDOWS, st.none()),
    st.tuples(st.just("tokens"), st.integers(0, 300), WINDOWS, st.none()),
    st.tuples(st.just("usd"), st.sampled_from([0.1, 0.3, 0.7, 1.1]), WINDOWS, st.none()),
    st.tuples(st.just("tokens"), st.integers(1, 50), st.just(Window(1, "request")), st.none()),
    st.tuples(st.just("usd"), st.sampled_from([0.01, 0.07]), st.just(Window(1, "request")), st.none()),
    st.tuples(st.just("concurrent"), st.integers(0, 3), st.none(), st.none()),
    st.tuples(st.just("latency_s"), st.sampled_from([1.0, 2.0]), WINDOWS, st.sampled_from([0.5, 0.9])),
)


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    measure, at_most, per, quantile = draw(MEASURES)
    kind = draw(st.sampled_from(["cap", "cap", "cap", "target"]))
    scope = draw(st.sampled_from(["all", "all", "key", "user"]))
    return Limit(kind, measure, at_most, per, scope, draw(HOURS), quantile)


BUDGETS = st.lists(limits(), min_size=1, max_size=4).map(lambda found: Budget(limits=tuple(found)))
SUBJECTS = st.builds(Subject, key=st.sampled_from(["ann", "bob"]), user=st.sampled_from(["", "u"]))
TOKENS = st.sampled_from([0, 7, 60, 150])
USD = st.sampled_from([0.0, 0.01, 0.07, 0.3])
STEPS_S = [0.0, 0.5, 3.0, 11.0, 61.0, 1000.0, HOUR_S, 5 * HOUR_S, DAY_S, 9 * DAY_S, 32 * DAY_S]


class Ledgers(RuleBasedStateMachine):
    @initialize(budget=BUDGETS)
    def begin(self, budget: Budget) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.path = Path(self.folder.name) / "ledger.db"
        self.memory = MemoryLedger()
        self.sqlite = SqliteLedger.open(self.path, PATIENT_S)
        self.reference = Reference()
        self.now, self.epoch, self.asked = START, 0, 0
        self.change_budget(budget)

    @rule(budget=BUDGETS)
    def change_budget(self, budget: Budget) -> None:
        self.reference.tick(self.now)
        versions = [self.run(each.set_budget(budget, "text", "me", self.now)) for each in (self.memory, self.sqlite)]
        assert versions[0] == versions[1]
        self.reference.budget = budget

    @rule(forward_s=st.sampled_from(STEPS_S), back=st.booleans())
    def step_the_clock(self, forward_s: float, back: bool) -> None:
        self.now += -forward_s / 2 if back else forward_s

    @rule(
        subject=SUBJECTS,
        counts=st.booleans(),
        wants=st.booleans(),
        tokens=TOKENS,
        usd=USD,
        lease_s=st.sampled_from([5.0, 600.0]),
        again=st.integers(0, 20),
        times=st.integers(1, 6),
        earlier=st.sampled_from([0, 0, 0, 1, 5]),
        ago_s=st.sampled_from([0.0, 2.0, HOUR_S]),
    )
    def ask(
        self,
        subject: Subject,
        counts: bool,
        wants: bool,
        tokens: int,
        usd: float,
        lease_s: float,
        again: int,
        times: int,
        earlier: int,
        ago_s: float,
    ) -> None:
        """Often with a new id, now and then with one that was used before."""
        for _ in range(times):
            number = self.asked
            if again < 4 and self.asked:
                number = max(0, self.asked - 1 - again)
            else:
                self.asked += 1
            late = (earlier, self.now - ago_s)
            ask = Ask(f"{self.epoch}-{number}", subject, counts, wants, tokens, usd, lease_s, *late)
            self.reference.tick(self.now)
            first = self.run(self.memory.admit(ask, self.now))
            second = self.run(self.sqlite.admit(ask, self.now))
            assert first == second
            assert self.reference.asked(ask, first.granted) == []

    @precondition(lambda self: self.reference.calls)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["settled", "settled", "released"]),
        tokens=TOKENS,
        usd=USD,
        latency_s=st.sampled_from([None, 0.5, 1.5, 3.0]),
    )
    def settle(self, data: st.DataObject, outcome: str, tokens: int, usd: float, latency_s: float | None) -> None:
        """Also a second time, and also long after."""
        alive = [id for id, call in self.reference.calls.items() if call.lease_until + DAY_S > self.reference.now]
        id = data.draw(st.sampled_from([*alive, "unknown"]))
        settlement = Settlement(id, outcome, tokens, usd, latency_s)  # type: ignore[arg-type]
        self.reference.tick(self.now)
        for each in (self.memory, self.sqlite):
            self.run(each.settle([settlement], self.now))
        self.reference.settled(settlement)

    @rule(subject=SUBJECTS)
    def look(self, subject: Subject) -> None:
        self.reference.tick(self.now)
        first, second = (self.run(each.balances(subject, self.now)) for each in (self.memory, self.sqlite))
        assert first == second
        assert all(balance.spent >= 0 and balance.requests >= 0 for balance in first)

    @rule()
    def restart(self) -> None:
        """What was reserved stays open: nobody settles it unless somebody still knows its id."""
        self.run(self.sqlite.close())
        self.sqlite = SqliteLedger.open(self.path, PATIENT_S)
        self.epoch += 1

    @rule()
    def tidy_up(self) -> None:
        prune(self.path)
        self.epoch += 1

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.run(self.sqlite.close())
        self._totals_agree_with_buckets()
        self.runner.close()
        self.folder.cleanup()

    def _totals_agree_with_buckets(self) -> None:
        """A rolling account's total is the sum of its buckets."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute(
            "SELECT a.name, a.requests, a.calls, a.tokens, sum(b.requests), sum(b.calls), sum(b.tokens)"
            " FROM accounts a JOIN buckets b ON a.name = b.account GROUP BY a.name"
        ).fetchall()
        connection.close()
        assert [row for row in rows if row[1:4] != row[4:7]] == []

    def run(self, coroutine):  # type: ignore[no-untyped-def]
        return self.runner.run(coroutine)


Ledgers.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLedgers = Ledgers.TestCase
