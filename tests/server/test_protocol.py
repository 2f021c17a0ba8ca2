"""The short way of generation and ASGI's way answer alike, byte for byte, whatever a client does to its connection.

A query string, which means nothing to generation, makes a request take ASGI's way.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.app import App
from tests.server.gateways import Running, running_gateway
from tests.upstreams import fault_upstream

CHAT = "/v1/chat/completions"
WAYS = ("", "?way=asgi")
ASK = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}]}


@dataclass
class Wire:
    """A client that writes bytes and reads answers, and knows no more of HTTP than it must."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.01)

    async def answer(self) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """(status line, headers, body)"""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.rstrip().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        if b"content-length" in headers:
            return first, headers, await self.reader.readexactly(int(headers[b"content-length"]))
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
            body += chunk[:-2]
            if not size:
                return first, headers, body

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 20) == b""


@asynccontextmanager
async def wire(gateway: Running) -> AsyncIterator[Wire]:
    port = int(gateway.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def request(way: str, body: Any = ASK, *more: bytes, version: bytes = b"1.1", path: str = CHAT) -> bytes:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = (b"POST %b%b HTTP/%b" % (path.encode(), way.encode(), version), b"Host: x", *more)
    return b"\r\n".join((*lines, b"Content-Length: %d" % len(raw), b"", raw))


@asynccontextmanager
async def gateway_on(tmp_path: Path, mode: Any = "ok", **settings: Any) -> AsyncIterator[tuple[Running, Any]]:
    async with (
        fault_upstream(mode=mode) as student,
        running_gateway(tmp_path, student.url, None, **settings) as gateway,
    ):
        yield gateway, student


def same(answer: tuple[bytes, dict[bytes, bytes], bytes]) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Without what no two answers share."""
    status, headers, body = answer
    changing = (b"x-tw-decision-id", b"date")
    body = re.sub(rb'"(?:id|created)":\s?(?:"[^"]*"|\d+)', b"", body)
    return status, {name: value for name, value in headers.items() if name not in changing}, body


REQUESTS = {
    "whole": lambda way: [request(way)],
    "completions": lambda way: [request(way, {"model": "auto", "prompt": "2+2?"}, path="/v1/completions")],
    "streamed": lambda way: [request(way, {**ASK, "stream": True})],
    "in pieces": lambda way: [bytes([byte]) for byte in request(way)[:40]] + [request(way)[40:90], request(way)[90:]],
    "chunked": lambda way: [
        b"POST " + CHAT.encode() + way.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        *(b"%x\r\n%b\r\n" % (len(part), part) for part in (orjson.dumps(ASK)[:20], orjson.dumps(ASK)[20:])),
        b"0\r\n\r\n",
    ],
    "old": lambda way: [request(way, version=b"1.0")],
    "asked to close": lambda way: [request(way, ASK, b"Connection: close")],
    "not json": lambda way: [request(way, b"{")],
    "unknown model": lambda way: [request(way, {**ASK, "model": "gpt-17"})],
    "too large, said": lambda way: [request(way, b"x" * 5000)],
    "too large, not said": lambda way: [
        b"POST " + CHAT.encode() + way.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        *[b"3e8\r\n" + b"x" * 1000 + b"\r\n"] * 5,
    ],
    "too slow": lambda way: [request(way)[:-5]],
    "wrong key": lambda way: [request(way, ASK, b"Authorization: Bearer tw-wrong")],
    "odd header": lambda way: [request(way, ASK, b"X-TW-Conversation: \xe4\xff")],
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_both_ways_answer_alike(tmp_path: Path, kind: str) -> None:
    found = []
    async with gateway_on(tmp_path, max_body_bytes=4096, timeouts={"upload_s": 0.3}) as (gateway, _):
        for way in WAYS:
            async with wire(gateway) as client:
                await client.send(*REQUESTS[kind](way))
                answer = same(await client.answer())
                closes = answer[1].get(b"connection") == b"close"
                if closes:
                    assert await client.closed()
                else:  # and the connection is fit for another request
                    await client.send(request(way))
                    assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
                found.append((answer, closes))
    assert found[0] == found[1]


async def test_generation_takes_the_short_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = []
    async with gateway_on(tmp_path) as (gateway, _), wire(gateway) as client:
        short, asgi = App.answer, App.__call__

        async def through_short(self: App, *arguments: Any) -> None:
            ways.append("short")
            await short(self, *arguments)

        async def through_asgi(self: App, *arguments: Any) -> None:
            ways.append("asgi")
            await asgi(self, *arguments)

        monkeypatch.setattr(App, "answer", through_short)
        monkeypatch.setattr(App, "__call__", through_asgi)
        for way in WAYS:
            await client.send(request(way))
            await client.answer()
    assert ways == ["short", "asgi"]


async def test_an_answer_is_one_write(tmp_path: Path) -> None:
    async with gateway_on(tmp_path) as (gateway, _), wire(gateway) as client:
        await client.send(request(""))
        first = await client.reader.read(1 << 20)
    head, _, body = first.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"


@pytest.mark.parametrize("way", WAYS)
async def test_requests_sent_ahead_are_answered_in_order(tmp_path: Path, way: str) -> None:
    async with gateway_on(tmp_path, "slow") as (gateway, student), wire(gateway) as client:
        student.delay_s = 0.05
        asked = [request(way, {**ASK, "messages": [{"role": "user", "content": f"{i}+0?"}]}) for i in range(4)]
        await client.send(b"".join(asked[:3]) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + asked[3])
        answers = [await client.answer() for _ in range(5)]
    assert [status.split()[1] for status, _, _ in answers] == [b"200"] * 5
    ids = [headers[b"x-tw-decision-id"] for _, headers, _ in (*answers[:3], answers[4])]
    assert sorted(ids, key=lambda id: int(id.split(b"_")[2])) == ids
    assert b"x-tw-route" not in answers[3][1]


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_waits_to_be_told_is_told_to_go_on(tmp_path: Path, way: str) -> None:
    whole = request(way, ASK, b"Expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    async with gateway_on(tmp_path) as (gateway, _), wire(gateway) as client:
        await client.send(head + b"\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer())[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_hang_up_ends_the_call_and_is_in_the_record(tmp_path: Path, way: str, *, stream: bool) -> None:
    async with gateway_on(tmp_path, "hang_mid_stream" if stream else "hang") as (gateway, student):
        async with wire(gateway) as client:
            await client.send(request(way, {**ASK, "stream": stream}))
            if stream:
                await client.reader.readuntil(b"\r\n\r\n")
            while not student.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _ in range(500):
            if gateway.gateway.log.recent(1) and student.requests[0].disconnected:
                break
            await asyncio.sleep(0.01)
        (record,) = gateway.gateway.log.recent(5)
    assert (record["disconnected"], record["status"]) == (True, 499)
    assert student.requests[0].disconnected


async def test_a_client_that_leaves_while_it_sends_is_no_request(tmp_path: Path) -> None:
    async with gateway_on(tmp_path) as (gateway, student):
        for way in WAYS:
            async with wire(gateway) as client:
                await client.send(request(way)[:-5])
        await asyncio.sleep(0.1)
        assert gateway.gateway.log.recent(5) == []
        assert student.requests == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_fault_of_our_own_is_a_500_and_says_nothing_of_itself(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with gateway_on(tmp_path) as (gateway, _), wire(gateway) as client:
        monkeypatch.setattr(gateway.gateway, "side_of", lambda model: 1 / 0)
        await client.send(request(way))
        status, headers, body = await client.answer()
        assert await client.closed()
    assert (status, headers[b"connection"], body) == (
        b"HTTP/1.1 500 Internal Server Error", b"close", b"Internal Server Error",
    )  # fmt: skip
    assert "ZeroDivisionError" in capfd.readouterr().err


async def test_idle_connections_are_closed_and_busy_ones_are_not(tmp_path: Path) -> None:
    async with gateway_on(tmp_path, "slow") as (gateway, student):
        gateway.server.config.timeout_keep_alive = 0.3  # type: ignore[assignment]
        student.delay_s = 0.5
        async with wire(gateway) as client:
            for _ in range(2):
                await client.send(request(""))
                assert (await client.answer())[0] == b"HTTP/1.1 200 OK"
            assert await client.closed()
