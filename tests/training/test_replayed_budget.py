"""A budget run over recorded traffic says what the ledger would have said."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.language import parse
from router.ledger import Ask, Settlement, Subject
from server.ledgers.memory import MemoryLedger
from tests.training.decisions import START
from training.replayed_budget import Replay

BUDGETS = (
    "At most 20% of requests.",
    "At most 3 teacher calls a day.",
    "At most 2 teacher calls in any 10 minutes.",
    "Never more than 2 calls an hour per key.",
    "At most $0.02 per day.",
    "At most $0.004 per request on average.",
    "At most 30% of requests and at most 100 tokens a minute.",
    "At most 2 teacher calls a day between 09:00 and 18:00.",
)


@pytest.mark.parametrize("text", BUDGETS)
@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.floats(0.0, 3000.0), st.sampled_from(["a", "b"]), st.booleans(), st.integers(0, 80)),
        min_size=1,
        max_size=40,
    )
)
def test_the_replay_has_room_when_the_ledger_grants(text, requests):
    budget = parse(text).budget

    async def ledger() -> list[bool]:
        kept = MemoryLedger()
        await kept.set_budget(budget, text, "test", START)
        now, granted = START, []
        for number, (gap, key, wants, size) in enumerate(requests):
            now += gap
            ask = Ask(str(number), Subject(key=key), True, wants, size, size / 10_000)
            granted.append((await kept.admit(ask, now)).granted)
            if wants and granted[-1]:
                await kept.settle([Settlement(str(number), "settled", size, size / 10_000)], now)
        return granted

    replay, now, found = Replay(budget), START, []
    for gap, key, wants, size in requests:
        now += gap
        aimed = replay.arrive(Subject(key=key), now)
        granted = not wants or replay.has_room(size, size / 10_000)
        found.append(granted)
        replay.finish(0.0, aimed, teacher=wants and granted, tokens=size, usd=size / 10_000, latency_s=1.0)
    assert found == asyncio.run(ledger())


def test_calls_under_way_take_their_places():
    replay = Replay(parse("At most 1 teacher call at a time.").budget)
    found = []
    for number in range(6):
        aimed = replay.arrive(Subject(), START + number)
        found.append(replay.has_room(0, 0.0))
        replay.finish(1.0, aimed, teacher=found[-1], tokens=0, usd=0.0, latency_s=2.5)
    assert found == [True, False, False, True, False, False]


def test_a_target_comes_out_as_asked():
    replay, rng = Replay(parse("Aim for 30% of requests.").budget), np.random.default_rng(0)
    asked = 0
    for number in range(1500):
        aimed = replay.arrive(Subject(), START + number)
        score = float(rng.normal())
        teacher = bool(rng.random() < replay.pacer.chance(score, aimed))
        asked += teacher
        replay.finish(score, aimed, teacher=teacher, tokens=0, usd=0.0, latency_s=0.1)
    assert asked / 1500 == pytest.approx(0.3, abs=0.01)
