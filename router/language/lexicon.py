"""Phrases and what they are. The longest phrase that stands at a place wins, so the same words always read the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lark import Token


@dataclass(frozen=True, slots=True)
class Entry:
    """A terminal of the grammar, with the value it carries. `SKIP` is a word that says nothing by itself."""

    type: str
    meaning: Any = None


SEPARATORS = frozenset({"COMMA", "AND", "OR", "COLON", "STOP"})


class Lexeme(Token):
    """A terminal in the text: its type, its place in the normalised text, and its value."""

    meaning: Any
    first: int
    last: int

    @classmethod
    def make(cls, type_: str, text: str, first: int, last: int, meaning: Any = None) -> "Lexeme":
        lexeme = cls(type_, text, first)
        lexeme.meaning = meaning
        lexeme.first = first
        lexeme.last = last
        return lexeme


class Lexicon:
    """A table of phrases. With `spaced`, a phrase only stands between word boundaries (Latin letters and digits)."""

    def __init__(self, phrases: Mapping[str, Entry]) -> None:
        by_start: dict[str, list[tuple[str, Entry]]] = {}
        for phrase, entry in phrases.items():
            by_start.setdefault(phrase[:2], []).append((phrase, entry))
        for bucket in by_start.values():
            bucket.sort(key=lambda pair: -len(pair[0]))
        self._by_start = by_start

    def longest(self, text: str, at: int) -> tuple[int, Entry] | None:
        """The end of the longest phrase that stands at `at`, and its entry."""
        best: tuple[int, Entry] | None = None
        for key in (text[at : at + 2], text[at]):
            for phrase, entry in self._by_start.get(key, ()):
                if text.startswith(phrase, at):
                    end = at + len(phrase)
                    if boundary(text, end) and (best is None or end > best[0]):
                        best = (end, entry)
                        break
        return best


def boundary(text: str, at: int) -> bool:
    """True where no Latin word runs through `at`."""
    return at >= len(text) or at == 0 or not (_latin(text[at - 1]) and _latin(text[at]))


def _latin(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def phrases(type_: str, meaning: Any, *words: str) -> Iterable[tuple[str, Entry]]:
    """One entry for all of `words`; "a|b c|d" stands for every combination, an empty part for none.

    Inside a part "_" stands for a space."""
    for pattern in words:
        forms = [""]
        for part in pattern.split(" "):
            forms = [f"{form} {choice}".strip() if choice else form for form in forms for choice in part.split("|")]
        for form in forms:
            if form:
                yield form.replace("_", " "), Entry(type_, meaning)
