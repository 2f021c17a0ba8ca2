"""The worker's side of a scoring process: batches what is asked in one turn of the loop, bounds the wait, restarts.

While the process is starting, hanging or gone, `score` fails at once: the student answers and the reason says so.
"""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

from policies.action import Step
from policies.observation import Observation
from policies.policy import Scores
from policies.samples import SampleWish
from server.frames import Frames
from server.scoring.scorer import ScoringFailed, Typical
from server.scoring.wire import batch_frame, scores_of

log = logging.getLogger(__name__)

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
        self._artifact = artifact
        self._deadline_s = deadline_s
        self._niceness = niceness
        self._line: _Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failures = 0
        self.name = self.version = ""
        self.steps: tuple[Step, ...] = ()
        self.typical: Typical = ()
        self.samples: SampleWish | None = None

    @classmethod
    async def start(cls, artifact: Path, *, deadline_s: float, niceness: int = 0) -> Self:
        """Returns once the policy is loaded. Raises ScoringFailed with what is wrong with it."""
        scorer = cls(artifact, deadline_s, niceness)
        try:
            await scorer._start()
        except BaseException:
            await scorer._stop()
            raise
        scorer._keeper = asyncio.create_task(scorer._keep())
        return scorer

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def score(self, observation: Observation) -> Scores:
        if self._line is None or self._line.lost.done():
            raise ScoringFailed("the policy's process is not running")
        return await self._line.ask(observation)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._line is not None:
            await self._line.drained()
        await self._stop()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # It returns once the child is forked, so nothing waits.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "server.scoring.child", "--artifact", self._artifact, "--socket",
                 str(theirs.fileno()), "--nice", str(self._niceness)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        line = _Line(self._deadline_s)
        await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=ours)
        done, _ = await asyncio.wait(
            (line.greeting, line.lost), timeout=START_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        if line.greeting not in done:
            raise ScoringFailed(f"the policy's process {'ended while it started' if done else 'did not start in time'}")
        said = line.greeting.result()
        if "error" in said:
            raise ScoringFailed(said["error"])
        self.name, self.version = said["name"], said["version"]
        self.steps = tuple(Step(step) for step in said["steps"])
        self.typical = tuple((gain, usd) for gain, usd in said["typical"])
        self.samples = None if said["samples"] is None else SampleWish.of(said["samples"])
        line.together = min(said["together"] or MOST_TOGETHER, MOST_TOGETHER)
        self._line = line

    async def _stop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
        process, self._process = self._process, None
        if process is not None:
            if line is None:
                process.kill()
            try:
                await asyncio.to_thread(process.wait, 2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)

    async def _keep(self) -> None:
        """Starts the process again whenever it is lost."""
        while True:
            assert self._line is not None
            why = await asyncio.shield(self._line.lost)
            answered = self._line.answered
            if self._process is not None:
                self._process.kill()
            await self._stop()
            self._failures = 0 if answered else self._failures + 1
            while self._line is None:
                pause_s = RESTART_AFTER_S[min(self._failures, len(RESTART_AFTER_S) - 1)]
                log.error("policy %s: %s; its process starts again in %g s", self.version, why, pause_s)
                await asyncio.sleep(pause_s)
                try:
                    await self._start()
                except (ScoringFailed, OSError) as error:
                    why = str(error)
                    self._failures += 1
                    await self._stop()


class _Line(asyncio.Protocol):
    """One connection to one process."""

    def __init__(self, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._deadline_s = deadline_s
        self._frames = Frames()
        self._waiting: list[_Asked] = []
        self._under_way: deque[list[_Asked]] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.answered = 0
        self.together = MOST_TOGETHER
        self.greeting: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        """Why."""

    async def ask(self, observation: Observation) -> Scores:
        scored: asyncio.Future[Scores] = self._loop.create_future()
        self._waiting.append((observation, scored))
        if not self._under_way:
            self._send()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._send)  # after whatever else becomes ready in this turn
        return await scored

    async def drained(self) -> None:
        """Waits for what was asked, as long as it may take."""
        asked = [scored for batch in (*self._under_way, self._waiting) for _, scored in batch]
        if asked:
            await asyncio.wait(asked, timeout=self._deadline_s)

    def close(self) -> None:
        self._lose("closed")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        try:
            for content in self._frames.feed(data):
                if self.greeting.done():
                    self._answered(content)
                else:
                    self.greeting.set_result(content)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            self._lose(f"its process said something that is no answer ({type(error).__name__})")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lose("its process ended")

    # Batches

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and (free := MOST_UNDER_WAY - len(self._under_way)) > 0 and self._transport is not None:
            size = min(self.together, max(FEW_TOGETHER, len(self._waiting) // free))
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._under_way.append(batch)
            self._transport.write(batch_frame([observation for observation, _ in batch]))
            if len(self._under_way) == 1:
                self._watch()

    def _answered(self, rows: Sequence[Any]) -> None:
        batch = self._under_way.popleft()
        self.answered += 1
        for (_, scored), row in zip(batch, rows, strict=True):
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
            self._timer = self._loop.call_later(self._deadline_s, self._late, False)

    def _late(self, looked_again: bool) -> None:
        if not looked_again:
            # Perhaps it was this loop that was held up, and the answer lies there unread: one more look.
            self._timer = self._loop.call_later(0.02, self._late, True)
            return
        self._lose(f"it did not answer within {self._deadline_s * 1e3:g} ms")

    def _lose(self, why: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        for batch in (*self._under_way, self._waiting):
            for _, scored in batch:
                if not scored.done():
                    scored.set_exception(ScoringFailed(f"the policy failed: {why}"))
        self._under_way.clear()
        self._waiting.clear()
