"""What waits on the event loop for a step of the ledger that is done elsewhere: in a thread, or in another process."""

import asyncio
from collections.abc import Callable
from typing import Any

from server.ledgers import LedgerUnavailable

PENDING = object()
_DELIVERED = object()


class Waiting:
    """A future with a deadline, and what is to happen to an answer that comes when nobody waits for it any more."""

    __slots__ = ("future", "loop", "outcome", "patient", "timer", "undo")

    def __init__(self, *, answer_in_s: float, patient: bool, undo: Callable[[Any], None] | None = None) -> None:
        """`undo` gets the result where nobody waits for it any more. `patient`: whoever waits longer than
        `answer_in_s` goes on, and the step is tried all the same."""
        self.undo = undo
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.patient = patient
        self.outcome: Any = PENDING
        self.timer = self.loop.call_later(answer_in_s, self._expire, answer_in_s)

    def deliver(self) -> None:
        """On the event loop, once the outcome is known; again, it does nothing."""
        if self.outcome is _DELIVERED:
            # A timer that found the answer was quicker than the thread's own call: nobody is late, nothing is undone.
            return
        self.timer.cancel()
        outcome, self.outcome = self.outcome, _DELIVERED
        if isinstance(outcome, Exception):
            if not self.future.done():
                self.future.set_exception(outcome)
        elif not self.future.done():
            self.future.set_result(outcome)
        elif self.undo is not None:
            self.undo(outcome)

    def _expire(self, answer_in_s: float) -> None:
        if self.future.done():
            return
        if self.outcome is not PENDING:  # the answer is there, only this loop was late to hear it
            self.deliver()
        elif self.patient:
            self.future.set_result(None)
        else:
            self.future.set_exception(LedgerUnavailable(f"the ledger did not answer within {answer_in_s * 1e3:g} ms"))
