"""A text as the lexers see it: compatibility forms folded, lower case, one space for any run of blanks.

Errors must quote the text as it was written, so every character remembers where it came from.
"""

import unicodedata
from dataclasses import dataclass

# Half-width katakana write their voicing marks as characters of their own; they only fold together.
_VOICING = "\uff9e\uff9f"
# One spelling for each sign that people type in several ways.
_SIGNS = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "–": "-",
        "‐": "-",
        "‑": "-",
        "−": "-",
        "≦": "≤",
        "⩽": "≤",
        "\u3000": " ",
        "〜": "~",
        "⁄": "/",
        "～": "~",
    }
)


@dataclass(frozen=True, slots=True)
class Normal:
    """`text` to read, and for each of its characters the span it had in `source`."""

    source: str
    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where text[start:end] stands in the source."""
        if start >= end:
            at = self.starts[start] if start < len(self.starts) else len(self.source)
            return at, at
        return self.starts[start], self.ends[end - 1]

    def written(self, start: int, end: int) -> str:
        """text[start:end] as it was written."""
        first, last = self.span(start, end)
        return self.source[first:last]


def normalise(source: str) -> Normal:
    """Folds `source`; blank runs become one space, a blank line or a bullet becomes a full stop."""
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []

    def put(characters: str, start: int, end: int) -> None:
        for character in characters:
            out.append(character)
            starts.append(start)
            ends.append(end)

    at = _bullet(source, 0)
    length = len(source)
    while at < length:
        character = source[at]
        end = at + 1
        if character.isspace() or character in "\u200b\ufeff":
            while end < length and (source[end].isspace() or source[end] in "\u200b\ufeff"):
                end += 1
            blank = source[at:end]
            if "\n" in blank:
                bullet = _bullet(source, end)
                if bullet or blank.count("\n") > 1:
                    put("\n", at, end + bullet)
                    at = end + bullet
                    continue
            put(" ", at, end)
            at = end
            continue
        if "\uff66" <= character <= "\uff9d":
            while end < length and source[end] in _VOICING:
                end += 1
        folded = unicodedata.normalize("NFKC", source[at:end].translate(_SIGNS)).translate(_SIGNS).lower()
        put(folded, at, end)
        at = end
    return Normal(source, "".join(out), tuple(starts), tuple(ends))


def _bullet(source: str, at: int) -> int:
    """How many characters a list bullet takes at `at`; 0 where there is none."""
    return 2 if source[at : at + 2] in ("- ", "* ", "• ") else 1 if source[at : at + 1] in ("•", "・") else 0
