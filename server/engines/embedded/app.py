"""The HTTP side: one ASGI application around a scheduler.

Events cross from the generation thread to the loop once per step, not once per token; a request that reads slowly gets
several tokens in one chunk instead of holding anybody up.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server.engines.embedded.jobs import Delivery, Job, Piece
from server.engines.embedded.requests import Model, Request, RequestError, read_request, read_tokenize
from server.engines.embedded.responses import Responses, error_body, error_event
from server.engines.embedded.scheduler import Overloaded, Scheduler

_MOST_BODY_BYTES = 32 << 20
# One pass over the model that takes longer than this means that it hangs, not that it is slow.
_HANGS_S = 120.0

logger = logging.getLogger(__name__)


class Mailbox:
    """Where the events of one job wait for its request."""

    def __init__(self) -> None:
        self._events: list[Piece | Exception] = []
        self._news = asyncio.Event()

    def put(self, event: Piece | Exception) -> None:
        self._events.append(event)
        self._news.set()

    async def take(self) -> list[Piece]:
        """Waits for the next events; raises the one that is an exception."""
        await self._news.wait()
        self._news.clear()
        events, self._events = self._events, []
        pieces = []
        for event in events:
            if isinstance(event, Exception):
                raise event
            pieces.append(event)
        return pieces


class Engine:
    """The scheduler as the requests of one event loop see it."""

    def __init__(self, model: Model, make_scheduler: Callable[[Callable[[list[Delivery]], None]], Scheduler]) -> None:
        self.model = model
        self.scheduler = make_scheduler(self._deliver)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailboxes: dict[Job, Mailbox] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.scheduler.start()

    def stop(self) -> None:
        self.scheduler.stop()
        self._loop = None

    @contextlib.contextmanager
    def running(self, job: Job) -> Any:
        """Submits the job; leaving the block in any way lets its rows go. Raises Overloaded."""
        mailbox = self._mailboxes[job] = Mailbox()
        try:
            self.scheduler.submit(job)
            yield mailbox
        finally:
            self.scheduler.cancel(job)
            del self._mailboxes[job]

    def _deliver(self, deliveries: list[Delivery]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closing: nobody is there to read
                loop.call_soon_threadsafe(self._hand_out, deliveries)

    def _hand_out(self, deliveries: list[Delivery]) -> None:
        for job, event in deliveries:
            mailbox = self._mailboxes.get(job)
            if mailbox is not None:
                mailbox.put(event)


def create_engine_app(engine: Engine) -> Starlette:
    created = int(time.time())

    async def chat(http: HttpRequest) -> Response:
        return await _generate(engine, http, chat=True)

    async def completions(http: HttpRequest) -> Response:
        return await _generate(engine, http, chat=False)

    async def models(_: HttpRequest) -> Response:
        entries = [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "training-wheels",
                "root": engine.model.names[-1],
                "parent": None,
                "max_model_len": engine.model.context,
            }
            for name in engine.model.names
        ]
        return _json({"object": "list", "data": entries})

    async def health(_: HttpRequest) -> Response:
        well = engine.scheduler.alive and engine.scheduler.step_s < _HANGS_S
        return Response(status_code=200 if well else 503)

    async def load(_: HttpRequest) -> Response:
        running, waiting = engine.scheduler.load
        return _json({"running": running, "waiting": waiting, "max_batch": engine.scheduler.max_batch})

    async def tokenize(http: HttpRequest) -> Response:
        try:
            ids = read_tokenize(await _body(http), engine.model)
        except RequestError as error:
            return _refusal(error)
        return _json({"count": len(ids), "max_model_len": engine.model.context, "tokens": ids})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
        Route("/load", load),
        Route("/tokenize", tokenize, methods=["POST"]),
    ]
    handlers: Any = {404: _no_such_path, 405: _no_such_path, 500: _broken}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _generate(engine: Engine, http: HttpRequest, *, chat: bool) -> Response:
    try:
        request = read_request(await _body(http), engine.model, chat=chat)
    except RequestError as error:
        return _refusal(error)
    responses = Responses(request, engine.model.tokens, http.headers.get("x-request-id"))
    return (_Stream if request.job.stream else _Whole)(engine, request, responses)


class _Generation(Response):
    """Runs the job for as long as the client is there."""

    def __init__(self, engine: Engine, request: Request, responses: Responses) -> None:
        self._engine = engine
        self._request = request
        self._responses = responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work(scope, receive, send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class _Whole(_Generation):
    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer()
        await response(scope, receive, send)

    async def _answer(self) -> Response:
        job = self._request.job
        pieces: list[Piece] = []
        try:
            with self._engine.running(job) as mailbox:
                while len(pieces) < len(job.prompts):
                    pieces += await mailbox.take()
        except Overloaded:
            return _overloaded()
        except Exception:
            logger.exception("a request failed")
            return _failed()
        return Response(self._responses.whole(pieces), media_type="application/json")


class _Stream(_Generation):
    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = len(self._request.job.prompts)
        begun = False
        try:
            with self._engine.running(self._request.job) as mailbox:
                while left:
                    pieces = await mailbox.take()
                    if not begun:
                        await send(_STREAM_START)
                        begun = True
                    left -= sum(piece.finish_reason is not None for piece in pieces)
                    await _send_part(send, b"".join(map(self._responses.chunks, pieces)))
            await _send_part(send, self._responses.closing(), more=False)
        except Overloaded:
            await _overloaded()(scope, receive, send)
        except Exception:
            logger.exception("a request failed")
            if begun:
                await _send_part(send, error_event("the engine failed while it wrote this answer"), more=False)
            else:
                await _failed()(scope, receive, send)


_STREAM_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}


async def _send_part(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(http: HttpRequest) -> Any:
    size = 0
    parts = []
    try:
        async for part in http.stream():
            size += len(part)
            if size > _MOST_BODY_BYTES:
                raise RequestError(f"the body is larger than {_MOST_BODY_BYTES:,} bytes", status=413)
            parts.append(part)
    except ClientDisconnect:
        raise RequestError("the client went away") from None
    try:
        return orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from None


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _refusal(error: RequestError) -> Response:
    kind = "not_found_error" if error.status == 404 else "invalid_request_error"
    body = error_body(error.message, kind, error.param, error.code)
    return Response(body, error.status, media_type="application/json")


def _overloaded() -> Response:
    body = error_body("the engine has too many requests waiting", "server_error", code="overloaded")
    return Response(body, 503, {"retry-after": "1"}, media_type="application/json")


def _failed() -> Response:
    body = error_body("the engine failed; its log says why", "server_error", code="engine_failed")
    return Response(body, 500, media_type="application/json")


async def _no_such_path(http: HttpRequest, error: Any) -> Response:
    body = error_body(f"{http.method} {http.url.path}: no such endpoint", "not_found_error", code="not_found")
    return Response(body, error.status_code, media_type="application/json")


async def _broken(_: HttpRequest, __: Exception) -> Response:
    return _failed()
