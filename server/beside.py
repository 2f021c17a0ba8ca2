"""A process beside a worker: started over a socket pair, asked in frames, started again when it is lost.

The worker's side of `server.scoring.child` and `server.ledgers.child`, as far as the two are alike: what is asked of
them, and what becomes of it when they are lost, is in `server.scoring.process` and `server.ledgers.process`.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from server.frames import Frames

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """The process ended, hung or said why it cannot run, while it started."""


class Line(asyncio.Protocol):
    """One connection to one process. What it says first is a greeting, an object; `heard` is told the rest."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.answered = 0
        self.greeting: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self.lost: asyncio.Future[str] = self.loop.create_future()
        """Why."""
        self._frames = Frames()

    def heard(self, content: Any) -> None:
        """Raises ValueError, TypeError, LookupError or AttributeError for what is no answer; then the line is lost."""
        raise NotImplementedError

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def lose(self, why: str) -> bool:
        """Gives the process up; False where that was done before."""
        if self.lost.done():
            return False
        self.lost.set_result(why)
        if self.transport is not None:
            self.transport.close()
        return True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        try:
            for content in self._frames.feed(data):
                if self.greeting.done():
                    self.answered += 1
                    self.heard(content)
                else:
                    self.greeting.set_result(content)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            self.lose(f"its process said something that is no answer ({type(error).__name__})")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lose("its process ended")


L = TypeVar("L", bound=Line)


class Beside(Generic[L]):
    """The process, and the line to it while there is one."""

    def __init__(
        self,
        what: str,
        module: str,
        arguments: Sequence[str],
        make_line: Callable[[], L],
        *,
        start_within_s: float,
        end_within_s: float,
        restart_after_s: Sequence[float],
    ) -> None:
        """`what` begins sentences about it in the log. `end_within_s`: how long it may take to finish what it has read,
        once the line is closed."""
        self.what = what
        self.line: L | None = None
        self._command = [sys.executable, "-m", module, *arguments]
        self._make_line = make_line
        self._start_within_s = start_within_s
        self._end_within_s = end_within_s
        self._restart_after_s = restart_after_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> dict[str, Any]:
        """Its greeting. Raises StartFailed, OSError; `stop` is still to be called then."""
        ours, theirs = socket.socketpair()
        with theirs:
            # It returns once the child is forked, so nothing waits.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [*self._command, "--socket", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        line = self._make_line()
        await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=ours)
        done, _ = await asyncio.wait(
            (line.greeting, line.lost), timeout=self._start_within_s, return_when=asyncio.FIRST_COMPLETED
        )
        if line.greeting not in done:
            line.close()
            how = "ended while it started" if done else "did not start in time"
            raise StartFailed(f"{self.what}: its process {how}")
        greeting = line.greeting.result()
        if "error" in greeting:
            line.close()
            raise StartFailed(greeting["error"])
        self.line = line
        return greeting

    async def stop(self) -> None:
        """Closes the line and waits for the process to end."""
        line, self.line = self.line, None
        if line is not None:
            line.close()
        await self._ended(gently=line is not None)

    async def _ended(self, *, gently: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if not gently:
            process.kill()
        try:
            await asyncio.to_thread(process.wait, self._end_within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def keep(self, lost: Callable[[], None], back: Callable[[dict[str, Any]], None]) -> None:
        """Starts the process again whenever it is lost, for ever. Calls `lost` at once when it is, and `back` with its
        greeting when it is there again."""
        failures = 0
        while True:
            line = self.line
            assert line is not None
            why = await asyncio.shield(line.lost)
            failures = 0 if line.answered else failures
            self.line = None
            lost()
            await self._ended(gently=True)
            greeting: dict[str, Any] | None = None
            while greeting is None:
                pause_s = self._restart_after_s[min(failures, len(self._restart_after_s) - 1)]
                log.error("%s: %s; it starts again in %g s", self.what, why, pause_s)
                await asyncio.sleep(pause_s)
                failures += 1
                try:
                    greeting = await self.start()
                except (StartFailed, OSError) as error:
                    why = str(error)
                    await self._ended(gently=False)
            back(greeting)
