"""What one request holds in the ledger: asked for before the teacher is called, settled or released in the end."""

import asyncio
import time

from router.budget import Limit
from router.ledger import Admission, Ask, Settlement
from server.answers import Usage
from server.gateway import Gateway, Request
from server.generation_request import GenerationRequest
from server.ledgers import LedgerUnavailable
from server.upstream import Upstream


class Reservation:
    """At most one teacher call of one request; the request itself is counted with it or, without one, by `count`.

    With `part` it is one of many small calls inside an answer, which cost at most that, wait for nothing, and leave the
    counting to the request's own.
    """

    def __init__(
        self, gateway: Gateway, request: GenerationRequest, about: Request, id: str, part: Usage | None = None
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._about = about
        self.id = id
        self._first_id = id
        self._renewals = 0
        self.teacher = gateway.teacher
        """Who is to be called, whose prices count; the default one unless another was chosen."""
        self._part = part
        self._counted = part is not None
        self.held = False
        """A teacher call is admitted and neither settled nor released."""
        self.refused_by: Limit | None = None
        self.retry_after_s: float | None = None
        self.budget_version = gateway.budget_version

    def count(self) -> None:
        """Counts the request unless an admission has done so."""
        if not self._counted:
            self._counted = True
            self._gateway.count(self._about.subject)

    def renew(self) -> None:
        """For a call after one that was settled or released: of another teacher. It is a call of its own."""
        self._renewals += 1
        self.id = f"{self._first_id}.{self._renewals}"

    async def admit(self, *, waits: bool = True) -> bool:
        """Asks for one teacher call, waiting for room where the budget says so. Raises LedgerUnavailable."""
        most = self.most()
        self._gateway.decider.note_wish(
            self._about.subject, tokens=most.prompt_tokens + most.completion_tokens, usd=usd(self._teacher, most)
        )
        try:
            admission = await self._ask()
            queues = waits and self._part is None and admission.budget.when_exhausted == "queue"
            if not admission.granted and queues:
                admission = await self._wait_for_room(admission)
        except LedgerUnavailable:
            self._gateway.metrics.ledger_unavailable.inc()
            raise
        self.held = admission.granted
        self.refused_by, self.retry_after_s = admission.refused_by, admission.retry_after_s
        self.budget_version = admission.budget_version
        if not admission.granted:
            self._gateway.metrics.refused(admission.refused_by)
        return admission.granted

    async def settle(self, usage: Usage) -> None:
        """The call has billed `usage`."""
        await self._close(self._settlement(usage))

    def settle_later(self, usage: Usage) -> None:
        """The same, where nobody needs to wait for it: see `Gateway.settles_late`."""
        self.held = False
        self._gateway.settle_later(self._settlement(usage))

    async def release(self) -> None:
        """The call has billed nothing."""
        await self._close(Settlement(self.id, "released"))

    def release_later(self) -> None:
        self.held = False
        self._gateway.settle_later(Settlement(self.id, "released"))

    def most(self) -> Usage:
        """As much as the call can cost: every byte a token, every choice as long as it may be."""
        if self._part is not None:
            return self._part
        request = self._request
        limit = request.completion_limit()
        each = self._teacher.settings.max_tokens if limit is None else limit
        return Usage(request.most_prompt_tokens(), each * request.choices())

    @property
    def _teacher(self) -> Upstream:
        assert self.teacher is not None
        return self.teacher

    async def _ask(self) -> Admission:
        """Asks once. When the client leaves meanwhile, a reservation that comes through all the same is released."""
        most = self.most()
        known = self._counted and self._part is None
        earlier, since = (0, None) if known else self._gateway.take_uncounted(self._about.subject)
        self._gateway.tell_counts()
        ask = Ask(
            id=self.id,
            subject=self._about.subject,
            counts_request=not self._counted,
            wants_teacher=True,
            tokens=most.prompt_tokens + most.completion_tokens,
            usd=usd(self._teacher, most),
            lease_s=self._gateway.settings.timeouts.silence_s + 600.0,
            earlier_requests=earlier,
            earlier_since=since,
        )
        self._counted = True
        asking = asyncio.ensure_future(self._gateway.ledger.admit(ask, self._gateway.clock()))
        try:
            admission = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._gateway.release_when_done(self.id))
            raise
        self._gateway.noticed(self._about.subject, admission)
        return admission

    async def _wait_for_room(self, admission: Admission) -> Admission:
        gateway = self._gateway
        if gateway.waiting >= gateway.settings.max_queue:
            return admission
        deadline = time.monotonic() + admission.budget.queue_s
        gateway.waiting += 1
        try:
            while not admission.granted and (left := deadline - time.monotonic()) > 0:
                await asyncio.sleep(min(left, max(0.02, min(admission.retry_after_s or 0.25, 1.0))))
                admission = await self._ask()
        finally:
            gateway.waiting -= 1
        return admission

    def _settlement(self, usage: Usage) -> Settlement:
        return Settlement(
            self.id,
            "settled",
            tokens=usage.prompt_tokens + usage.completion_tokens,
            usd=usd(self._teacher, usage),
            latency_s=max(0.0, self._gateway.clock() - self._about.at),
        )

    async def _close(self, settlement: Settlement) -> None:
        self.held = False
        try:
            await self._gateway.ledger.settle([settlement], self._gateway.clock())
        except LedgerUnavailable:  # the estimate stays charged, which breaks no promise
            self._gateway.metrics.ledger_unavailable.inc()


def usd(upstream: Upstream, usage: Usage) -> float:
    prices = upstream.settings
    return (
        usage.prompt_tokens * prices.usd_per_million_prompt_tokens
        + usage.completion_tokens * prices.usd_per_million_completion_tokens
    ) / 1e6
