"""An OpenAI-compatible upstream that answers as `student` and as `teacher` from an outcome table.

With it the whole gateway can be run on real models' recorded answers, without the models. Raw ASGI: one lookup and one
body per request.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from server.engines.replay_table import Answer, ReplayTable, Side, answer_of, prompts_of

_MOST_BODY_BYTES = 16 << 20
_JSON = b"application/json"
_SSE = b"text/event-stream; charset=utf-8"


class _Refused(Exception):
    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "not_found_error" if status == 404 else "invalid_request_error"
        self.body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


class ReplayApp:
    """ASGI application. `tokens_per_second` is the pace of one answer; None answers at once."""

    def __init__(self, table: ReplayTable, tokens_per_second: float | None = None) -> None:
        self._table = table
        self._names = table.names()
        self._pause_s = 1 / tokens_per_second if tokens_per_second else 0.0
        self._created = int(time.time())
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            match scope["method"], scope["path"]:
                case "POST", "/v1/chat/completions":
                    await self._generate(receive, send, chat=True)
                case "POST", "/v1/completions":
                    await self._generate(receive, send, chat=False)
                case "GET", "/v1/models":
                    await _reply(send, 200, orjson.dumps(self._models()))
                case "GET", "/health":
                    await _reply(send, 200, b"")
                case method, path:
                    raise _Refused(404, f"{method} {path}: no such endpoint", code="not_found")
        except _Refused as refusal:
            await _reply(send, refusal.status, refusal.body)

    async def _generate(self, receive: Receive, send: Send, *, chat: bool) -> None:
        body = _parsed(await _read(receive))
        side = self._side(body)
        prompts = prompts_of(body)
        param = "messages" if chat else "prompt"
        if not prompts:
            raise _Refused(400, f"{param} must be given as text", param)
        row = self._table.find(prompts)
        if row is None:
            shown = prompts[-1] if len(prompts[-1]) <= 80 else prompts[-1][:77] + "..."
            raise _Refused(404, f"the outcome table has no row for this prompt: {shown!r}", param, "unknown_prompt")
        answer = answer_of(row, side).cut(_most_tokens(body))
        self._count += 1
        shapes = _Shapes(f"{'chatcmpl' if chat else 'cmpl'}-replay-{self._count}", self._created, body, answer, chat)
        work = self._stream(send, shapes) if body.get("stream") else self._whole(send, shapes)
        if self._pause_s:
            await _while_there(receive, work)
        else:
            await work

    async def _whole(self, send: Send, shapes: "_Shapes") -> None:
        if self._pause_s:
            await asyncio.sleep(self._pause_s * len(shapes.answer.pieces))
        await _reply(send, 200, orjson.dumps(shapes.whole()), row_id=shapes.answer.row_id)

    async def _stream(self, send: Send, shapes: "_Shapes") -> None:
        await _start(send, 200, _SSE, shapes.answer.row_id)
        if not self._pause_s:
            await _part(send, b"".join(shapes.events()), more=False)
            return
        began = asyncio.get_running_loop().time()
        for i, event in enumerate(shapes.events()):
            # Against the clock, not from event to event, so that the pace holds however busy the loop is.
            ahead_s = began + i * self._pause_s - asyncio.get_running_loop().time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            await _part(send, event, more=True)
        await _part(send, b"", more=False)

    def _side(self, body: Mapping[str, Any]) -> Side:
        name = body.get("model", "student")
        side = self._names.get(name) if isinstance(name, str) else None
        if side is None:
            known = ", ".join(list(self._names)[:6])
            raise _Refused(404, f"The model `{name}` does not exist; this is {known}.", "model", "model_not_found")
        return side

    def _models(self) -> dict[str, Any]:
        entries = [
            {"id": name, "object": "model", "created": self._created, "owned_by": "replay"} for name in self._names
        ]
        return {"object": "list", "data": entries}


class _Shapes:
    """One answer as OpenAI's JSON. `usage.cost` holds the recorded price in USD where the table has one."""

    def __init__(self, answer_id: str, created: int, body: Mapping[str, Any], answer: Answer, chat: bool) -> None:
        self.answer = answer
        self._chat = chat
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        self._include_usage = bool(options.get("include_usage"))
        self._continuous = self._include_usage and bool(options.get("continuous_usage_stats"))
        self._logprobs = bool(answer.logprobs) and (
            bool(body.get("logprobs")) if chat else body.get("logprobs") is not None
        )
        kind = "chat.completion" if chat else "text_completion"
        streamed = ".chunk" if chat and body.get("stream") else ""
        model = body.get("model", "student")
        self._head = {"id": answer_id, "object": kind + streamed, "created": created, "model": model}

    def whole(self) -> dict[str, Any]:
        choice = self._choice(0, len(self.answer.pieces))
        if self._chat:
            choice["message"] = {"role": "assistant", "content": self.answer.text}
        else:
            choice["text"] = self.answer.text
        return {**self._head, "choices": [choice], "usage": self._usage(len(self.answer.pieces))}

    def events(self) -> list[bytes]:
        """The first of them together with the stream's opening, the last with its end."""
        events = []
        for i, piece in enumerate(self.answer.pieces):
            choice = self._choice(i, i + 1)
            if self._chat:
                choice["delta"] = {"content": piece}
            else:
                choice["text"] = piece
            events.append(self._event([choice], i + 1))
        opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        if self._chat:
            events[0] = self._event([opening], 0) + events[0]
        if self._include_usage:
            usage = {**self._head, "choices": [], "usage": self._usage(len(self.answer.pieces))}
            events[-1] += _sse(usage)
        events[-1] += b"data: [DONE]\n\n"
        return events

    def _event(self, choices: list[dict[str, Any]], tokens: int) -> bytes:
        body = {**self._head, "choices": choices}
        return _sse({**body, "usage": self._usage(tokens)} if self._continuous else body)

    def _usage(self, tokens: int) -> dict[str, Any]:
        prompt = self.answer.prompt_tokens
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }
        if self.answer.cost_usd is not None:
            usage["cost"] = self.answer.cost_usd
        return usage

    def _choice(self, start: int, stop: int) -> dict[str, Any]:
        ended = stop == len(self.answer.pieces)
        return {
            "index": 0,
            "logprobs": self._entries(start, stop) if self._logprobs else None,
            "finish_reason": self.answer.finish_reason if ended else None,
        }

    def _entries(self, start: int, stop: int) -> dict[str, Any]:
        pieces, values = self.answer.pieces[start:stop], self.answer.logprobs[start:stop]
        if not self._chat:
            tops = [{piece: value} for piece, value in zip(pieces, values, strict=True)]
            return {"tokens": pieces, "token_logprobs": values, "top_logprobs": tops, "text_offset": []}
        return {
            "content": [
                {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": []}
                for piece, value in zip(pieces, values, strict=True)
            ]
        }


def _parsed(raw: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise _Refused(400, "the body must be a JSON object")
    return body


def _most_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        most = body.get(name)
        if most is None:
            continue
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise _Refused(400, f"{name} must be a whole number of at least 1", name)
        return most
    return None


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400, "the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > _MOST_BODY_BYTES:
            raise _Refused(413, f"the body is larger than {_MOST_BODY_BYTES:,} bytes")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _while_there(receive: Receive, work: Awaitable[None]) -> None:
    """Gives the work up when the client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _start(send: Send, status: int, content_type: bytes, row_id: str | None = None) -> None:
    headers = [(b"content-type", content_type)]
    if row_id is not None and row_id.isascii() and row_id.isprintable():
        headers.append((b"x-replay-row", row_id.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _reply(send: Send, status: int, body: bytes, row_id: str | None = None) -> None:
    await _start(send, status, _JSON, row_id)
    await _part(send, body, more=False)


async def _part(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _sse(body: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
