"""The lean client says of any server what the general one says, and uses connections no longer than it may."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import plain_http
from server.errors import UpstreamFault
from server.plain_http import BrokenOff, CannotConnect, NotHttp, PlainHttp, Silent
from server.settings import Timeouts
from server.settings import Upstream as UpstreamSettings
from server.upstream import Upstream

GOOD = orjson.dumps({"choices": [{"index": 0, "message": {"content": "Grüße"}}], "usage": {"prompt_tokens": 1}})
REQUEST = b'{"model":"m"}'


@dataclass
class Raw:
    """A server that answers every request on a connection with the same pieces of bytes."""

    port: int = 0
    pieces: list[bytes] = field(default_factory=list)
    ends: str = "keeps"
    """keeps, closes, or resets the connection after the pieces"""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    close: Callable[[], None] = lambda: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                self.requests.append(head + await reader.readexactly(int(length.split(b":")[1])))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.ends == "resets":
                    writer.transport.abort()
                if self.ends != "keeps":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def raw_server(*pieces: bytes, ends: str = "keeps") -> AsyncIterator[Raw]:
    raw = Raw(pieces=list(pieces), ends=ends)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    raw.close = server.close
    try:
        yield raw
    finally:
        server.close()
        for writer in raw.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def client(port: int, *, silence_s: float = 5.0, **headers: str) -> PlainHttp:
    found = PlainHttp.to(f"http://127.0.0.1:{port}/v1", headers, connect_s=2.0, silence_s=silence_s)
    assert found is not None
    return found


def ok(body: bytes = GOOD, *more: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *more, b"content-length: %d" % len(body), b"", body))


# One answer


async def test_the_request_is_whole_and_the_connection_is_used_again() -> None:
    async with raw_server(ok(GOOD, b"Content-Type: application/json")) as raw:
        http = client(raw.port, authorization="Bearer k")
        for _ in range(3):
            reply = await http.post("/chat/completions", REQUEST)
            assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/json", GOOD)
        http.close()
    assert raw.connections == 1
    head, _, body = raw.requests[-1].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: 127.0.0.1:%d" % raw.port,
        b"user-agent: training-wheels",
        b"accept: */*",
        b"authorization: Bearer k",
        b"content-length: %d" % len(REQUEST),
    ]
    assert body == REQUEST


async def test_requests_at_once_have_connections_of_their_own() -> None:
    async with raw_server(ok()) as raw:
        http = client(raw.port)
        replies = await asyncio.gather(*(http.post("/x", REQUEST) for _ in range(5)))
        await http.post("/x", REQUEST)
        http.close()
    assert [reply.body for reply in replies] == [GOOD] * 5
    assert raw.connections == 5


async def test_a_large_request_arrives_whole() -> None:
    async with raw_server(ok()) as raw:
        http = client(raw.port)
        await http.post("/x", b"x" * 3_000_000)
        http.close()
    assert raw.requests[0].endswith(b"\r\n\r\n" + b"x" * 3_000_000)


async def test_an_answer_after_early_hints_is_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with raw_server(b"HTTP/1.1 100 Continue\r\n\r\n", hints, ok()) as raw:
        http = client(raw.port)
        assert await http.post("/x", REQUEST) == (200, {"content-length": str(len(GOOD))}, GOOD)
        http.close()


# Connections


async def test_a_connection_that_has_been_idle_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_http, "_KEEP_ALIVE_S", 0.05)
    async with raw_server(ok()) as raw:
        http = client(raw.port)
        await http.post("/x", REQUEST)
        await asyncio.sleep(0.2)
        assert http._idle == []
        await http.post("/x", REQUEST)
        http.close()
    assert raw.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async with raw_server(ok(), ends="closes") as raw:
        http = client(raw.port)
        for _ in range(2):
            assert (await http.post("/x", REQUEST)).status == 200
            await asyncio.sleep(0.05)
        http.close()
    assert raw.connections == 2


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async with raw_server(ok(), b"HTTP/1.1 200 OK\r\n") as raw:
        http = client(raw.port)
        await http.post("/x", REQUEST)
        await asyncio.sleep(0.05)
        assert http._idle == []


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    async with raw_server(ok() + ok(b'{"choices":["stolen"]}')) as raw:
        http = client(raw.port)
        assert [(await http.post("/x", REQUEST)).body for _ in range(3)] == [GOOD] * 3
    assert raw.connections == 3


async def test_a_client_that_leaves_takes_its_connection_along() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n") as raw:
        http = client(raw.port)
        asking = asyncio.ensure_future(http.post("/x", REQUEST))
        while not raw.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert http._idle == []


# Failures


async def test_nobody_listening_is_said() -> None:
    async with raw_server() as raw:
        port = raw.port
    with pytest.raises(CannotConnect):
        await client(port).post("/x", REQUEST)


async def test_a_name_with_several_addresses_is_reached_at_the_one_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with raw_server(ok()) as raw, raw_server() as gone:
        nobody = gone.port
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def resolved(host: str, port: int, **more: Any) -> list[Any]:
            if host != "two.example":
                return await real(host, port, **more)
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, ("127.0.0.1", nobody)), (*kind, ("127.0.0.1", raw.port))]

        gone.close()
        monkeypatch.setattr(loop, "getaddrinfo", resolved)
        http = PlainHttp.to("http://two.example/v1", {}, connect_s=2.0, silence_s=5.0)
        assert http is not None
        assert (await http.post("/x", REQUEST)).body == GOOD
        http.close()
    assert b"host: two.example\r\n" in raw.requests[0]


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxx"]])
async def test_silence_is_bounded_before_and_inside_an_answer(pieces: list[bytes]) -> None:
    async with raw_server(*pieces) as raw:
        with pytest.raises(Silent):
            await client(raw.port, silence_s=0.1).post("/x", REQUEST)


async def test_silence_is_counted_from_the_last_byte_of_each_answer() -> None:
    async with raw_server(ok()) as raw:
        http = client(raw.port, silence_s=0.3)
        for _ in range(4):
            await http.post("/x", REQUEST)
            await asyncio.sleep(0.15)
        raw.pieces = []
        with pytest.raises(Silent):
            await http.post("/x", REQUEST)


@pytest.mark.parametrize("ends", ["closes", "resets"])
@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxx"])
async def test_an_answer_that_breaks_off_is_said(piece: bytes, ends: str) -> None:
    async with raw_server(piece, ends=ends) as raw:
        with pytest.raises(BrokenOff):
            await client(raw.port).post("/x", REQUEST)


@pytest.mark.parametrize(
    "piece",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 60_000,
        ok(b"no gzip", b"content-encoding: gzip"),
    ],
)
async def test_what_is_no_http_is_said(piece: bytes) -> None:
    async with raw_server(piece) as raw:
        with pytest.raises(NotHttp):
            await client(raw.port).post("/x", REQUEST)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/v1",
        "http://user:password@host/v1",
        "http://host/v1?key=x",
        "http://hö.st/v1",
        "http:///v1",
        "http://host:99999/v1",
        "http://host/a%20b",
    ],
)
def test_what_it_has_no_words_for_is_left_to_others(url: str) -> None:
    assert PlainHttp.to(url, {}, connect_s=1.0, silence_s=1.0) is None


def test_a_key_that_would_break_the_head_is_left_to_others() -> None:
    assert PlainHttp.to("http://h/v1", {"authorization": "Bearer a\r\nb: c"}, connect_s=1.0, silence_s=1.0) is None


# The same as the general client


@dataclass(frozen=True)
class Script:
    pieces: list[bytes]
    ends: str


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Answers of all sorts, cut in all places; some of them break off."""
    body = draw(st.sampled_from([GOOD, GOOD, b"<html>", b"", b"[]", b'{"error":{"message":"no"}}', b"{}"]))
    status = draw(st.sampled_from([200, 200, 200, 400, 401, 404, 429, 500, 503, 307]))
    lines = [b"HTTP/1.%d %d Said" % (draw(st.sampled_from([1, 1, 0])), status)]
    lines.append(draw(st.sampled_from([b"Content-Type: application/json", b"content-type:text/html; charset=utf-8"])))
    if status in (429, 503) and draw(st.booleans()):
        lines.append(b"Retry-After: 7")
    match draw(st.sampled_from(["plain", "plain", "gzip", "deflate"])):
        case "gzip":
            body = gzip.compress(body, mtime=0)
            lines.append(b"content-encoding: gzip")
        case "deflate":
            body = zlib.compress(body)
            lines.append(b"Content-Encoding: deflate")
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    if lines[0].startswith(b"HTTP/1.0") and framing == "chunked":
        framing = "length"
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(body)))
        parts = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        lines.append(b"Connection: close")
    if framing != "end" and draw(st.booleans()):
        lines.append(b"Connection: close")
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    ends = "closes"
    if framing != "end" and draw(st.integers(0, 3)) == 0:
        whole = whole[: draw(st.integers(0, len(whole) - 1))]
    cuts = sorted({0, *draw(st.lists(st.integers(0, len(whole)), max_size=4)), len(whole)})
    return Script([whole[a:b] for a, b in pairwise(cuts)], ends)


async def said(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        answer = await ask()
    except UpstreamFault as fault:
        return type(fault), fault.status, str(fault).split(" (")[0], fault.body(), fault.headers()
    return answer.raw, answer.data


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts())
def test_both_clients_say_the_same_of_any_answer(script: Script) -> None:
    async def both() -> None:
        async with (
            raw_server(*script.pieces, ends=script.ends) as raw,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
        ):
            url = f"http://127.0.0.1:{raw.port}/v1"
            lean = Upstream("student", UpstreamSettings(url=url), url, http, Timeouts())
            general = Upstream("student", UpstreamSettings(url=url), url, http, Timeouts())
            assert lean._plain is not None
            general._plain = None
            expected = await said(lambda: general.answer("/chat/completions", REQUEST))
            assert await said(lambda: lean.answer("/chat/completions", REQUEST)) == expected
            lean.close()
            await asyncio.sleep(0)

    asyncio.run(both())
