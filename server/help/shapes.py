"""Pieces of an answer as the client's OpenAI chunks, or as one answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from server import sse
from server.answers import Usage
from server.generation_request import GenerationRequest
from server.help.wire import Entry

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Out:
    """What may go to the client."""

    text: str
    entries: tuple[Entry, ...] = ()
    extra: Json = field(default_factory=dict)


class Shapes:
    """Writes one answer."""

    def __init__(self, request: GenerationRequest, hidden: str | None) -> None:
        """`hidden`: a token that no client may see, among log-probabilities neither."""
        self._request = request
        self._chat = request.endpoint == "chat"
        self._hidden = hidden
        self._offset = 0
        self.head: Json = {}
        """Of the student's first chunk: `id`, `created`, `model`."""

    def opening(self) -> bytes:
        if not self._chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], Usage())

    def chunk(self, out: Out, usage: Usage) -> bytes:
        return self._event([self._choice(out.text, out.entries, out.extra, None, None)], usage)

    def closing(self, out: Out, finish: str, stop_reason: int | str | None, usage: Usage) -> bytes:
        """The last text, how the answer ended, usage where it was asked for, and the end of the stream."""
        events = self._event([self._choice(out.text, out.entries, out.extra, finish, stop_reason)], usage)
        if self._request.wants_usage:
            events += sse.encode(orjson.dumps({**self._head(), "choices": [], "usage": _usage(usage)}))
        return events + sse.encode(sse.DONE)

    def whole(self, outs: Sequence[Out], finish: str, stop_reason: int | str | None, usage: Usage) -> bytes:
        text = "".join(out.text for out in outs)
        entries = tuple(entry for out in outs for entry in out.entries)
        extra: Json = {}
        for out in outs:
            for name, value in out.extra.items():
                extra[name] = extra.get(name, "") + value if isinstance(value, str) else value
        choice = self._choice(text, entries, extra, finish, stop_reason)
        if self._chat:
            choice["message"] = {"role": "assistant", **choice.pop("delta")}
        return orjson.dumps({**self._head(), "choices": [choice], "usage": _usage(usage)})

    def _head(self) -> Json:
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self.head, "object": f"{kind}.chunk" if self._chat and self._request.stream else kind}

    def _event(self, choices: list[Json], usage: Usage) -> bytes:
        body = {**self._head(), "choices": choices}
        if self._request.wants_usage and self._request.wants_running_usage:
            body["usage"] = _usage(usage)
        return sse.encode(orjson.dumps(body))

    def _choice(
        self, text: str, entries: tuple[Entry, ...], extra: Json, finish: str | None, stop_reason: int | str | None
    ) -> Json:
        wanted = self._request.wants_logprobs
        logprobs = None
        if wanted and (entries or not self._request.stream):
            logprobs = self._chat_logprobs(entries) if self._chat else self._completion_logprobs(entries)
        said = {"delta": {"content": text, **extra}} if self._chat else {"text": text}
        return {"index": 0, **said, "logprobs": logprobs, "finish_reason": finish, "stop_reason": stop_reason}

    def _chat_logprobs(self, entries: tuple[Entry, ...]) -> Json:
        most = self._request.body.get("top_logprobs") or 0
        content = []
        for entry in entries:
            tops = [top for top in entry.raw.get("top_logprobs") or () if top.get("token") != self._hidden]
            content.append({**entry.raw, "top_logprobs": tops[:most]})
        return {"content": content}

    def _completion_logprobs(self, entries: tuple[Entry, ...]) -> Json:
        most = self._request.body.get("logprobs") or 0
        tops, offsets = [], []
        for entry in entries:
            known = sorted(entry.raw.items(), key=lambda item: -item[1])
            shown = dict([item for item in known if item[0] != self._hidden][:most])
            tops.append(shown | {entry.token: entry.logprob})
            offsets.append(self._offset)
            self._offset += len(entry.token)
        return {
            "tokens": [entry.token for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
