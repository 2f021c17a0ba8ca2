"""Plain words to a Budget, offline and always the same way: characters, lexemes, grammar, clauses, budget."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from router.budget import Budget
from router.language import meaning
from router.language.canonical import canonical
from router.language.characters import Normal, normalise
from router.language.english.grammar import GRAMMAR
from router.language.english.lexer import Lexer
from router.language.grammar import Misplaced, pieces
from router.language.lexicon import SEPARATORS, Lexeme
from router.language.limits import Setting
from router.language.messages import unreadable
from router.language.pieces import Condition, Outcome, Word
from router.language.shape import as_dict
from router.language.unreadable import Unreadable

LONGEST_TEXT = 2000
_QUOTED = re.compile(r'"[^"]*"')
_KANA = re.compile("[\u3041-\u30fa\uff66-\uff9d]")
_HAN = re.compile("[\u3400-\u9fff]")
_LATIN = re.compile("[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text and the budget that was read from it."""

    budget: Budget
    language: Literal["en", "ja"]
    canonical: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `tw budget parse --json`."""
        return {
            "text": self.text,
            "language": self.language,
            **as_dict(self.budget),
            "canonical": self.canonical,
        }


def language_of(text: str) -> Literal["en", "ja"]:
    """Japanese where kana stand outside quotation marks, or where Chinese characters outweigh Latin letters."""
    outside = _QUOTED.sub("", text)
    if _KANA.search(outside):
        return "ja"
    return "ja" if 2 * len(_HAN.findall(outside)) > len(_LATIN.findall(outside)) else "en"


def parse(text: str, *, timezone: str = "UTC", week_start: int = 0, rates: Mapping[str, float] | None = None) -> Parsed:
    """Reads a budget.

    `timezone` and `week_start` (0 Monday) are what calendar windows and hours mean where the text does not say.
    `rates` gives the USD value of one unit of a currency. Raises Unreadable with the phrase that could not be read.
    """
    language = language_of(text)
    if not text.strip():
        raise unreadable(language, "empty", text, (0, len(text)))
    if len(text) > LONGEST_TEXT:
        at = (LONGEST_TEXT, len(text))
        raise unreadable(language, "too_long", text, at, length=len(text), most=LONGEST_TEXT)
    normal = normalise(text)
    setting = Setting(normal, language, timezone, week_start, {"USD": 1.0, **(rates or {})})
    lexemes, grammar = _lex(normal, language)
    _refuse(lexemes, setting)
    try:
        found = pieces(grammar, lexemes)
    except Misplaced as misplaced:
        raise _misplaced(misplaced.lexeme, lexemes, setting) from None
    budget = meaning.budget(found, setting)
    explicit = timezone != "UTC" or week_start != 0
    return Parsed(budget, language, canonical(budget, language, explicit=explicit), text)


def _lex(normal: Normal, language: str) -> tuple[list[Lexeme], str]:
    if language == "ja":
        # Loaded when it is first read: who writes English does not wait for the Japanese tables.
        from router.language.japanese.grammar import GRAMMAR as JAPANESE_GRAMMAR
        from router.language.japanese.lexer import Lexer as JapaneseLexer

        return JapaneseLexer(normal).lexemes(), JAPANESE_GRAMMAR
    return Lexer(normal).lexemes(), GRAMMAR


_UNREADABLE = {
    "UNKNOWN": "unknown",
    "VAGUE": "vague",
    "VAGUE_TIME": "vague_time",
    "VAGUE_REQUEST": "vague_request",
    "LONG": "vague_request",
    "MALFORMED": "malformed",
    "NO_ZONE": "zone",
    "REST": "rest",
}
# Lexemes that show that a clause speaks of the budget, so that only the strange words in it are quoted.
_CONTENT = frozenset({"NUM", "PART", "TIMES", "UNDER", "OVER", "TARGET", "FLOOR", "PERCENT", "CURRENCY", "PTH"})


def _refuse(lexemes: list[Lexeme], setting: Setting) -> None:
    """Raises about the first lexeme that is no word of the budget."""
    for place, lexeme in enumerate(lexemes):
        code = _UNREADABLE.get(lexeme.type)
        if lexeme.type == "CLOCK" and lexeme.meaning < 0:
            code = "time"
        if code is None:
            continue
        if code != "unknown":
            raise setting.error(code, (lexeme.first, lexeme.last))
        before, after = _clause(lexemes, place)
        if not any(_content(word) for word in lexemes[before:after]):
            raise setting.error(code, _whole_clause(lexemes, before, after, setting))
        last = place
        while last + 1 < after and lexemes[last + 1].type == "UNKNOWN":
            last += 1
        raise setting.error(code, (lexeme.first, lexemes[last].last))


def _content(word: Lexeme) -> bool:
    piece = word.meaning
    told = isinstance(piece, Word) and piece.flag in ("exhausted", "no_limit", "random")
    return word.type in _CONTENT or told or isinstance(piece, (Condition, Outcome))


def _clause(lexemes: list[Lexeme], place: int) -> tuple[int, int]:
    """The range of lexemes of the clause around `place`."""
    before = place
    while before and lexemes[before - 1].type not in SEPARATORS:
        before -= 1
    after = place
    while after < len(lexemes) and lexemes[after].type not in SEPARATORS:
        after += 1
    return before, after


def _whole_clause(lexemes: list[Lexeme], before: int, after: int, setting: Setting) -> tuple[int, int]:
    """The clause in characters, from one separator to the next, words that say nothing included."""
    first = lexemes[before - 1].last if before else 0
    return first, lexemes[after].first if after < len(lexemes) else len(setting.normal.text)


def _misplaced(lexeme: Lexeme | None, lexemes: list[Lexeme], setting: Setting) -> Unreadable:
    place = next((at for at, other in enumerate(lexemes) if lexeme and other.first == lexeme.first), len(lexemes) - 1)
    if lexemes[place].type in SEPARATORS and place:
        place -= 1
    before, after = _clause(lexemes, place)
    types = {word.type for word in lexemes[before:after]}
    code = "range" if {"RANGE", "BETWEEN"} & types else "which_scope" if "SCOPE" in types else "unclear"
    return setting.error(code, _whole_clause(lexemes, before, after, setting))
