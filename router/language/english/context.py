"""Words that mean what their neighbours make of them: "a day" and "a call", "over 5 minutes" and "over 5%"."""

from fractions import Fraction

from router.language.lexicon import SEPARATORS, Lexeme
from router.language.pieces import Each, Per

_COUNTED = frozenset({"CALL", "REQUEST", "TOKENS", "CURRENCY"})
_QUANTITIES = frozenset({"NUM", "PART"})
_SPANS = frozenset({"UNIT", "MARK"})


def resolved(lexemes: list[Lexeme]) -> list[Lexeme]:
    """The lexemes in the terms of the grammar. What its neighbours make idle is dropped."""
    out: list[Lexeme] = []
    for place, word in enumerate(lexemes):
        rest = lexemes[place + 1 : place + 4]
        match word.type:
            case "OVER" | "UNDER" | "FLOOR":
                out.append(_bound(word, lexemes[:place], rest))
            case "A":
                out += _article(word, rest, counted=_counted(out))
            case "IN":
                if rest and rest[0].type in _QUANTITIES:
                    out.append(_as("PER", word))
            case "FROM":
                if len(rest) > 1 and rest[1].type in ("TO", "RANGE"):
                    out.append(word)
            case "VAGUE_TIME":
                if not _hours_follow(rest):  # "office hours (9 to 17)" says which
                    out.append(word)
            case "LONG":
                if not any(_compared(lexemes, at) for at in range(place + 1, min(place + 4, len(lexemes)))):
                    out.append(word)
            case _:
                out.append(word)
    return out


def _hours_follow(rest: list[Lexeme]) -> bool:
    types = [other.type for other in rest if other.type not in ("COMMA", "COLON", "FROM", "BETWEEN")]
    return types[:1] == ["CLOCK"]


def _as(type_: str, word: Lexeme, meaning: object = None) -> Lexeme:
    return Lexeme.make(type_, str(word), word.first, word.last, meaning)


def _counted(before: list[Lexeme]) -> bool:
    """True where the clause has an amount already."""
    for word in reversed(before):
        if word.type in SEPARATORS:
            return False
        if word.type in ("NUM", "PART", "TIMES"):
            return True
    return False


def _article(word: Lexeme, rest: list[Lexeme], counted: bool) -> list[Lexeme]:
    """ "a day", "a user", "a 24 hour window" say per what; "a teacher call" is one; else an article says nothing."""
    types = [other.type for other in rest]
    following = types[0] if types else ""
    if following in _SPANS or following == "SCOPE" or (following == "REQUEST" and counted):
        return [_as("PER", word)]
    if following in _QUANTITIES and types[1:2] and types[1] in _SPANS:
        return [_as("PER", word)]
    if next((type_ for type_ in types if type_ not in ("TEACHER", "CONCURRENT")), "") == "CALL":
        return [_as("NUM", word, Fraction(1))]
    return []


def _bound(word: Lexeme, before: list[Lexeme], rest: list[Lexeme]) -> Lexeme:
    types = [other.type for other in rest]
    if word == "over" and before and before[-1].type in _COUNTED and types[:2] == ["NUM", "UNIT"]:
        return _as("PER", word)
    if _compared([*before, word, *rest], len(before)):
        return _as("COMPARED", word, _comparison(word))
    return word


def _compared(lexemes: list[Lexeme], place: int) -> bool:
    """Tells "requests over 2,000 tokens", which says which requests, from "over 2,000 tokens a day"."""
    word = lexemes[place]
    if word.type == "COMPARED":
        return True
    tokens = [other.type for other in lexemes[place + 1 : place + 3]] == ["NUM", "TOKENS"]
    if word.type not in ("OVER", "UNDER", "FLOOR") or not tokens:
        return False
    before = [other.type for other in lexemes[:place]]
    if before[-1:] == ["OF"]:
        before.pop()  # "requests of more than 2,000 tokens"
    after = lexemes[place + 3] if place + 3 < len(lexemes) else None
    return before[-1:] == ["LONG"] or (before[-1:] == ["REQUEST"] and not _opens_window(after))


def _comparison(bound: Lexeme) -> tuple[bool, int]:
    """(longer rather than shorter, what to add to the number so that the comparison is strict)"""
    if bound.type == "OVER":
        return True, 0
    if bound.type == "FLOOR":
        return True, -1
    strict = bound == "<" or bound.startswith(("under", "below", "beneath", "less", "fewer", "lower"))
    return False, 0 if strict else 1


def _opens_window(word: Lexeme | None) -> bool:
    return word is not None and (word.type in ("PER", "A", "IN", "MARK") or isinstance(word.meaning, (Per, Each)))
