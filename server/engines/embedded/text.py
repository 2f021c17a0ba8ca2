"""From token ids to text, one token at a time, and the search for stop strings in it."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_REPLACEMENT = "�"
# A character takes at most 4 bytes; after more tokens than that the bytes are not going to become one.
_MOST_PENDING = 8


class Detokenizer:
    """Emits text as soon as it is sure: not before a character's last byte is there.

    Some tokenizers render a token differently at the start of a text, so decoding always starts a few tokens back, with
    the end of the prompt as the first context; what is emitted is the difference.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int], context: int = 5) -> None:
        self._decode = decode
        self._ids = list(prompt[-context:])
        self._known = 0
        """Where decoding starts."""
        self._emitted = len(self._ids)
        """Tokens before this index are in the text already."""
        self._before = decode(self._ids)

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._decode(self._ids[self._known :])
        pending = len(self._ids) - self._emitted
        if text.endswith(_REPLACEMENT) and pending <= _MOST_PENDING:
            return ""
        return self._take(text)

    def flush(self) -> str:
        """The rest. The first bytes of a character that is not going to be complete are dropped, as vLLM does it."""
        if self._emitted == len(self._ids):
            return ""
        return self._take(self._decode(self._ids[self._known :]).rstrip(_REPLACEMENT))

    def _take(self, text: str) -> str:
        fresh = text[len(self._before) :]
        self._known, self._emitted = self._emitted, len(self._ids)
        del self._ids[: self._known]
        self._emitted -= self._known
        self._known = 0
        self._before = self._decode(self._ids)
        return fresh


class StopStrings:
    """Lets text through that cannot be part of a stop string any more."""

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Returns (text to emit, the stop string that was found)."""
        if not self._stops:
            return text, None
        self._held += text
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, stop = min(found, key=lambda hit: (hit[0], -len(hit[1])))
            end = at + len(stop) if self._include else at
            out, self._held = self._held[:end], ""
            return out, stop
        keep = max(self._overlap(stop) for stop in self._stops)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out, None

    def flush(self) -> str:
        """What was held back in case it became a stop string."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """The longest end of the held text that begins the stop string."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
