"""One request's helped answer, put together from the gateway's parts, and given out as a stream or whole."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from router.aim import Aim
from server.answers import Usage
from server.consultation import Consultation
from server.gateway import Gateway, Request
from server.generation_request import GenerationRequest
from server.help.answer import MixedAnswer
from server.help.calls import HelpCalls
from server.help.shapes import Out, Shapes
from server.help.watch import Watch
from server.help.worker import HelpWorker
from server.reservation import Reservation
from server.upstream import Upstream


class HelpedAnswer:
    """Has what `server.streaming.Streaming` has for the exchange: `outgoing`, `at_end`, `close`."""

    def __init__(
        self,
        worker: HelpWorker,
        gateway: Gateway,
        request: GenerationRequest,
        about: Request,
        consulted: Consultation | None,
        budget: Aim,
        own: Reservation,
    ) -> None:
        """`own`: the request's reservation, by which it is counted."""
        settings = worker.settings
        watch = None
        if settings.by == "policy":
            watch = Watch(worker, gateway.decider, consulted, about.prompt, budget)
        self._worker = worker
        self._watch = watch
        self._done = False
        self.answer = MixedAnswer(
            worker,
            request,
            gateway.student,
            gateway.upstream("teacher"),
            HelpCalls(worker, gateway, request, about, own),
            watch=watch,
            prompt=worker.prompt(request, budget),
            teacher_prompt_ids=lambda: prompt_ids(gateway.upstream("teacher"), request),
        )
        self._shapes = Shapes(request, worker.hidden)
        self.at_end = False
        """What was given last is the last."""

    async def begin(self) -> None:
        """Raises UpstreamFault."""
        await self.answer.begin()

    async def outgoing(self) -> AsyncIterator[list[bytes]]:
        """Events. Raises UpstreamFault where the student breaks off."""
        async for event in events(self.answer, self._shapes):
            if self.answer.line.finish is not None:
                self._finish()
                self.at_end = True
            yield [event]

    async def whole(self) -> bytes:
        """Raises UpstreamFault."""
        answer, shapes = self.answer, self._shapes
        outs = [out async for out in answer.pieces()]
        self._finish()
        shapes.head = answer.head
        return shapes.whole(outs, answer.line.finish or "stop", answer.line.stop_reason, answer.usage)

    def close(self, why: str = "left") -> None:
        self.answer.close(why)
        self._finish()

    @property
    def student_usage(self) -> Usage:
        mine = sum(segment.tokens for segment in self.answer.segments if segment.by == "student")
        return Usage(self.answer.prompt_tokens, mine)

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self._worker.answered(self.answer.line.used, 0 if self._watch is None else self._watch.checks)


async def events(answer: MixedAnswer, shapes: Shapes) -> AsyncIterator[bytes]:
    """A begun answer as a stream; its finish is known when the last event comes."""
    shapes.head = answer.head
    opening = shapes.opening()
    if opening:
        yield opening
    last = Out("")
    async for out in answer.pieces():
        # The last text goes with the finish reason, as servers do it that know it then.
        if answer.line.finish is not None:
            last = Out(last.text + out.text, last.entries + out.entries, {**last.extra, **out.extra})
        else:
            yield shapes.chunk(out, answer.usage)
    yield shapes.closing(last, answer.line.finish or "stop", answer.line.stop_reason, answer.usage)


async def prompt_ids(upstream: Upstream, request: GenerationRequest) -> tuple[int, ...] | None:
    """How `upstream` reads the request's prompt; None where it cannot say. Raises UpstreamFault."""
    body: Mapping[str, Any] = request.body
    names = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "add_special_tokens")
    asked = {name: body[name] for name in names if name in body}
    asked["messages" if request.endpoint == "chat" else "prompt"] = body[
        "messages" if request.endpoint == "chat" else "prompt"
    ]
    ids = await upstream.tokenize(asked)
    return tuple(ids) if ids else None
