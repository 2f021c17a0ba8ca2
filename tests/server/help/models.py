"""Two models that both know the right text and write it from wherever they are handed it.

A model is a text as UTF-8 bytes, cut into tokens at arbitrary bytes. What it is handed tells it where it stands: if the
hand-over lost or doubled anything, it would stand nowhere and the test fails there.
"""

import itertools
import json
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.answers import Usage
from server.errors import UpstreamBadAnswer, UpstreamFault
from server.generation_request import Endpoint, GenerationRequest, read_request
from server.help.answer import MixedAnswer
from server.help.probe import Traits
from server.help.shapes import Out
from server.help.watch import Looked
from server.help.worker import HelpWorker
from server.settings import Help as Settings

HELP_ID = 7
PROMPT = "Say it: "


@dataclass
class Model:
    """A `server.help.wire.Source`."""

    name: str
    text: str
    cuts: Sequence[int] = ()
    """Byte positions between tokens; none: a token per character."""
    asks_at: set[int] = field(default_factory=set)
    """Byte positions at which it asks for help, once each."""
    doubts_at: set[int] = field(default_factory=set)
    """Byte positions of tokens that it finds improbable."""
    per_batch: int = 1
    trims: bool = False
    per_chunk: int = 1
    """Tokens that come in one chunk."""
    unknown_stop: bool = False
    """Does not say why it stopped."""
    fails_after: int | None = None
    """Tokens until the connection breaks; 0: before the first."""
    instead: list[str] | None = None
    """What it writes whatever it was handed."""
    would_ask_at: set[int] = field(default_factory=set)
    """Byte positions at which it would most probably ask, and does not because its token is banned."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0

    async def stream(self, path: str, body: bytes) -> "Events":
        request = json.loads(body)
        self.bodies.append(request)
        if self.fails_after == 0:
            raise UpstreamBadAnswer(self.name, "broken")
        return Events(self, list(self._events(path, request)))

    def _events(self, path: str, body: dict[str, Any]) -> Any:
        chat = path == "/chat/completions"
        so_far = handed(body)
        if chat:
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        if self.instead is not None:
            pieces = [(piece.encode(), False) for piece in self.instead]
            at = 0
        else:
            so_far = so_far.rstrip() if self.trims else so_far
            whole = self.text.encode()
            at = len(so_far.encode())
            assert whole[:at] == so_far.encode(), f"{self.name} was handed {so_far!r}"
            pieces = [(token, True) for token in self._tokens(whole, at)]
        most = body.get("max_tokens", body.get("max_completion_tokens")) or 10**9
        may_ask = (
            HELP_ID in (body.get("stop_token_ids") or ()) and (body.get("logit_bias") or {}).get(str(HELP_ID)) != -100
        )
        count, waiting = 0, b""
        for token, known in pieces:
            if count == most:
                break
            if known and may_ask and at in self.asks_at:
                self.asks_at.discard(at)
                count += 1
                yield self._chunk(chat, body, "", "<help>", -9.0, "stop", HELP_ID)
                yield self._bill(count)
                return
            count += 1
            waiting += token
            text, waiting = whole_characters(waiting)
            last = "length" if count == most else None
            logprob = -5.0 if at in self.doubts_at else -0.01
            help_logprob = -9.5
            if at in self.would_ask_at:
                assert (body.get("logit_bias") or {}).get(str(HELP_ID)) == -100
                # As engines tell them: before any bias.
                logprob, help_logprob = logprob + math.log(0.1), math.log(0.9)
            at += len(token)
            yield self._chunk(chat, body, text, text, logprob, last, None, help_logprob)
        if count < most:
            count += 1
            yield self._chunk(chat, body, "", "", -0.01, None if self.unknown_stop else "stop", None)
        yield self._bill(count)

    def _tokens(self, whole: bytes, at: int) -> list[bytes]:
        cuts = self.cuts or [len(self.text[:i].encode()) for i in range(len(self.text))]
        places = [at, *sorted(cut for cut in cuts if at < cut < len(whole)), len(whole)]
        return [whole[a:b] for a, b in itertools.pairwise(places) if b > a]

    def _chunk(
        self,
        chat: bool,
        body: dict[str, Any],
        text: str,
        token: str,
        logprob: float,
        finish: str | None,
        why: Any,
        help_logprob: float = -9.5,
    ) -> dict[str, Any]:
        both = sorted({token: logprob, "<help>": help_logprob}.items(), key=lambda one: -one[1])
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "stop_reason": why, "logprobs": None}
        if chat:
            choice["delta"] = {"content": text}
            if body.get("logprobs"):
                entry = {"token": token, "logprob": logprob, "bytes": None}
                tops = [{"token": name, "logprob": value, "bytes": None} for name, value in both]
                choice["logprobs"] = {"content": [{**entry, "top_logprobs": tops[: body.get("top_logprobs", 0)]}]}
        else:
            choice["text"] = text
            if body.get("logprobs") is not None:
                likeliest = [dict(both[: body["logprobs"]])]
                choice["logprobs"] = {"tokens": [token], "token_logprobs": [logprob], "top_logprobs": likeliest}
        return {"id": f"of-{self.name}", "model": self.name, "created": 1, "choices": [choice]}

    def _bill(self, count: int) -> dict[str, Any]:
        return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}}


def handed(body: dict[str, Any]) -> str:
    """The answer so far in a request."""
    if "messages" in body:
        last = body["messages"][-1]
        if last["role"] != "assistant":
            assert not body.get("continue_final_message")
            return ""
        assert body["continue_final_message"]
        assert body["add_generation_prompt"] is False
        content: str = last["content"]
        return content
    prompt: str = body["prompt"]
    assert prompt.startswith(PROMPT)
    return prompt[len(PROMPT) :]


def whole_characters(data: bytes) -> tuple[str, bytes]:
    for length in range(len(data), max(len(data) - 4, -1), -1):
        try:
            return data[:length].decode(), data[length:]
        except UnicodeDecodeError:
            continue
    return "", data


class Events:
    """A `server.help.wire.Stream`."""

    def __init__(self, model: Model, chunks: list[dict[str, Any]]) -> None:
        self._model = model
        self._chunks = together(chunks, model.per_chunk)

    async def batches(self) -> AsyncIterator[list[bytes]]:
        model = self._model
        events = [b"data: " + json.dumps({"usage": None, **chunk}).encode() + b"\n\n" for chunk in self._chunks]
        events.append(b"data: [DONE]\n\n")
        for sent, start in enumerate(range(0, len(events), model.per_batch)):
            if model.fails_after is not None and sent > model.fails_after:
                raise UpstreamBadAnswer(model.name, "broken")
            yield events[start : start + model.per_batch]

    def malformed(self, what: str) -> UpstreamFault:
        return UpstreamBadAnswer(self._model.name, what)

    def reported(self, data: bytes) -> UpstreamFault:
        return UpstreamBadAnswer(self._model.name, data.decode())

    def close(self) -> None:
        self._model.closed += 1


def together(chunks: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Chunks of up to `count` tokens each, as servers send them that are ahead of their reader."""
    found: list[dict[str, Any]] = []
    for chunk in chunks:
        choice = chunk["choices"][0] if chunk["choices"] else None
        before = found[-1]["choices"][0] if found and found[-1]["choices"] else None
        opening = before is not None and "role" in before.get("delta", {})
        if (
            choice is None
            or before is None
            or opening
            or found[-1]["tokens"] >= count
            or "role" in choice.get("delta", {})
        ):
            found.append({**chunk, "tokens": 1})
            continue
        found[-1]["tokens"] += 1
        if "delta" in choice:
            before["delta"]["content"] += choice["delta"]["content"]
        else:
            before["text"] += choice["text"]
        before["finish_reason"], before["stop_reason"] = choice["finish_reason"], choice["stop_reason"]
        for name, values in (choice["logprobs"] or {}).items():
            before["logprobs"][name] += values
    return found


@dataclass
class Help:
    tokens: int
    usage: Usage = field(default_factory=Usage)
    usd: float = 0.0
    counts: bool = False
    outcome: str = "open"
    written: int = 0

    def settle(self, usage: Usage | None, written: int) -> None:
        if self.outcome == "open":
            self.outcome, self.counts, self.written = "settled", True, written
            self.usage = usage or Usage(100, self.tokens)

    def release(self) -> None:
        if self.outcome == "open":
            self.outcome = "released"


@dataclass
class Ledger:
    """Grants or refuses by a list; all where it is empty."""

    grants: list[bool] = field(default_factory=list)
    given: list[Help] = field(default_factory=list)

    async def admit(self, text_bytes: int, tokens: int) -> Help | None:
        if self.grants and not self.grants.pop(0):
            return None
        self.given.append(Help(tokens))
        return self.given[-1]


class Doubting:
    """Wants help where a token is improbable."""

    async def look(self, text: str, largest: tuple[float, ...]) -> Looked:
        return Looked(min(largest) < -1.0, -min(largest), 1.0)


def asked(endpoint: Endpoint = "chat", **fields: Any) -> GenerationRequest:
    body: dict[str, Any] = {"model": "auto", **fields}
    if endpoint == "chat":
        body.setdefault("messages", [{"role": "user", "content": PROMPT}])
    else:
        body["prompt"] = PROMPT
    return read_request(endpoint, json.dumps(body).encode())


def mixed(
    request: GenerationRequest, student: Model, teacher: Model, ledger: Ledger | None = None, **settings: Any
) -> MixedAnswer:
    given = Settings(**{"by": "student", "token_id": HELP_ID, **settings})
    help_id, silenced = (HELP_ID, None) if given.by == "student" else (None, given.token_id)
    worker = HelpWorker(given, traits=Traits(help_id, silenced, student.trims, teacher.trims))
    watch = Doubting() if given.by == "policy" else None
    return MixedAnswer(worker, request, student, teacher, ledger or Ledger(), watch=watch)


async def run(answer: MixedAnswer) -> tuple[str, list[Out]]:
    """(text, pieces)"""
    await answer.begin()
    outs = [out async for out in answer.pieces()]
    answer.close()
    return "".join(out.text for out in outs), outs
