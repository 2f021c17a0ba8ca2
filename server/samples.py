"""Short samples of the student beside its draft, where the policy in charge wants them (`policies.samples`).

Nothing that goes wrong here costs the answer anything but a bounded wait: then the policy judges without samples.
"""

import asyncio

import orjson

from policies.samples import SampleWish, ask_for, texts_in
from server.answers import read_usage
from server.errors import UpstreamFault, UpstreamStatus, UpstreamUnreachable
from server.generation_request import GenerationRequest
from server.upstream import Upstream

_REFUSES_SEVERAL = frozenset({400, 404, 422, 501})
"""What servers answer that make one choice per request."""


def can_be_sampled(request: GenerationRequest) -> bool:
    """Whether the request asks for one text, which samples can then be compared with."""
    return request.choices() == 1 and not isinstance(request.body.get("prompt"), list)


class Sampling:
    """The samples of one request, under way from the moment this is made."""

    def __init__(self, upstream: Upstream, request: GenerationRequest, wish: SampleWish) -> None:
        self._upstream = upstream
        self._request = request
        self._wish = wish
        self._under_way = 0
        """Samples asked for and not yet answered."""
        self._tokens = 0
        self._asking = asyncio.ensure_future(self._ask())

    @property
    def tokens(self) -> int:
        """Completion tokens; of what was broken off, as many as it can have been."""
        return self._tokens + self._under_way * self._wish.max_tokens

    async def taken(self, within_s: float) -> tuple[str, ...]:
        """All of them, or none where one failed or the time was not enough."""
        done, _ = await asyncio.wait((self._asking,), timeout=within_s)
        if not done:
            self.cancel()
            return ()
        return () if self._asking.cancelled() or self._asking.exception() is not None else self._asking.result()

    def cancel(self) -> None:
        """The upstream stops generating when its connections close."""
        self._asking.cancel()

    async def _ask(self) -> tuple[str, ...]:
        count = self._wish.count
        texts: list[str] = []
        if count > 1 and self._upstream.takes_several:
            try:
                texts = await self._some(count)
            except UpstreamStatus as fault:
                if fault.status not in _REFUSES_SEVERAL:
                    return ()
            except UpstreamFault:
                return ()
            # Some refuse to make several, some make one whatever they are asked: both are asked one by one from now on.
            self._upstream.takes_several = len(texts) > 1
        more = await asyncio.gather(*(self._some(1) for _ in range(count - len(texts))), return_exceptions=True)
        for each in more:
            if isinstance(each, BaseException):
                return ()
            texts += each
        return tuple(texts[:count]) if len(texts) >= count else ()

    async def _some(self, count: int) -> list[str]:
        """Raises UpstreamFault."""
        body = ask_for(self._request.body, self._wish, count) | {"model": self._upstream.name}
        self._under_way += count
        try:
            answer = await self._upstream.answer(self._request.path, orjson.dumps(body))
        except (UpstreamStatus, UpstreamUnreachable):
            self._under_way -= count  # nothing was written; of other faults nobody knows
            raise
        self._under_way -= count
        texts = texts_in(answer.data)
        usage = read_usage(answer.data)
        self._tokens += len(texts) * self._wish.max_tokens if usage is None else usage.completion_tokens
        return texts
