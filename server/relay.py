"""The client's side of a request as raw ASGI: its body in, our bytes out, and whether it is still there.

ASGI HTTP specification 2.5: `http.request`, `http.disconnect`, `http.response.start`, `http.response.body`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from server.errors import BodyTooLarge, ClientGone, UploadTooSlow

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

JSON: Headers = ((b"content-type", b"application/json"),)
STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise gather the events
)
_WATCH_AFTER_S = 0.02
"""How old a request is when the gateway begins to look whether its client is still there."""


class Client(Protocol):
    """Whoever sent a request, and waits for one answer. What is sent after it has gone is dropped."""

    headers: Headers
    """Of the request; names in lower case."""

    @property
    def ended(self) -> bool:
        """The last byte is on its way: what the connection does from here on is nobody's hang-up."""
        ...

    async def read_body(self, *, max_bytes: int, timeout_s: float) -> bytes:
        """Raises BodyTooLarge before more than `max_bytes` are held, UploadTooSlow, ClientGone."""
        ...

    def watch(self, gone: Callable[[], None]) -> None:
        """Calls `gone` when the client leaves; to be called once the body is read."""
        ...

    def unwatch(self) -> None: ...

    async def send_answer(self, status: int, body: bytes, headers: Headers) -> None: ...

    async def start_stream(self, headers: Headers) -> None: ...

    async def send_events(self, events: list[bytes]) -> None: ...

    async def end_stream(self) -> None: ...


class AsgiClient:
    """A client behind any ASGI server. `server.protocol` has a shorter way to those behind `tw serve`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.headers: Headers = scope["headers"]
        self.ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Future[Message] | None = None

    async def read_body(self, *, max_bytes: int, timeout_s: float) -> bytes:
        return await read_body(self._scope, self._receive, max_bytes=max_bytes, timeout_s=timeout_s)

    def watch(self, gone: Callable[[], None]) -> None:
        def heard(watcher: "asyncio.Future[Message]") -> None:
            if not watcher.cancelled() and watcher.exception() is None:
                gone()

        def look() -> None:
            # Once the body is read, the next message can only be the disconnect.
            self._watcher = asyncio.ensure_future(self._receive())
            self._watcher.add_done_callback(heard)

        # Most answers of a small student are out before a watcher would have been worth its cost.
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, look)

    def unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def send_answer(self, status: int, body: bytes, headers: Headers) -> None:
        self.ended = True
        length = (b"content-length", str(len(body)).encode())
        await self._send({"type": "http.response.start", "status": status, "headers": [*JSON, length, *headers]})
        await self._send({"type": "http.response.body", "body": body})

    async def start_stream(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*STREAM, *headers]})

    async def send_events(self, events: list[bytes]) -> None:
        body = events[0] if len(events) == 1 else b"".join(events)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end_stream(self) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """Raises BodyTooLarge before more than `max_bytes` are held, UploadTooSlow, ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise BodyTooLarge(f"The body has {int(value)} bytes; at most {max_bytes} are taken.")
    message = await _receive_within(receive, timeout_s)
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
        return body
    parts, size = [body], len(body)
    deadline = asyncio.get_running_loop().time() + timeout_s
    while message.get("more_body"):
        if size > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
        message = await _receive_within(receive, deadline - asyncio.get_running_loop().time())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if size > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    return b"".join(parts)


async def _receive_within(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise UploadTooSlow("The body did not arrive in time.") from None
    if message["type"] == "http.disconnect":
        raise ClientGone("The client left while sending its request.")
    return message
