"""Text at the seams, where one model ends and the other begins. Pure.

The rule of the house: what the client gets is the concatenation of what the models wrote. Only three things are taken
out: half characters at the end of a segment, which the next model writes anew; white space that a chat template took
from the text when it was handed over and that the next model therefore writes again; and what follows a stop string.
"""

from collections.abc import Sequence

from server.engines.embedded.text import StopStrings

_HALF = "�"
_LEAST_REPEATED = 16
"""Shorter repetitions are left alone: language repeats itself."""
REPEATED_WITHIN = 48
"""Characters of a teacher's segment that are looked at before they go out."""


def repeats(before: str, fresh: str) -> bool:
    """Whether `fresh` says again what was there, instead of going on: its beginning, or its last words."""
    said = fresh.strip()[:REPEATED_WITHIN]
    if len(said) < _LEAST_REPEATED:
        return False
    if before.strip()[:_LEAST_REPEATED] == said[:_LEAST_REPEATED]:
        return True
    tail = before.rstrip()[-4 * REPEATED_WITHIN :]
    return any(tail.endswith(said[:length]) for length in range(_LEAST_REPEATED, len(said) + 1))


class Written:
    """The answer's text so far: as the models must see it, and as much of it as the client may have already."""

    def __init__(self, stops: Sequence[str], *, include_stop: bool, given: str = "") -> None:
        """`given`: a beginning that came with the request and is no part of the answer."""
        self._stops = StopStrings(stops, include_stop)
        self._given = given
        self._parts: list[str] = []
        self._half = ""
        self._unseen = ""
        """White space at the end of the text that the one who writes now has not seen: it will write it again."""
        self.stopped_by: str | None = None

    @property
    def text(self) -> str:
        """All of the answer that is certain, what a stop string may still take back included."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def seam(self, *, trims: bool) -> None:
        """A model ends and another begins, which saw the text without the white space at its end if `trims`."""
        self._half = ""
        before = self._given + self.text
        self._unseen = before[len(before.rstrip()) :] if trims else ""

    def push(self, text: str) -> str:
        """Text as it was written; what may go out now. After a stop string (`stopped_by`) nothing more may."""
        if not text or self.stopped_by is not None:
            return ""
        while self._unseen and text:
            if text[0] != self._unseen[0]:
                self._unseen = ""
                break
            text, self._unseen = text[1:], self._unseen[1:]
        text = self._half + text
        whole = text.rstrip(_HALF)
        self._half = text[len(whole) :]
        return self._certain(whole)

    def end(self) -> str:
        """The last of it."""
        out = ""
        if self.stopped_by is None:
            half, self._half = self._half, ""
            out = self._certain(half)
            if self.stopped_by is None:
                out += self._stops.flush()
        return out

    def _certain(self, text: str) -> str:
        if not text:
            return ""
        self._parts.append(text)
        out, self.stopped_by = self._stops.push(text)
        return out
