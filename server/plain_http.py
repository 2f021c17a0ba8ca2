"""Whole answers from one server over plain HTTP/1.1: the client of the hot path, a third of the CPU of a general one.

It posts JSON over kept-alive connections and reads answers to their end. There is no TLS, no proxy, no redirect, no
stream and no cookie here: `server.upstream` has aiohttp for those, and maps the errors of both to the same faults.
"""

import asyncio
import socket
import zlib
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

import httptools

_KEEP_ALIVE_S = 3.0
"""How long an idle connection is used again: less than servers keep them, so that none is sent into a closing one."""
_MOST_HEAD_BYTES = 256 * 1024
_WHOLE_BYTES = 64 * 1024
_READ = {
    spelt.encode(): name
    for name in ("content-type", "content-length", "transfer-encoding", "content-encoding", "retry-after")
    for spelt in (name, name.title())
}
"""The headers that anybody reads, as servers spell them."""


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Those that matter to somebody; names in lower case."""
    body: bytes


class PlainHttpError(Exception):
    """PlainHttpError
    ├── CannotConnect   nobody listens there, or not in time
    ├── Silent          nothing came for too long
    ├── BrokenOff       the connection ended in the middle
    └── NotHttp         what came is no HTTP
    """


class CannotConnect(PlainHttpError):
    pass


class Silent(PlainHttpError):
    pass


class BrokenOff(PlainHttpError):
    pass


class NotHttp(PlainHttpError):
    pass


class PlainHttp:
    """Connections to one server, as many as there are requests under way. Belongs to the loop that uses it first."""

    def __init__(
        self, host: str, port: int, base: str, headers: Mapping[str, str], *, connect_s: float, silence_s: float
    ) -> None:
        self._host, self._port, self._base = host, port, base
        name = f"[{host}]" if ":" in host else host
        given = {"host": name if port == 80 else f"{name}:{port}", "user-agent": "training-wheels", "accept": "*/*"}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in {**given, **headers}.items())
        self._heads: dict[str, bytes] = {}
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._idle: list[_Connection] = []

    @classmethod
    def to(cls, url: str, headers: Mapping[str, str], *, connect_s: float, silence_s: float) -> Self | None:
        """For requests to `url` + path; None where that takes more than is here."""
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError:
            return None
        plain = all(value.isascii() and value.isprintable() for value in (url, *headers.values()))
        # A URL that has to be escaped, or that carries a password, is left to those who know how.
        odd = parts.username is not None or parts.query or parts.fragment or "%" in url or " " in url
        if parts.scheme != "http" or not parts.hostname or not plain or odd:
            return None
        return cls(parts.hostname, port, parts.path, headers, connect_s=connect_s, silence_s=silence_s)

    async def post(self, path: str, body: bytes) -> Reply:
        """Raises PlainHttpError. Cancelled, it drops the connection, so that the server stops working on the answer."""
        head = self._heads.get(path)
        if head is None:
            head = f"POST {self._base}{path} HTTP/1.1\r\n{self._headers}content-length: ".encode()
            self._heads[path] = head
        connection = self._take() or await self._connect()
        answered = connection.ask(b"%b%d\r\n\r\n" % (head, len(body)), body, self._silence_s)
        try:
            return await answered
        except BaseException:
            connection.drop()
            raise

    def close(self) -> None:
        """Drops the connections that are idle."""
        while self._idle:
            self._idle.pop().drop()

    def _take(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.drop()
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        why: Exception | None = None
        try:
            async with asyncio.timeout(2 * self._connect_s):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                for family, _, proto, _, address in found:
                    try:
                        async with asyncio.timeout(self._connect_s):
                            _, connection = await loop.create_connection(
                                partial(_Connection, loop, self._idle), *address[:2], family=family, proto=proto
                            )
                            return connection
                    except (OSError, TimeoutError) as error:  # the name may have other addresses
                        why = error
        except (OSError, TimeoutError) as error:
            why = error
        raise CannotConnect(f"{self._host}:{self._port}: {why}")


class _Connection(asyncio.Protocol):
    """One connection: idle, or with one request under way. Parser callbacks are named by httptools."""

    __slots__ = (
        "_answered",
        "_begun_unasked",
        "_body",
        "_due",
        "_encoding",
        "_ends_with_connection",
        "_head_bytes",
        "_headers",
        "_idle",
        "_loop",
        "_parser",
        "_silence_s",
        "_timer",
        "_transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: "list[_Connection]") -> None:
        self._loop = loop
        self._idle = idle
        """Where it goes between two requests."""
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Reply] | None = None
        self._due = 0.0
        """Until when something must have come; while idle, until when it may be used again."""
        self._silence_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._begun_unasked = False
        """An answer nobody asked for has begun behind the last one: it must not be taken for the next one's."""
        self._parser = httptools.HttpResponseParser(self)
        # What aiohttp lets pass as well.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._reset()

    @property
    def usable(self) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing() or self._begun_unasked:
            return False
        return self._loop.time() < self._due

    def ask(self, head: bytes, body: bytes, silence_s: float) -> "asyncio.Future[Reply]":
        assert self._transport is not None
        assert self._answered is None
        self._answered = answered = self._loop.create_future()
        self._silence_s = silence_s
        self._due = self._loop.time() + silence_s
        if self._timer is None or self._timer.when() > self._due:
            self._look_at(self._due)
        if len(body) < _WHOLE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answered

    def drop(self) -> None:
        self._answered = None
        if self in self._idle:
            self._idle.remove(self)
        if self._transport is not None:
            self._transport.abort()

    # Time. One timer for as long as the connection lives, looked at when it rings: setting one per request costs more.

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._look_at(self._due)
        elif self._answered is None:
            self.drop()
        else:
            self._fail(Silent(f"nothing came for {self._silence_s:g} s"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None:  # nobody asked for this
            self.drop()
            return
        self._due = self._loop.time() + self._silence_s
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(NotHttp(type(error).__name__))
            return
        if self._begun_unasked:
            self.drop()
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._fail(NotHttp("its headers do not end"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        if self._answered is None:
            self.drop()
            return
        if exc is None and self._head_bytes is None and self._ends_with_connection:
            self._finish()
        else:
            self._fail(BrokenOff("the connection ended in the middle of an answer"))

    # The parser

    def _reset(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._encoding: str | None = None
        self._ends_with_connection = True
        self._head_bytes: int | None = 0

    def on_message_begin(self) -> None:
        self._begun_unasked = self._answered is None

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _READ.get(name) or _READ.get(name.lower())
        if key is None:
            return
        said = self._headers[key] = value.decode("latin-1")
        if key == "content-length" or key == "transfer-encoding":
            self._ends_with_connection = False
        elif key == "content-encoding" and said.lower() != "identity":
            self._encoding = said

    def on_headers_complete(self) -> None:
        self._head_bytes = None

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # "go on", "early hints": the answer is still to come
            self._reset()
        elif self._answered is not None:
            self._finish()

    def _finish(self) -> None:
        answered, self._answered = self._answered, None
        assert answered is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        reply = Reply(self._parser.get_status_code(), self._headers, body)
        encoding, keeps = self._encoding, self._parser.should_keep_alive() and not self._ends_with_connection
        self._reset()
        if keeps and self._transport is not None and not self._transport.is_closing():
            self._due = self._loop.time() + _KEEP_ALIVE_S
            if self._timer is None or self._timer.when() > self._due:
                self._look_at(self._due)
            self._idle.append(self)
        else:
            self.drop()
        if answered.done():
            return
        if encoding is not None:
            try:
                reply = reply._replace(body=zlib.decompress(body, wbits=47))  # gzip or zlib, whichever it is
            except zlib.error:
                answered.set_exception(NotHttp(f"content-encoding {encoding[:20]}"))
                return
        answered.set_result(reply)

    def _fail(self, error: PlainHttpError) -> None:
        answered, self._answered = self._answered, None
        self.drop()
        if answered is not None and not answered.done():
            answered.set_exception(error)
