"""Steps that share a transaction see each other, exactly as if each had its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from router.budget import Budget, Limit, Window
from router.ledger import Ask, Settlement, Subject
from server.ledgers import steps
from server.ledgers.memory import MemoryRows
from server.ledgers.sqlite_rows import SqliteRows, connect, prepare

BUDGET = steps.running(
    1,
    Budget(
        limits=(
            Limit("cap", "calls", 6, Window(1, "hour")),
            Limit("cap", "tokens", 400, Window(10, "minute")),
            Limit("cap", "share", 0.5, Window(1, "hour"), scope="key"),
            Limit("cap", "concurrent", 3),
            Limit("target", "calls", 9, Window(1, "day")),
        )
    ),
    "",
)
ASKS = st.tuples(st.just("ask"), st.integers(0, 30), st.sampled_from(["ann", "bob"]), st.integers(0, 200))
SETTLES = st.tuples(
    st.just("settle"), st.integers(0, 30), st.sampled_from(["settled", "released"]), st.integers(0, 300)
)
STEPS = st.tuples(
    st.one_of(ASKS, ASKS, SETTLES), st.sampled_from([0, 1, 20, 200, 620, 3700]), st.sampled_from([True, False, False])
)


@contextmanager
def sqlite_rows() -> Iterator[SqliteRows]:
    with tempfile.TemporaryDirectory() as folder:
        connection = connect(Path(folder) / "ledger.db")
        try:
            prepare(connection)
            yield SqliteRows(connection)
        finally:
            connection.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_a_group_of_steps_is_the_same_as_the_steps_one_by_one(
    script: list[tuple[tuple[str, int, str, int], int, bool]],
) -> None:
    memory, now_us = MemoryRows(), 1_774_008_000 * 10**6
    with sqlite_rows() as rows:
        rows.begin()
        for (verb, number, word, tokens), later_s, commits in script:
            now_us += later_s * 10**6
            if verb == "ask":
                ask = Ask(f"r{number}", Subject(key=word), True, number % 3 > 0, tokens, lease_s=60.0)
                assert steps.admit(rows, BUDGET, ask, now_us) == steps.admit(memory, BUDGET, ask, now_us)
            else:
                settlement = Settlement(f"r{number}", word, tokens)  # type: ignore[arg-type]
                steps.settle(rows, settlement, now_us)
                steps.settle(memory, settlement, now_us)
            if commits:
                rows.commit()
                rows.begin()
        rows.commit()
        for account, standing in memory.standings.items():
            assert rows.standing(account) == standing
            kept = {bucket: tally for bucket, tally in memory.buckets.get(account, {}).items() if any(tally)}
            found = {bucket: tally for bucket, tally in rows.buckets_through(account, 2**62) if any(tally)}
            assert found == kept


def test_a_transaction_that_fails_leaves_nothing_behind() -> None:
    ask = Ask("a", Subject(key="ann"), True, False)
    with sqlite_rows() as rows:
        rows.begin()
        first = steps.admit(rows, BUDGET, ask, rows.tick(5))
        rows.rollback()
        rows.begin()
        assert steps.admit(rows, BUDGET, ask, rows.tick(5)) == first
        rows.commit()
        rows.begin()
        assert steps.admit(rows, BUDGET, ask, rows.tick(3)) == first  # counted once, and at 5
        rows.commit()
