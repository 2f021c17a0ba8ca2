"""An answer of the ledger that the event loop hears late is given once, and what it granted is not taken back."""

import asyncio
from typing import Any

from server.ledgers.group_commit import Step


def step(undone: list[Any], answer_in_s: float) -> Step:
    return Step(lambda rows: None, answer_in_s=answer_in_s, try_for_s=answer_in_s, undo=undone.append)


async def test_a_grant_heard_by_the_timer_first_is_not_undone_by_the_thread_that_follows() -> None:
    undone: list[Any] = []
    late = step(undone, answer_in_s=0.01)
    late.outcome = "granted"  # by the ledger's thread, whose call to the loop is still on its way
    assert await late.future == "granted"
    late.deliver()  # there it is
    await asyncio.sleep(0)
    assert undone == []


async def test_a_grant_that_comes_after_the_deadline_is_undone_once() -> None:
    undone: list[Any] = []
    late = step(undone, answer_in_s=0.01)
    await asyncio.wait([late.future])
    late.outcome = "granted"
    late.deliver()
    late.deliver()
    assert undone == ["granted"]
    assert late.future.exception() is not None
