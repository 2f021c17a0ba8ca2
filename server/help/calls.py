"""One request's helps before the ledger: each is admitted, and settled when it is over, like any teacher call."""

from server.answers import Usage
from server.gateway import Gateway, Request
from server.generation_request import GenerationRequest
from server.help.worker import HelpWorker
from server.ledgers import LedgerUnavailable
from server.reservation import Reservation, usd

_AROUND_TEXT = 32
"""Tokens that a chat template may put around the text so far."""


class Help:
    """One help that was admitted. `settle` or `release` it, once; after that both do nothing."""

    def __init__(self, worker: HelpWorker, gateway: Gateway, held: Reservation, tokens: int) -> None:
        self._worker = worker
        self._gateway = gateway
        self._held = held
        self.tokens = tokens
        """That the teacher may write."""
        self.usage = Usage()
        self.usd = 0.0
        self.counts = False
        """It has become a teacher call."""

    def settle(self, usage: Usage | None, written: int) -> None:
        """`usage` as the upstream said it; None: unknown, so as much as it can have been. `written`: tokens of the
        answer; what it generated beyond them was not written by anybody."""
        if not self._held.held:
            return
        if usage is None:
            usage = self._held.most()
        self.usage, self.usd, self.counts = usage, usd(self._gateway.upstream("teacher"), usage), True
        self._held.settle_later(usage)
        self._worker.promise.give_back(max(self.tokens - written, 0))
        self._worker.called(usage, self.usd)

    def release(self) -> None:
        if self._held.held:
            self._held.release_later()
            self._worker.promise.give_back(self.tokens)


class HelpCalls:
    """Asks the ledger for one request."""

    def __init__(
        self, worker: HelpWorker, gateway: Gateway, request: GenerationRequest, about: Request, own: Reservation
    ) -> None:
        self._worker = worker
        self._gateway = gateway
        self._request = request
        self._about = about
        self._own = own
        self._asked = 0

    async def admit(self, text_bytes: int, tokens: int) -> Help | None:
        """A help of up to `tokens` tokens after `text_bytes` of answer; None where there is no room for it."""
        worker = self._worker
        refused_by = worker.promise.reserve(tokens)
        if refused_by is not None:
            self._own.refused_by = refused_by
            return None
        self._own.count()  # with the first help, so that a share has this request to grow by
        self._asked += 1
        most = Usage(self._request.most_prompt_tokens() + text_bytes + _AROUND_TEXT, tokens)
        held = Reservation(self._gateway, self._request, self._about, f"{self._own.id}.{self._asked}", part=most)
        granted = False
        try:
            granted = await held.admit()
        except LedgerUnavailable:
            pass
        finally:
            if not granted:
                worker.promise.give_back(tokens)
        if not granted:
            self._own.refused_by = held.refused_by
            return None
        return Help(worker, self._gateway, held, tokens)
