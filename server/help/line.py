"""What has been written so far: as text and, where both models have one tokenizer, as token ids; and how much of it."""

from server.generation_request import GenerationRequest
from server.help.bodies import given
from server.help.seams import Written
from server.help.shapes import Out
from server.help.suits import stops
from server.help.wire import Piece


class Line:
    """One answer as it grows. `finish` is set once, by whoever ends it."""

    def __init__(self, request: GenerationRequest, *, exact: bool) -> None:
        include = bool(request.body.get("include_stop_str_in_output"))
        self._written = Written(stops(request), include_stop=include, given=given(request))
        self._given = given(request)
        self._most = request.completion_limit()
        self._ids: list[int] | None = [] if exact else None
        self._half_ids: list[int] = []
        """Of tokens whose text is not there yet: the first bytes of a character."""
        self._unsure = False
        self.used = 0
        """Tokens."""
        self.finish: str | None = None
        self.stop_reason: int | str | None = None

    @property
    def text(self) -> str:
        return self._written.text

    @property
    def with_given(self) -> str:
        """With the text that the request began it by."""
        return self._given + self._written.text

    @property
    def left(self) -> int | None:
        """Tokens that the client's limit leaves; None where it set none."""
        return None if self._most is None else self._most - self.used

    @property
    def is_full(self) -> bool:
        return self._most is not None and self.used >= self._most

    def ids(self) -> tuple[int, ...] | None:
        """None: they are not known, or not for all of the text."""
        return None if self._ids is None else tuple(self._ids)

    def seam(self, *, trims: bool, cut: bool) -> None:
        """One model ends here and another goes on; see `Written.seam`. `cut`: it may have been in mid-character."""
        if cut and self._unsure:
            self._ids = None
        self._half_ids = []
        self._written.seam(trims=trims)

    def take(self, piece: Piece) -> Out | None:
        """Adds what was written. None where nothing of it may go out yet."""
        self.used += piece.tokens
        self._take_ids(piece)
        text = self._written.push(piece.text)
        if self._written.stopped_by is not None:
            self.end("stop", self._written.stopped_by)
        return Out(text, piece.entries, piece.extra) if text or piece.entries or piece.extra else None

    def end(self, finish: str, stop_reason: int | str | None = None) -> None:
        self.finish, self.stop_reason = finish, stop_reason

    def rest(self) -> Out | None:
        """What was held back, once nobody goes on."""
        text = self._written.end()
        if self._written.stopped_by is not None:  # made whole by the very last characters
            self.end("stop", self._written.stopped_by)
        return Out(text) if text else None

    def _take_ids(self, piece: Piece) -> None:
        if self._ids is None:
            return
        if piece.ids is None:
            if piece.text:
                self._ids = None
            return
        self._half_ids += piece.ids
        if piece.text and not piece.text.endswith("�"):
            self._ids += self._half_ids
            self._half_ids = []
        # Several tokens in one piece, and nobody can tell whether its last ones have their text in it.
        told = bool(piece.entries) and piece.text == "".join(entry.token for entry in piece.entries)
        self._unsure = len(piece.ids) > 1 and not told
