"""One policy at work in a worker: its process, what was learnt of its scores, and whether it can be relied on."""

import asyncio
import contextlib
from typing import Literal

from policies.action import Step
from router.breaker import SOUND, Breaker
from router.budget import Measure
from router.pacing import Pacer, started, worth
from server.scoring.scorer import Scorer

Role = Literal["serving", "canary", "fallback", "shadow"]

_ANSWERED_WITHIN_S = 3600.0


class InService:
    """Pacing is per policy: one's scores say nothing about another's."""

    __slots__ = (
        "_free",
        "asks_first",
        "breaker",
        "held",
        "name",
        "pacer",
        "reads_drafts",
        "samples",
        "scorer",
        "steps",
        "version",
    )

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.name, self.version, self.steps = scorer.name, scorer.version, scorer.steps
        self.asks_first = Step.ROUTE in scorer.steps
        self.reads_drafts = Step.DEFER in scorer.steps
        self.samples = scorer.samples
        self.pacer = Pacer()
        self.breaker: Breaker = SOUND
        self.held = 0
        """Requests that began with it and may still ask it."""
        self._free: asyncio.Event | None = None

    def begin_pacing(self, measure: Measure | None) -> None:
        """Forgets its scores: under another budget they would be others. `measure` is what the budget weighs calls by;
        by USD, scores are another kind of number, and typical ones stand in until the first have been seen."""
        typical = self.scorer.typical if measure == "usd" else ()
        self.pacer = started(tuple((worth(gain, usd), usd) for gain, usd in typical)) if typical else Pacer()

    @property
    def state(self) -> str:
        if self.breaker.aside:
            return "set aside"
        return "failing" if self.breaker.failing else "ok"

    def release(self) -> None:
        self.held -= 1
        if self._free is not None and not self.held:
            self._free.set()

    async def retire(self) -> None:
        """Closes it once nobody can ask it any more."""
        if self.held:
            self._free = asyncio.Event()
            # A stream may take long; a policy that nobody has released by then was forgotten by somebody.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), _ANSWERED_WITHIN_S)
        await self.scorer.close()
