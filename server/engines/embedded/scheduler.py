"""The generation thread: one loop over the model's forward passes, shared by all requests that are running.

    submitted -> waiting -> join (one pass over the prompts) -> a row of the batch -> one token per step -> leave

Every turn of the loop lets new requests join once and then gives every running one a token, so neither waits for the
other to finish.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import TypeVar

from server.engines.embedded.jobs import Delivery, Job
from server.engines.embedded.sampler import Logits, Runner
from server.engines.embedded.sequence import Sequence
from server.engines.embedded.text import Decode

# Prompts that join together are padded to the longest of them; this bounds the pass, and so the pause it is for others.
_JOIN_TOKENS = 4096
_IDLE_CLEAR_S = 30.0

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


class Overloaded(Exception):
    """More requests are waiting than the engine was told to keep."""


class Scheduler:
    """`submit`, `cancel` and the properties may be used by any thread; `deliver` is called in the generation thread."""

    def __init__(
        self,
        runner: Runner,
        decode: Callable[[Many[int], bool], str],
        eos: frozenset[int],
        deliver: Callable[[list[Delivery]], None],
        max_batch: int = 16,
        max_waiting: int = 1024,
    ) -> None:
        """`decode(ids, skip_special_tokens)`. `deliver` gets everything of one step in one call."""
        self.runner = runner
        self.max_batch = max_batch
        self._decoders: dict[bool, Decode] = {skip: _decoder(decode, skip) for skip in (False, True)}
        self._eos = eos
        self._deliver = deliver
        self._max_waiting = max_waiting
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._news = threading.Condition()
        self._stopping = False
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._loop, name="generation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._news:
            self._stopping = True
            self._news.notify()
        self._thread.join(30)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def step_s(self) -> float:
        """For how long the pass that runs now has been running; 0 between passes."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) choices."""
        return len(self._running), len(self._waiting)

    def submit(self, job: Job) -> None:
        """Raises Overloaded. The job's events arrive through `deliver`; each choice ends with a finish reason, or the
        whole job with an exception."""
        decode = self._decoders[job.sampling.skip_special_tokens]
        sequences = [Sequence(job, i, decode, self._eos, self.runner.context) for i in range(len(job.prompts))]
        with self._news:
            if len(self._waiting) + len(sequences) > self._max_waiting:
                raise Overloaded
            self._waiting.extend(sequences)
            self._news.notify()

    def cancel(self, job: Job) -> None:
        """The client has gone: its rows are free before the next step."""
        job.cancelled = True

    def _loop(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except Exception as error:
                # The rows may be half-written now. Whoever was running is told, everybody else goes on.
                logger.exception("generation failed")
                self._fail_all(error)

    def _wait_for_work(self) -> bool:
        with self._news:
            while not self._stopping and not self._waiting and not self._running:
                if not self._news.wait(_IDLE_CLEAR_S) and not self._waiting:
                    self.runner.clear()
            return not self._stopping

    def _turn(self) -> None:
        self._drop_cancelled()
        deliveries: list[Delivery] = []
        joining = self._take_joining()
        if joining:
            first = len(self._running)
            self._running += joining
            logits = self._timed(lambda: self.runner.join([sequence.prompt for sequence in joining]))
            self._choose(logits, first, deliveries)
        if self._running:
            logits = self._timed(lambda: self.runner.step([sequence.last_token for sequence in self._running]))
            self._choose(logits, 0, deliveries)
        if deliveries:
            self._deliver(deliveries)

    def _timed(self, forward: Callable[[], Found]) -> Found:
        self._step_began = time.monotonic()
        try:
            return forward()
        finally:
            self._step_began = None

    def _choose(self, logits: Logits, first: int, deliveries: list[Delivery]) -> None:
        """`logits` belong to the rows from `first` on."""
        likeliest = logits.argmax(axis=-1).tolist()
        sequences = self._running[first:]
        for sequence, row, token in zip(sequences, logits, likeliest, strict=True):
            piece = sequence.take(row, token)
            if piece is not None:
                deliveries.append((sequence.job, piece))
        for row_number in range(len(self._running) - 1, first - 1, -1):
            if self._running[row_number].finish_reason is not None:
                self._remove(row_number)

    def _remove(self, row: int) -> None:
        self.runner.leave(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last

    def _drop_cancelled(self) -> None:
        for row in range(len(self._running) - 1, -1, -1):
            if self._running[row].job.cancelled:
                self._remove(row)

    def _take_joining(self) -> list[Sequence]:
        joining: list[Sequence] = []
        longest = 0
        with self._news:
            while self._waiting and len(self._running) + len(joining) < self.max_batch:
                candidate = self._waiting[0]
                if candidate.job.cancelled:
                    self._waiting.popleft()
                    continue
                longest = max(longest, len(candidate.prompt))
                if joining and longest * (len(joining) + 1) > _JOIN_TOKENS:
                    break
                joining.append(self._waiting.popleft())
        return joining

    def _fail_all(self, error: Exception) -> None:
        jobs = {id(sequence.job): sequence.job for sequence in self._running}
        self._running.clear()
        self.runner.clear()
        for job in jobs.values():
            job.cancelled = True  # its other choices, still waiting, are not wanted any more
        self._deliver([(job, error) for job in jobs.values()])


def _decoder(decode: Callable[[Many[int], bool], str], skip_special: bool) -> Decode:
    return lambda ids: decode(ids, skip_special)
