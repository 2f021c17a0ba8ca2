"""An upstream's chunks as pieces: text, how many tokens it is, their log-probabilities, and how a segment ended."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson

from server import sse
from server.answers import Usage, read_usage
from server.errors import UpstreamFault

NO_REASON = "no_reason"
"""The finish of a stream that ended without saying why."""


class Stream(Protocol):
    """`server.upstream.EventStream`, as far as it is needed here."""

    def batches(self) -> AsyncIterator[list[bytes]]: ...
    def malformed(self, what: str) -> UpstreamFault: ...
    def reported(self, data: bytes) -> UpstreamFault: ...
    def close(self) -> None: ...


class Source(Protocol):
    """`server.upstream.Upstream`, as far as it is needed here. Raises UpstreamFault."""

    @property
    def name(self) -> str: ...
    async def stream(self, path: str, body: bytes) -> Stream: ...


class Entry(NamedTuple):
    """One token among the log-probabilities."""

    token: str
    logprob: float
    tops: tuple[tuple[str, float], ...]
    """The likeliest tokens at this place, as far as they are told."""
    raw: Any
    """Chat: OpenAI's entry. Completions: the alternatives by their text."""

    def largest(self, silenced: str | None = None) -> float:
        """Log-probability of the likeliest token at this place. `silenced`: a token that could not be chosen. Engines
        tell log-probabilities as they are before any bias, so what it has belongs to the others, in proportion."""
        known = dict(self.tops)
        without = known.pop(silenced, -math.inf) if silenced is not None else -math.inf
        others = max([self.logprob, *known.values()])
        # Rounded, it may have left less than one of the others has.
        left = max(-math.expm1(min(without, 0.0)), math.exp(min(others, 0.0)))
        return others - math.log(left) if left > 0 else others


@dataclass(frozen=True, slots=True)
class Piece:
    text: str = ""
    tokens: int = 0
    """As far as they can be counted: by ids, by log-probabilities, else one where there is text."""
    ids: tuple[int, ...] | None = None
    entries: tuple[Entry, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    """What else a chat's delta carries (reasoning, say)."""
    finish: str | None = None
    stop_reason: int | str | None = None

    def before(self, index: int) -> "Piece":
        """The first `index` tokens; nothing where the text cannot be told apart by tokens."""
        if index <= 0 or self.text != "".join(entry.token for entry in self.entries):
            return Piece()
        kept = self.entries[:index]
        ids = None if self.ids is None or len(self.ids) != len(self.entries) else self.ids[:index]
        return Piece("".join(entry.token for entry in kept), index, ids, kept)

    def without(self, token_id: int | None, token: str) -> "Piece":
        """Without that token at its end, which was asked with and is no part of the answer."""
        entries = self.entries[:-1] if self.entries and self.entries[-1].token == token else self.entries
        ids = self.ids[:-1] if self.ids and self.ids[-1] == token_id else self.ids
        text = self.text.removesuffix(token)
        tokens = len(ids) if ids is not None else len(entries) or int(bool(text))
        return Piece(text, tokens, ids, entries, self.extra)


class Segment:
    """What one model writes in one call. The stream is read to its end: usage comes after the last text."""

    def __init__(self, stream: Stream, *, chat: bool) -> None:
        self._stream = stream
        self._chat = chat
        self._batches = stream.batches()
        self._waiting: list[Piece] = []
        self.head: dict[str, Any] = {}
        """`id`, `created`, `model` and the like, of the first chunk."""
        self.ended = False
        self.prompt_ids: tuple[int, ...] | None = None
        self.usage: Usage | None = None
        """What the upstream last said it has billed."""
        self.counted = 0
        """Tokens in the pieces so far."""

    async def begin(self) -> None:
        """Waits for the first good piece. Raises UpstreamFault."""
        if not self._waiting:
            async for batch in self._batches:
                self._waiting += self._pieces(batch)
                if self._waiting:
                    return

    async def pieces(self) -> AsyncIterator[Piece]:
        """Raises UpstreamFault where the stream breaks off."""
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            yield piece
        try:
            async for batch in self._batches:
                for piece in self._pieces(batch):
                    yield piece
        except UpstreamFault:
            if not self.ended:  # after that nothing is missing but the bill
                raise
        if not self.ended:
            self.ended = True
            yield Piece(finish=NO_REASON)

    def close(self) -> None:
        self._stream.close()

    def _pieces(self, batch: list[bytes]) -> list[Piece]:
        found = []
        for event in batch:
            data = sse.payload(event)
            if data is None or data == sse.DONE:
                continue
            try:
                chunk = orjson.loads(data)
            except orjson.JSONDecodeError:
                raise self._stream.malformed("an event is not JSON") from None
            if "error" in chunk and "choices" not in chunk:
                raise self._stream.reported(data)
            piece = self._piece(chunk)
            if piece is not None:
                self.counted += piece.tokens
                found.append(piece)
        return found

    def _piece(self, chunk: dict[str, Any]) -> Piece | None:
        if not self.head:
            self.head = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
            self.head.pop("prompt_token_ids", None)
        self.usage = read_usage(chunk) or self.usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is None:
            return None
        if self.prompt_ids is None:
            self.prompt_ids = _ids(chunk.get("prompt_token_ids") or choice.get("prompt_token_ids"))
        return self._of_choice(choice)

    def _of_choice(self, choice: dict[str, Any]) -> Piece | None:
        extra: dict[str, Any] = {}
        if self._chat:
            delta = choice.get("delta")
            delta = delta if isinstance(delta, dict) else {}
            text = delta.get("content")
            extra = {k: v for k, v in delta.items() if k not in ("role", "content") and v not in (None, [], "")}
        else:
            text = choice.get("text")
        text = text if isinstance(text, str) else ""
        entries = chat_entries(choice.get("logprobs")) if self._chat else completion_entries(choice.get("logprobs"))
        ids = _ids(choice.get("token_ids"))
        finish = choice.get("finish_reason")
        if not (text or entries or ids or extra or finish):
            return None  # a chat opens with its role
        tokens = len(ids) if ids is not None else len(entries) or int(bool(text))
        self.ended = self.ended or finish is not None
        return Piece(text, tokens, ids, entries, extra, finish, choice.get("stop_reason"))


def chat_entries(logprobs: Any) -> tuple[Entry, ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    found = []
    for raw in content:
        if not isinstance(raw, dict) or not isinstance(raw.get("logprob"), int | float):
            return ()
        tops = [
            (str(top.get("token", "")), top.get("logprob", raw["logprob"])) for top in raw.get("top_logprobs") or ()
        ]
        found.append(Entry(str(raw.get("token", "")), raw["logprob"], tuple(tops), raw))
    return tuple(found)


def completion_entries(logprobs: Any) -> tuple[Entry, ...]:
    if not isinstance(logprobs, dict):
        return ()
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return ()
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    found = []
    for token, value, top in zip(tokens, values, tops, strict=False):
        if not isinstance(value, int | float):
            return ()
        top = top if isinstance(top, dict) else {}
        found.append(Entry(str(token), value, tuple(top.items()), top))
    return tuple(found)


def _ids(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return tuple(value)
    return None
