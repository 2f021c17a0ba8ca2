"""uvicorn's HTTP protocol, with a short way for generation: no ASGI scope, one write per answer, no watching task.

Parsing, keep-alive, pipelining, upgrades and shutdown are uvicorn's; a request for generation differs in what answers
it: a `DirectClient` instead of ASGI's `receive` and `send`. All other paths go uvicorn's way unchanged.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.errors import BodyTooLarge, ClientGone, UploadTooSlow
from server.generation_request import PATHS, Endpoint
from server.relay import JSON, STREAM, Headers

log = logging.getLogger("uvicorn.error")

_ENDPOINTS: dict[bytes, Endpoint] = {path.encode(): endpoint for path, endpoint in PATHS.items()}
_JSON = b"".join(b"%b: %b\r\n" % header for header in JSON)
_STREAM = b"".join(b"%b: %b\r\n" % header for header in STREAM)


class HotApp(Protocol):
    """What `server.app.App` offers beside ASGI."""

    async def answer(self, endpoint: Endpoint, client: "DirectClient") -> None: ...


class GatewayProtocol(HttpToolsProtocol):
    """`http=GatewayProtocol` of `uvicorn.Config`."""

    _idle_since: float | None = None

    # A request

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.scope = None  # type: ignore[assignment]  # made where somebody reads it

    def on_headers_complete(self) -> None:
        parser = self.parser
        endpoint = _ENDPOINTS.get(self.url)
        hot = endpoint is not None and parser.get_method() == b"POST" and not parser.should_upgrade()
        if endpoint is None or not hot or self.limit_concurrency is not None or not hasattr(self.app, "answer"):
            self._as_asgi()
            return
        existing = self.cycle
        client = DirectClient(
            self, endpoint, keep_alive=parser.get_http_version() != "1.0" and parser.should_keep_alive()
        )
        self.cycle = cast(Any, client)
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _as_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers
        super().on_headers_complete()

    # Keep-alive: one timer for as long as the connection lives, looked at when it rings.

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_at(self.timeout_keep_alive)

    def _look_at(self, in_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(in_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0.001:
            self._look_at(left)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None


class DirectClient:
    """See `server.relay.Client`. To `HttpToolsProtocol` it is the cycle of a request: the names without a docstring are
    those that it reads and sets."""

    __slots__ = (
        "_endpoint", "_gone", "_protocol", "_waits_for_100", "_waking", "body", "disconnected", "headers", "keep_alive",
        "more_body", "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, protocol: GatewayProtocol, endpoint: Endpoint, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self._endpoint = endpoint
        self.headers: Headers = protocol.headers
        self._waits_for_100 = protocol.expect_100_continue
        self._gone: Callable[[], None] | None = None
        self._waking: asyncio.Future[None] | None = None
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    @property
    def ended(self) -> bool:
        return self.response_complete

    @property
    def message_event(self) -> "DirectClient":
        return self

    def set(self) -> None:
        """More of the body is there, or the client has gone."""
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)
        if self.disconnected and self._gone is not None:
            self._gone()

    async def run_asgi(self, app: Any) -> None:
        """Named by uvicorn."""
        try:
            await cast(HotApp, app).answer(self._endpoint, self)
        except BaseException:
            log.exception("a request for generation failed")
            if self.response_started:
                self._protocol.transport.close()
        else:
            if self.response_complete or self.disconnected:
                return
            log.error("a request was left without an answer")
            if self.response_started:
                self._protocol.transport.close()
        if not self.response_started and not self.disconnected:
            close = [(b"connection", b"close"), (b"content-type", b"text/plain; charset=utf-8")]
            self._answer(500, b"Internal Server Error", close, b"")

    # Its request

    async def read_body(self, *, max_bytes: int, timeout_s: float) -> bytes:
        """Raises BodyTooLarge before more than `max_bytes` are held, UploadTooSlow, ClientGone."""
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
                raise BodyTooLarge(f"The body has {int(value)} bytes; at most {max_bytes} are taken.")
        if self.more_body and not self.disconnected:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._upload(max_bytes)
            except TimeoutError:
                raise UploadTooSlow("The body did not arrive in time.") from None
        if self.disconnected:
            raise ClientGone("The client left while sending its request.")
        if len(self.body) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
        return bytes(self.body)

    async def _upload(self, max_bytes: int) -> None:
        protocol = self._protocol
        if self._waits_for_100 and not protocol.transport.is_closing():
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waits_for_100 = False
        while self.more_body and not self.disconnected and len(self.body) <= max_bytes:
            protocol.flow.resume_reading()
            self._waking = asyncio.get_running_loop().create_future()
            await self._waking
            self._waking = None

    def watch(self, gone: Callable[[], None]) -> None:
        """Calls `gone`, once, when the client leaves before its answer has ended."""
        if self.disconnected:
            gone()
        else:
            self._gone = gone

    def unwatch(self) -> None:
        self._gone = None

    # Its answer

    async def send_answer(self, status: int, body: bytes, headers: Headers) -> None:
        flow = self._protocol.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if not self.disconnected:
            self._answer(status, body, headers, _JSON)

    def _answer(self, status: int, body: bytes, headers: Headers, kind: bytes) -> None:
        self.response_started = True
        head = self._head(status, headers, b"%bcontent-length: %d\r\n" % (kind, len(body)))
        self._protocol.transport.write(b"%b\r\n%b" % (head, body))
        self._end()

    async def start_stream(self, headers: Headers) -> None:
        await self._write(b"%btransfer-encoding: chunked\r\n\r\n" % self._head(200, headers, _STREAM))
        self.response_started = True

    async def send_events(self, events: list[bytes]) -> None:
        body = events[0] if len(events) == 1 else b"".join(events)
        if body:  # an empty chunk would be the end
            await self._write(b"%x\r\n%b\r\n" % (len(body), body))

    async def end_stream(self) -> None:
        await self._write(b"0\r\n\r\n")
        if not self.disconnected:
            self._end()

    def _head(self, status: int, headers: Headers, more: bytes) -> bytes:
        parts = [STATUS_LINE[status]]
        for name, value in (*self._protocol.server_state.default_headers, *headers):
            if b"\n" in value or b"\r" in value:
                raise ValueError(f"a header may not hold the end of a line: {name!r}")
            if name == b"connection" and value == b"close":
                self.keep_alive = False
            else:
                parts.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(more)
        return b"".join(parts)

    async def _write(self, data: bytes) -> None:
        """What is sent after the client has gone is dropped, as ASGI promises."""
        flow = self._protocol.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if not self.disconnected:
            self._protocol.transport.write(data)

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()
