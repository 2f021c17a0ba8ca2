"""The worker's side of a scoring process: batches what is asked in one turn of the loop, bounds the wait, restarts.

While the process is starting, hanging or gone, `score` fails at once: the student answers and the reason says so.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from policies.action import Step
from policies.observation import Observation
from policies.policy import Scores
from policies.samples import SampleWish
from server.beside import Beside, Line, StartFailed
from server.scoring.scorer import ScoringFailed, Typical
from server.scoring.wire import batch_frame, scores_of

MOST_TOGETHER = 32
"""Observations in a frame: the first of them waits for the last."""
FEW_TOGETHER = 4
"""So many wait for no more: from there on a frame of more costs each of them hardly less."""
MOST_UNDER_WAY = 3
"""Frames: one being scored and others ready to be, so that the process never waits for the worker's next turn; and
several, so that the worker has something to go on with while the process scores the rest."""
START_WITHIN_S = 60.0
"""A sentence encoder brings torch with it, which takes seconds to import, on a busy machine many."""
RESTART_AFTER_S = (0.1, 1.0, 5.0, 30.0)

_Asked = tuple[Observation, "asyncio.Future[Scores]"]


class ProcessScorer:
    """See `server.scoring.scorer.Scorer`. Make it with `start`."""

    def __init__(self, artifact: Path, deadline_s: float, niceness: int = 0) -> None:
        self._beside = Beside(
            f"policy {artifact}",
            "server.scoring.child",
            ["--artifact", str(artifact), "--nice", str(niceness)],
            lambda: _Line(deadline_s),
            start_within_s=START_WITHIN_S,
            end_within_s=2.0,
            restart_after_s=RESTART_AFTER_S,
        )
        self._keeper: asyncio.Task[None] | None = None
        self.name = self.version = ""
        self.steps: tuple[Step, ...] = ()
        self.typical: Typical = ()
        self.samples: SampleWish | None = None

    @classmethod
    async def start(cls, artifact: Path, *, deadline_s: float, niceness: int = 0) -> Self:
        """Returns once the policy is loaded. Raises ScoringFailed with what is wrong with it."""
        scorer = cls(artifact, deadline_s, niceness)
        try:
            scorer._greeted(await scorer._beside.start())
        except StartFailed as error:
            await scorer._beside.stop()
            raise ScoringFailed(str(error)) from None
        except BaseException:
            await scorer._beside.stop()
            raise
        # It is killed when it is lost: perhaps because it hangs.
        scorer._keeper = asyncio.create_task(scorer._beside.keep(scorer._beside.kill, scorer._greeted))
        return scorer

    @property
    def pid(self) -> int | None:
        return self._beside.pid

    async def score(self, observation: Observation) -> Scores:
        line = self._beside.line
        if line is None or line.lost.done():
            raise ScoringFailed("the policy's process is not running")
        return await line.ask(observation)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._beside.line is not None:
            await self._beside.line.drained()
        await self._beside.stop()

    def _greeted(self, said: dict[str, Any]) -> None:
        self.name, self.version = said["name"], said["version"]
        self._beside.what = f"policy {self.version}"
        self.steps = tuple(Step(step) for step in said["steps"])
        self.typical = tuple((gain, usd) for gain, usd in said["typical"])
        self.samples = None if said["samples"] is None else SampleWish.of(said["samples"])
        assert self._beside.line is not None
        self._beside.line.together = min(said["together"] or MOST_TOGETHER, MOST_TOGETHER)


class _Line(Line):
    """One connection to one process."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__()
        self._deadline_s = deadline_s
        self._waiting: list[_Asked] = []
        self._under_way: deque[list[_Asked]] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self.together = MOST_TOGETHER

    async def ask(self, observation: Observation) -> Scores:
        scored: asyncio.Future[Scores] = self.loop.create_future()
        self._waiting.append((observation, scored))
        if not self._under_way:
            self._send()
        elif not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._send)  # after whatever else becomes ready in this turn
        return await scored

    async def drained(self) -> None:
        """Waits for what was asked, as long as it may take."""
        asked = [scored for batch in (*self._under_way, self._waiting) for _, scored in batch]
        if asked:
            await asyncio.wait(asked, timeout=self._deadline_s)

    def close(self) -> None:
        self.lose("closed")

    # Batches

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and (free := MOST_UNDER_WAY - len(self._under_way)) > 0 and self.transport is not None:
            size = min(self.together, max(FEW_TOGETHER, len(self._waiting) // free))
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._under_way.append(batch)
            self.transport.write(batch_frame([observation for observation, _ in batch]))
            if len(self._under_way) == 1:
                self._watch()

    def heard(self, content: Sequence[Any]) -> None:
        batch = self._under_way.popleft()
        for (_, scored), row in zip(batch, content, strict=True):
            if scored.done():
                continue
            if row[0] is None:
                scored.set_exception(ScoringFailed(row[1]))
            else:
                scored.set_result(scores_of(row))
        self._watch()
        if self._waiting:
            self._send()

    def _watch(self) -> None:
        """The batch that is being scored has until the deadline, from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way:
            self._timer = self.loop.call_later(self._deadline_s, self._late, False)

    def _late(self, looked_again: bool) -> None:
        if not looked_again:
            # Perhaps it was this loop that was held up, and the answer lies there unread: one more look.
            self._timer = self.loop.call_later(0.02, self._late, True)
            return
        self.lose(f"it did not answer within {self._deadline_s * 1e3:g} ms")

    def lose(self, why: str) -> bool:
        if not super().lose(why):
            return False
        if self._timer is not None:
            self._timer.cancel()
        for batch in (*self._under_way, self._waiting):
            for _, scored in batch:
                if not scored.done():
                    scored.set_exception(ScoringFailed(f"the policy failed: {why}"))
        self._under_way.clear()
        self._waiting.clear()
        return True
