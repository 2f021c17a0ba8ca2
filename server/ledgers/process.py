"""The ledger of a gateway's worker: a process that owns the SQLite file, asked over a socket, started again when lost.

Why a process and not a thread: every statement of SQLite lets go of the interpreter lock and takes it back, and under
load each of those is a wait (docs/decisions/0007). What one turn of the loop asks travels in one frame.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from router import budget_codec, windows
from router.admission import estimate
from router.budget import Budget
from router.ledger import Admission, Ask, Balance, Settlement, Subject
from server.beside import Beside, Line, StartFailed
from server.frames import framed
from server.ledgers import LedgerUnavailable, steps, wire
from server.ledgers.sqlite import BUDGET_WITHIN_S, CLOSE_WITHIN_S, OPEN_WITHIN_S, SETTLE_WITHIN_S
from server.ledgers.steps import NO_BUDGET, Admitted, Running
from server.ledgers.waiting import Waiting

START_WITHIN_S = OPEN_WITHIN_S + 25.0
RESTART_AFTER_S = (0.05, 0.2, 1.0, 5.0)
_LOOK_AGAIN_S = 0.005
_CLOSED = "the ledger is closed"
_AWAY = "the ledger's process is not running"


class _Asked(Waiting):
    """A step that the process has been asked, or will be."""

    __slots__ = ("deadline", "n", "release", "row", "verb")

    def __init__(
        self,
        n: int,
        verb: str,
        row: list[Any],
        *,
        answer_in_s: float,
        try_for_s: float,
        undo: Callable[[Any], None] | None = None,
        release: str | None = None,
    ) -> None:
        """`release`: the reservation that may have been made where the process is lost before it answers."""
        super().__init__(answer_in_s=answer_in_s, patient=try_for_s > answer_in_s, undo=undo)
        self.n = n
        self.verb = verb
        self.row = row
        self.deadline = time.monotonic() + try_for_s
        self.release = release

    def _expire(self, answer_in_s: float, looked_again: bool = False) -> None:
        if looked_again or self.future.done():
            super()._expire(answer_in_s)
            return
        # Perhaps it was this loop that was held up, and the answer lies there unread: one more look.
        self.timer = self.loop.call_later(_LOOK_AGAIN_S, self._expire, answer_in_s, True)


class ProcessLedger:
    """See `server.ledgers.Ledger`. Make it with `start`."""

    def __init__(self, path: Path, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._beside = Beside(
            "the ledger",
            "server.ledgers.child",
            ["--path", str(path)],
            lambda: _Line(self._heard),
            start_within_s=START_WITHIN_S,
            end_within_s=CLOSE_WITHIN_S,
            restart_after_s=RESTART_AFTER_S,
        )
        self._keeper: asyncio.Task[None] | None = None
        self._asked: dict[int, _Asked] = {}
        self._n = 0
        self._closing = False
        self._budgets: dict[int, Running] = {NO_BUDGET.version: NO_BUDGET}
        """The running one, and the one before."""

    @classmethod
    async def start(cls, path: Path | str, deadline_s: float = 0.05) -> Self:
        """Makes the file where there is none. Raises LedgerUnavailable where it is no ledger or cannot be written."""
        ledger = cls(Path(path), deadline_s)
        try:
            await ledger._beside.start()
        except StartFailed as error:
            await ledger._beside.stop()
            raise LedgerUnavailable(str(error)) from None
        except BaseException:
            await ledger._beside.stop()
            raise
        ledger._keeper = asyncio.create_task(ledger._beside.keep(ledger._lose, ledger._ask_again))
        return ledger

    @property
    def pid(self) -> int | None:
        return self._beside.pid

    async def admit(self, ask: Ask, now: float) -> Admission:
        now_us = windows.microseconds(now)
        estimate(ask)  # raises for what is no amount, before it meets others in a group

        def undo(admitted: Admitted) -> None:
            # Granted too late, or to a request that is gone: nobody will call the teacher, so give it back.
            if admitted.reserved:
                self._submit_settlements([Settlement(ask.id, "released")], now_us)

        within_s = self._deadline_s
        asked = self._submit(
            wire.ADMIT,
            wire.admit_row(ask, now_us),
            answer_in_s=within_s,
            try_for_s=within_s,
            undo=undo,
            release=ask.id if ask.wants_teacher else None,
        )
        future = asked.future
        try:
            admitted: Admitted = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())
            raise
        return admitted.admission

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        """Returns when written, or after the deadline: then it goes on trying in the background. Raises nothing."""
        if settlements:
            await self._submit_settlements(settlements, windows.microseconds(now)).future

    async def balances(self, subject: Subject, now: float) -> tuple[Balance, ...]:
        found: tuple[Balance, ...] = await self._do(
            wire.BALANCES, wire.subject_row(subject, windows.microseconds(now)), self._deadline_s
        )
        return found

    async def budget(self) -> tuple[Budget, str, int]:
        running: Running = await self._do(wire.BUDGET, [], BUDGET_WITHIN_S)
        return running.budget, running.text, running.version

    async def set_budget(self, budget: Budget, text: str, by: str, now: float) -> int:
        """Waits longer than an admission may: a person asked for it.

        Raises LedgerUnavailable, and ValueError for a budget that cannot be held; then nothing has changed.
        """
        now_us = windows.microseconds(now)
        steps.check(budget, now_us)
        row = [now_us, budget_codec.encode(budget), text, by, now]
        version: int = await self._do(wire.SET_BUDGET, row, BUDGET_WITHIN_S)
        return version

    async def close(self) -> None:
        """Writes what waits, for a few seconds at most."""
        if self._asked and self._beside.line is not None:
            waiting = [each.future for each in self._asked.values()]
            await asyncio.wait(waiting, timeout=CLOSE_WITHIN_S)
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._beside.stop()
        for asked in list(self._asked.values()):
            self._deliver(asked, LedgerUnavailable(_CLOSED))

    # Steps

    def _submit_settlements(self, settlements: Sequence[Settlement], now_us: int) -> _Asked:
        row = wire.settle_row(settlements, now_us)
        return self._submit(wire.SETTLE, row, answer_in_s=self._deadline_s, try_for_s=SETTLE_WITHIN_S)

    async def _do(self, verb: str, row: list[Any], within_s: float) -> Any:
        return await self._submit(verb, row, answer_in_s=within_s, try_for_s=within_s).future

    def _submit(
        self,
        verb: str,
        row: list[Any],
        *,
        answer_in_s: float,
        try_for_s: float,
        undo: Callable[[Any], None] | None = None,
        release: str | None = None,
    ) -> _Asked:
        self._n += 1
        asked = _Asked(
            self._n, verb, row, answer_in_s=answer_in_s, try_for_s=try_for_s, undo=undo, release=release
        )  # fmt: skip
        if self._closing:
            self._deliver(asked, LedgerUnavailable(_CLOSED))
        elif self._beside.line is None and not asked.patient:
            self._deliver(asked, LedgerUnavailable(_AWAY))
        else:
            self._asked[asked.n] = asked
            if self._beside.line is not None:
                self._beside.line.ask(asked)
        return asked

    def _deliver(self, asked: _Asked, outcome: Any) -> None:
        self._asked.pop(asked.n, None)
        asked.outcome = outcome
        asked.deliver()

    def _heard(self, said: Sequence[Sequence[Any]]) -> None:
        """What one transaction has done."""
        for n, outcome, *why in said:
            if n == 0:
                running = wire.running_of(outcome)
                newest = max(self._budgets)
                self._budgets = {newest: self._budgets[newest], running.version: running}
                continue
            asked = self._asked.pop(n, None)
            if asked is None:
                continue
            asked.outcome = LedgerUnavailable(why[0]) if why else self._read(asked.verb, outcome)
            if asked.patient and why and not asked.future.done():
                asked.outcome = None  # a settlement raises nothing
            asked.deliver()

    def _read(self, verb: str, outcome: Any) -> Any:
        match verb:
            case wire.ADMIT:
                return wire.admitted_of(outcome, self._budgets)
            case wire.BALANCES:
                version, rows = outcome
                return wire.balances_of(rows, self._budgets[version])
            case wire.BUDGET:
                return self._budgets[outcome]
            case _:
                return outcome

    # The process

    def _lose(self) -> None:
        """Nobody answers what was asked. Settlements will be asked again; so will be the release of whatever an
        admission may have reserved, since settling what is unknown, or over, changes nothing."""
        now_us = windows.microseconds(time.time())
        for asked in list(self._asked.values()):
            if asked.patient:
                continue
            self._deliver(asked, LedgerUnavailable(_AWAY))
            if asked.release is not None:
                self._submit_settlements([Settlement(asked.release, "released")], now_us)

    def _ask_again(self, greeting: dict[str, Any]) -> None:
        del greeting
        assert self._beside.line is not None
        for asked in list(self._asked.values()):
            self._beside.line.ask(asked)


class _Line(Line):
    """One connection to one process."""

    def __init__(self, heard: Callable[[Sequence[Sequence[Any]]], None]) -> None:
        super().__init__()
        self._heard = heard
        self._waiting: list[bytes] = []

    def ask(self, asked: _Asked) -> None:
        if not self._waiting:
            self.loop.call_soon(self._send)  # after whatever else becomes ready in this turn
        self._waiting.append(wire.item(asked.n, asked.verb, asked.deadline, tries=asked.patient, row=asked.row))

    def heard(self, content: Sequence[Sequence[Any]]) -> None:
        self._heard(content)

    def close(self) -> None:
        self._send()
        super().close()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self.transport is not None and not self.lost.done():
            self.transport.write(framed(b"[" + b",".join(waiting) + b"]"))
