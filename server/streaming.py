"""A streamed answer on its way to the client: held back while a policy looks at it, then passed on byte for byte."""

from collections.abc import AsyncIterator

import orjson

from server import sse
from server.answers import DraftReader, Usage, drop_logprobs, read_usage
from server.generation_request import GenerationRequest
from server.upstream import EventStream


class Streaming:
    """A streamed answer on its way: some of it held back, the rest passed on as it comes."""

    def __init__(
        self, stream: EventStream, request: GenerationRequest, *, strips_logprobs: bool, reads_all: bool
    ) -> None:
        self._stream = stream
        self._batches = stream.batches()
        self._request = request
        self._strips_logprobs = strips_logprobs
        self._reads_all = reads_all
        self._strips_usage = not request.wants_usage
        self._held: list[bytes] = []
        self.reader = DraftReader(request.endpoint)
        self.usage: Usage | None = None
        self.finished = False

    async def hold(self, tokens: int) -> None:
        """Reads until `tokens` tokens, or the end, are here. Raises UpstreamFault, also for errors sent as events."""
        async for batch in self._batches:
            self._held.extend(self._checked(batch, first=not self._held))
            if self._reads_all and self.reader.tokens < tokens and self.reader.finish_reason is None:
                continue
            if self._held:
                break
        else:
            self.finished = True
        # A draft whose finish reason is known is complete, though its last events may still be on their way.
        self.finished = self.finished or self.reader.finish_reason is not None

    async def outgoing(self) -> AsyncIterator[list[bytes]]:
        held, self._held = self._held, []
        if held:
            yield held
        async for batch in self._batches:
            events = self._checked(batch, first=False)
            if events:
                yield events

    @property
    def at_end(self) -> bool:
        """The batch given last is the last one."""
        return self._stream.done

    def close(self) -> None:
        self._stream.close()

    def _checked(self, batch: list[bytes], *, first: bool) -> list[bytes]:
        """The events to pass on; reads what must be read and takes out what the client did not ask for."""
        must_read = first or self._reads_all or self._strips_logprobs
        # Inside a JSON string the quotes would be escaped, so these are keys, or nothing that reading it would harm.
        if not must_read and not any(b'"usage"' in event or b'"error"' in event for event in batch):
            return batch
        out: list[bytes] = []
        for event in batch:
            kept = self._checked_event(event)
            if kept is not None:
                out.append(kept)
        return out

    def _checked_event(self, event: bytes) -> bytes | None:
        data = sse.payload(event)
        if data is None or data == sse.DONE:
            return event
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise self._stream.malformed("an event is not JSON") from None
        if "error" in chunk and "choices" not in chunk:
            raise self._stream.reported(data)
        if self._reads_all:
            self.reader.read(chunk)
        changed = False
        usage = read_usage(chunk)
        if usage is not None:
            self.usage = usage
            if self._strips_usage:
                if not chunk.get("choices"):
                    return None
                del chunk["usage"]
                changed = True
        if self._strips_logprobs:
            drop_logprobs(chunk)
            changed = True
        return sse.encode(orjson.dumps(chunk)) if changed else event
