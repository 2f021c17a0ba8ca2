"""The client's side of a request as raw ASGI: its body in, our bytes out, and whether it is still there.

ASGI HTTP specification 2.5: `http.request`, `http.disconnect`, `http.response.start`, `http.response.body`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from server.errors import BodyTooLarge, ClientGone, UploadTooSlow

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise gather the events
)


class Client:
    """Sends one answer. What is sent after the client has gone is dropped by the server, as ASGI promises."""

    __slots__ = ("_send", "ended")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.ended = False
        """The last byte is on its way: what the connection does from here on is nobody's hang-up."""

    async def send_answer(self, status: int, body: bytes, headers: Headers) -> None:
        self.ended = True
        length = (b"content-length", str(len(body)).encode())
        await self._send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
        await self._send({"type": "http.response.body", "body": body})

    async def start_stream(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM, *headers]})

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
