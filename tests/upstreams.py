"""Upstreams for tests: an OpenAI-compatible server inside the test's own loop that answers by script, or misbehaves.

    async with fault_upstream(mode="cut") as up:
        ...                      # up.url is "http://127.0.0.1:PORT/v1"
        up.mode = "ok"           # may change at any time; so may every other field of `Behaviour`
        up.requests[0].body      # what came in, and whether its client went away

    async with scripted_pair(student={"2+2?": "4"}, teacher={"2+2?": "It is 4."}) as pair:
        pair.student.url, pair.teacher.url

Answers follow vLLM's shapes: usage, log-probabilities, `stop_reason`, `token_ids` on request, `continuous_usage_stats`.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Mode = Literal[
    "ok",
    "down",  # nobody listens on the port: connection refused
    "slow",  # `delay_s` before the status line
    "slow_stream",  # `delay_s` before every streamed token
    "hang",  # reads the request and never answers
    "hang_mid_stream",  # `cut_after` tokens, then nothing, connection open
    "cut",  # `cut_after` tokens (streamed) or half a body, then the connection is reset
    "no_done",  # a stream that ends politely after `cut_after` tokens without finish_reason and [DONE]
    "malformed_sse",  # a stream with a line of broken JSON in the middle
    "error_mid_stream",  # what vLLM does when it fails late: a data line that holds an error
    "html",  # 200 with a page
    "html_502",  # a proxy's error page
    "not_json",  # application/json that is not
    "wrong_shape",  # JSON without `choices`
    "empty",  # 200, no body
    "redirect",  # 307 to `redirect_to`
    "400",
    "401",
    "404",
    "429",
    "429_retry_after",
    "500",
    "500_retry_after",
    "503",
]
HTML = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
ERROR_TYPES = {
    400: ("invalid_request_error", "context_length_exceeded", "This model's maximum context length is 64 tokens."),
    401: ("authentication_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("not_found_error", "model_not_found", "The model does not exist."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error."),
    503: ("server_error", None, "The engine is overloaded."),
}


@dataclass(frozen=True)
class Answer:
    """What the model says. Tokens are the pieces a stream sends; each has a log-probability."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...] = ()
    finish_reason: str = "stop"
    stop_reason: int | str | None = None
    """A stop token's id or a stop string, as vLLM reports it."""
    prompt_tokens: int = 5
    cached_tokens: int | None = None
    """Of the prompt, in `prompt_tokens_details`, as vLLM reports it where it is told to; None: no such field."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def answer(text: str, logprob: float = -0.1, finish_reason: str = "stop") -> Answer:
    """`text` cut into one token per word, each with the same log-probability."""
    words = text.split(" ")
    tokens = tuple(word if i == 0 else " " + word for i, word in enumerate(words))
    return Answer(tokens, (logprob,) * len(tokens), finish_reason)


def last_user(body: Mapping[str, Any]) -> str:
    """The last user message of a chat request, or the prompt of a completion."""
    for message in reversed(body.get("messages") or []):
        if message.get("role") == "user":
            content = message["content"]
            return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


Script = Mapping[str, "Answer | str"] | Callable[[Mapping[str, Any]], "Answer | str"]


@dataclass
class Received:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes
    body: dict[str, Any] | None
    disconnected: bool = False
    """The client went away before the answer was complete."""
    tokens_sent: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the answer is complete or the client has gone."""


@dataclass
class Behaviour:
    mode: Mode = "ok"
    script: Script = field(default_factory=dict)
    name: str = "upstream"
    """The model's name, and the first word of an answer that the script does not hold."""
    delay_s: float = 0.2
    token_delay_s: float = 0.0
    """Between streamed tokens, in every mode."""
    cut_after: int = 2
    retry_after: str = "7"
    redirect_to: str = "http://127.0.0.1:1/elsewhere"
    faults_left: int | None = None
    """How many more requests the fault hits before the upstream is well again; None: all."""


class FaultUpstream(Behaviour):
    """A running upstream. `requests` grows with every request to a path below /v1 other than /v1/models."""

    def __init__(self, **behaviour: Any) -> None:
        super().__init__(**behaviour)
        self.requests: list[Received] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def listening(self) -> bool:
        return self._runner is not None

    async def come_up(self) -> None:
        """Listens; after the first time on the same port as before."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_route("*", "/v1/{tail:.*}", self._receive)
        # Cancelling the handler is how aiohttp says that the client has gone.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def go_down(self) -> None:
        """Closes the port and resets every open connection."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "test"}]})

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = None
        body = parsed if isinstance(parsed, dict) else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.method, request.path, headers, raw, body)
        self.requests.append(received)
        try:
            return await self._respond(request, received)
        except (asyncio.CancelledError, ConnectionError):
            received.disconnected = True
            raise
        finally:
            received.finished.set()

    def _take_mode(self) -> Mode:
        if self.faults_left is None or self.mode == "ok":
            return self.mode
        if self.faults_left <= 0:
            return "ok"
        self.faults_left -= 1
        return self.mode

    async def _respond(self, request: web.Request, received: Received) -> web.StreamResponse:
        mode = self._take_mode()
        match mode:
            case "slow":
                await asyncio.sleep(self.delay_s)
            case "hang":
                await asyncio.sleep(3600)
            case "html":
                return web.Response(text=HTML, content_type="text/html")
            case "html_502":
                return web.Response(status=502, text=HTML, content_type="text/html")
            case "not_json":
                return web.Response(text='{"id": "x", "choices": [', content_type="application/json")
            case "wrong_shape":
                return web.json_response({"result": "fine"})
            case "empty":
                return web.Response(body=b"")
            case "redirect":
                return web.Response(status=307, headers={"location": self.redirect_to})
            case _ if mode[:3].isdigit():
                return self._error(int(mode[:3]), retry_after=mode.endswith("_retry_after"))
        body = received.body
        if request.path.endswith("/embeddings"):
            return web.json_response({"object": "list", "data": [], "model": self.name, "usage": {"prompt_tokens": 1}})
        if body is None or not request.path.endswith("/completions"):
            return self._error(404)
        reply = self._answer_to(body)
        writer = _Shapes(self.name, body, reply, chat="chat" in request.path)
        if body.get("stream"):
            return await self._stream(request, received, writer, mode)
        if mode == "cut":
            await self._cut_body(request, writer)
        received.tokens_sent = len(reply.tokens)
        return web.json_response(writer.whole())

    def _answer_to(self, body: Mapping[str, Any]) -> Answer:
        question = last_user(body)
        found = self.script(body) if callable(self.script) else self.script.get(question)
        if found is None:
            found = f"{self.name} says: {question}"
        return answer(found) if isinstance(found, str) else found

    def _error(self, status: int, *, retry_after: bool = False) -> web.Response:
        kind, code, message = ERROR_TYPES[status]
        headers = {"retry-after": self.retry_after} if retry_after else None
        error = {"message": message, "type": kind, "param": None, "code": code}
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _stream(
        self, request: web.Request, received: Received, shapes: "_Shapes", mode: Mode
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        if shapes.chat:
            await response.write(_event(shapes.opening()))
        for i in range(len(shapes.answer.tokens)):
            if i == self.cut_after:
                match mode:
                    case "cut":
                        _reset(request)
                        return response
                    case "hang_mid_stream":
                        await asyncio.sleep(3600)
                    case "no_done":
                        return response
                    case "malformed_sse":
                        await response.write(b'data: {"choices": [{"index": 0, "del\n\n')
                    case "error_mid_stream":
                        kind, _, message = ERROR_TYPES[500]
                        await response.write(_event({"error": {"message": message, "type": kind, "code": 500}}))
                        await response.write(b"data: [DONE]\n\n")
                        return response
            pause_s = self.delay_s if mode == "slow_stream" else self.token_delay_s
            await asyncio.sleep(pause_s)
            await response.write(_event(shapes.piece(i)))
            received.tokens_sent += 1
        if shapes.include_usage:
            await response.write(_event(shapes.closing()))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _cut_body(self, request: web.Request, shapes: "_Shapes") -> None:
        data = json.dumps(shapes.whole()).encode()
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        await asyncio.sleep(0.02)  # let the first half leave before the reset discards it
        _reset(request)
        raise ConnectionResetError


class _Shapes:
    """The JSON of one answer, whole or in pieces, for chat and for completions."""

    def __init__(self, model: str, body: Mapping[str, Any], reply: Answer, *, chat: bool) -> None:
        self.answer = reply
        self.chat = chat
        options = body.get("stream_options") or {}
        self.include_usage = bool(options.get("include_usage"))
        self._continuous = self.include_usage and bool(options.get("continuous_usage_stats"))
        self._logprobs = bool(body.get("logprobs")) if chat else body.get("logprobs") is not None
        self._token_ids = bool(body.get("return_token_ids"))
        kind = "chat.completion" if chat else "text_completion"
        streamed = bool(body.get("stream"))
        self._head = {
            "id": "chatcmpl-1" if chat else "cmpl-1",
            "object": f"{kind}.chunk" if chat and streamed else kind,
            "created": 1_790_000_000,
            "model": body.get("model", model),
        }

    def usage(self, tokens: int) -> dict[str, Any]:
        prompt, cached = self.answer.prompt_tokens, self.answer.cached_tokens
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        return usage if cached is None else {**usage, "prompt_tokens_details": {"cached_tokens": cached}}

    def whole(self) -> dict[str, Any]:
        reply, last = self.answer, len(self.answer.tokens)
        choice = self._choice(0, last)
        if self.chat:
            choice["message"] = {"role": "assistant", "content": reply.text}
        else:
            choice["text"] = reply.text
        return {**self._head, "choices": [choice], "usage": self.usage(last)}

    def opening(self) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._with_usage({**self._head, "choices": [choice]}, 0)

    def piece(self, i: int) -> dict[str, Any]:
        choice = self._choice(i, i + 1)
        if self.chat:
            choice["delta"] = {"content": self.answer.tokens[i]}
        else:
            choice["text"] = self.answer.tokens[i]
        return self._with_usage({**self._head, "choices": [choice]}, i + 1)

    def closing(self) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": self.usage(len(self.answer.tokens))}

    def _with_usage(self, chunk: dict[str, Any], tokens: int) -> dict[str, Any]:
        return {**chunk, "usage": self.usage(tokens)} if self._continuous else chunk

    def _choice(self, start: int, stop: int) -> dict[str, Any]:
        reply = self.answer
        ended = stop == len(reply.tokens)
        choice: dict[str, Any] = {
            "index": 0,
            "logprobs": self._logprob_entries(start, stop) if self._logprobs else None,
            "finish_reason": reply.finish_reason if ended else None,
            "stop_reason": reply.stop_reason if ended else None,
        }
        if self._token_ids:
            choice["token_ids"] = list(range(start, stop))
        return choice

    def _logprob_entries(self, start: int, stop: int) -> dict[str, Any]:
        tokens = self.answer.tokens[start:stop]
        values = self.answer.logprobs[start:stop] or (-0.1,) * len(tokens)
        if not self.chat:
            top = [{token: value} for token, value in zip(tokens, values, strict=True)]
            return {"tokens": list(tokens), "token_logprobs": list(values), "top_logprobs": top, "text_offset": []}
        entries = []
        for token, value in zip(tokens, values, strict=True):
            data = list(token.encode())
            top_entry = {"token": token, "logprob": value, "bytes": data}
            entries.append({**top_entry, "top_logprobs": [top_entry]})
        return {"content": entries}


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def fault_upstream(mode: Mode = "ok", **behaviour: Any) -> AsyncIterator[FaultUpstream]:
    """An upstream on a free port for as long as the block runs; `behaviour` are the fields of `Behaviour`."""
    upstream = FaultUpstream(mode=mode, **behaviour)
    if mode == "down":
        upstream.port = free_port()
    else:
        await upstream.come_up()
    try:
        yield upstream
    finally:
        await upstream.go_down()


@dataclass(frozen=True)
class Pair:
    student: FaultUpstream
    teacher: FaultUpstream


@asynccontextmanager
async def scripted_pair(student: Script | None = None, teacher: Script | None = None) -> AsyncIterator[Pair]:
    """Two well-behaved upstreams named `student` and `teacher`; a question without a script gets "<name> says: ..."."""
    async with (
        fault_upstream(name="student", script=student or {}) as first,
        fault_upstream(name="teacher", script=teacher or {}) as second,
    ):
        yield Pair(first, second)
