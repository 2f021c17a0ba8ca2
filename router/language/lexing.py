"""What the English and the Japanese lexer share: lexemes that are pieces by themselves, strings in quotes."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from router.budget import When
from router.language.characters import normalise
from router.language.lexicon import Lexeme
from router.language.pieces import (
    Amount,
    Bound,
    Condition,
    Days,
    Each,
    Flag,
    Hours,
    Model,
    Outcome,
    Per,
    Piece,
    Quantile,
    Separator,
    WeekStart,
    Word,
    Zone,
)

FLAGS: dict[str, Flag] = {
    "NEVER": "never",
    "ALWAYS": "always",
    "ONLY": "only",
    "VERB": "verb",
    "OTHERWISE": "otherwise",
    "OUTSIDE": "outside",
    "AVERAGE": "average",
    "TOTAL": "total",
    "RANDOM": "random",
    "NO_LIMIT": "no_limit",
    "EXHAUSTED": "exhausted",
    "LATENCY": "latency",
    "ZONE_NOUN": "zone_noun",
    "SHARE": "share",
}

# What is a piece as it stands; the grammars know all of these as PIECE.
_MAKE: dict[str, Callable[[int, int, Any], Piece]] = {
    "STUDENT": lambda first, last, _: Model(first, last, "student"),
    "IT": lambda first, last, _: Model(first, last, None),
    "REJECT": lambda first, last, _: Outcome(first, last, "reject"),
    "QUEUE": lambda first, last, _: Outcome(first, last, "queue"),
    "DAYS": lambda first, last, days: Days(first, last, *days),
    "HOURS": lambda first, last, hours: Hours(first, last, *hours),
    "ZONE": lambda first, last, name: Zone(first, last, name),
    "WEEK_START": lambda first, last, day: WeekStart(first, last, day),
    "EVERYBODY": lambda first, last, _: Each(first, last, "all"),
    "EACH": lambda first, last, scope: Each(first, last, scope),
    "PER_UNIT": lambda first, last, window: Per(first, last, *window),
    "TOPIC": lambda first, last, topic: Condition(first, last, When(topic=topic)),
    "CODE": lambda first, last, _: Condition(first, last, When(contains="code")),
    "TAG": lambda first, last, tag: Condition(first, last, When(tag=tag)),
    "HEADER": lambda first, last, header: Condition(first, last, When(header=header)),
    "GROUP": lambda first, last, group: Condition(first, last, When(key_group=group)),
    "UNDER": lambda first, last, _: Bound(first, last, "under"),
    "WITHIN": lambda first, last, _: Bound(first, last, "within"),
    "OVER": lambda first, last, _: Bound(first, last, "over"),
    "TARGET": lambda first, last, _: Bound(first, last, "target"),
    "FLOOR": lambda first, last, _: Bound(first, last, "floor"),
    "TIMES": lambda first, last, times: Amount(first, last, "calls", Fraction(times)),
    "PTH": lambda first, last, share: Quantile(first, last, share),
    "MEDIAN": lambda first, last, _: Quantile(first, last, Fraction(1, 2)),
    "EVERY_ANSWER": lambda first, last, _: Quantile(first, last, Fraction(1)),
    "COMMA": lambda first, last, _: Separator(first, last, "comma"),
    "AND": lambda first, last, _: Separator(first, last, "and"),
    "OR": lambda first, last, _: Separator(first, last, "or"),
    "COLON": lambda first, last, _: Separator(first, last, "colon"),
    "STOP": lambda first, last, _: Separator(first, last, "stop"),
    "TONGUE": lambda first, last, code: Condition(first, last, When(language=code)),
}


def lexeme(type_: str, text: str, first: int, last: int, meaning: Any = None) -> Lexeme:
    """The lexeme for an entry of a lexicon. What is a piece by itself carries that piece as its meaning."""
    if type_ in FLAGS:
        meaning = Word(first, last, FLAGS[type_])
    elif type_ in _MAKE:
        meaning = _MAKE[type_](first, last, meaning)
    return Lexeme.make(type_, text[first:last], first, last, meaning)


def closing(text: str, at: int, mark: str) -> int | None:
    """The place after the quotation mark that closes the string begun before `at`; a backslash escapes."""
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == mark:
            return at + 1
        at += 1
    return None


def unescaped(written: str) -> str:
    """What stands between quotation marks, as it was meant."""
    out: list[str] = []
    characters = iter(written)
    for character in characters:
        out.append(next(characters, "") if character == "\\" else character)
    return "".join(out)


def escaped(value: str, marks: str) -> str:
    """`value` so that it can stand between `marks`: what would read as a mark or as a backslash gets a backslash."""
    return "".join(
        f"\\{character}" if any(mark in normalise(character).text for mark in (*marks, "\\")) else character
        for character in value
    )
