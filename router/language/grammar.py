"""Lexemes to pieces: a lark LALR grammar per language, built when that language is first read."""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, cast

from lark import Lark, Transformer, UnexpectedInput
from lark.lexer import Lexer as LarkLexer

from router.budget import Measure, When
from router.language.lexicon import Lexeme
from router.language.pieces import (
    Amount,
    Condition,
    Duration,
    Each,
    Flag,
    Hours,
    Model,
    Per,
    Piece,
    Quantile,
    Ratio,
    Word,
)

SECONDS: dict[str, Fraction] = {
    "millisecond": Fraction(1, 1000),
    "second": Fraction(1),
    "minute": Fraction(60),
    "hour": Fraction(3600),
    "day": Fraction(86400),
    "week": Fraction(604800),
    "month": Fraction(2592000),
}


class Misplaced(Exception):
    """A lexeme that no rule of the grammar expects where it stands; None: the text ends too early."""

    def __init__(self, lexeme: Lexeme | None) -> None:
        super().__init__(str(lexeme))
        self.lexeme = lexeme


class _Given(LarkLexer):
    """The lexemes are made already; lark only parses."""

    def __init__(self, lexer_conf: object) -> None:
        del lexer_conf

    def lex(self, data: Any) -> Any:  # type: ignore[override]
        return iter(data)


_LOOSE: dict[str, Flag] = {
    "CALL": "calls",
    "REQUEST": "requests",
    "TOKENS": "tokens",
    "ANSWER": "answer",
    "CONCURRENT": "concurrent",
    "TO": "to",
    "OF": "to",
}
Children = list[Lexeme]


def _span(children: list[Any]) -> tuple[int, int]:
    return children[0].first, children[-1].last


def _value(children: Children, *types: str) -> Any:
    return next((child.meaning for child in children if child.type in types), None)


class _Pieces(Transformer[Lexeme, list[Piece]]):
    """One method per alias of the grammars. Children are lexemes, in the order of the text."""

    def start(self, children: list[Piece]) -> list[Piece]:
        return children

    def piece(self, children: Children) -> Piece:
        piece = children[0].meaning
        assert isinstance(piece, Piece)
        return piece

    def teacher(self, children: Children) -> Piece:
        return Model(*_span(children), "teacher")

    def noun(self, children: Children) -> Piece:
        child = children[0]
        return Word(child.first, child.last, _LOOSE[child.type])

    # amounts

    def _amount(
        self, children: Children, measure: Measure | None, value: Fraction, currency: str | None = None
    ) -> Piece:
        return Amount(*_span(children), measure, value, currency)

    def percent(self, children: Children) -> Piece:
        return self._amount(children, "share", _value(children, "NUM") / 100)

    def part(self, children: Children) -> Piece:
        return self._amount(children, "share", _value(children, "NUM", "PART"))

    def one_of(self, children: Children) -> Piece:
        taken, whole = (child.meaning for child in children if child.type == "NUM")
        return self._amount(children, "share", taken / whole if whole > 0 else Fraction(-1))

    def token_percent(self, children: Children) -> Piece:
        return self._amount(children, "token_share", _value(children, "NUM") / 100)

    def token_part(self, children: Children) -> Piece:
        return self._amount(children, "token_share", _value(children, "PART"))

    def calls(self, children: Children) -> Piece:
        concurrent = any(child.type == "CONCURRENT" for child in children)
        return self._amount(children, "concurrent" if concurrent else "calls", _value(children, "NUM"))

    def concurrently(self, children: Children) -> Piece:
        return self._amount(children, "concurrent", _value(children, "NUM"))

    def tokens(self, children: Children) -> Piece:
        return self._amount(children, "tokens", _value(children, "NUM"))

    def money(self, children: Children) -> Piece:
        currency, parts = _value(children, "CURRENCY")
        return self._amount(children, "usd", _value(children, "NUM") / parts, currency)

    def bare(self, children: Children) -> Piece:
        return self._amount(children, None, _value(children, "NUM"))

    def ratio(self, children: Children) -> Piece:
        return Ratio(*_span(children), _value(children, "NUM"))

    # quantiles

    def percentile(self, children: Children) -> Piece:
        return Quantile(*_span(children), _value(children, "NUM") / 100)

    percent_of_answers = percentile

    def part_of_answers(self, children: Children) -> Piece:
        return Quantile(*_span(children), _value(children, "PART"))

    def every_answer(self, children: Children) -> Piece:
        return Quantile(*_span(children), Fraction(1))

    # bounds and windows

    def duration(self, children: Children) -> Piece:
        n, unit = _value(children, "UNIT")
        length = _value(children, "NUM", "PART") * n
        return Duration(*_span(children), length, unit, length * SECONDS[unit])

    def per(self, children: Children) -> Piece:
        n, unit = _value(children, "UNIT")
        number = _value(children, "NUM", "PART")
        mark = _value(children, "MARK")
        return Per(*_span(children), n * (Fraction(1) if number is None else number), unit, mark)

    def per_request(self, children: Children) -> Piece:
        return Per(*_span(children), Fraction(1), "request")

    def each(self, children: Children) -> Piece:
        return Each(*_span(children), _value(children, "SCOPE"))

    # hours

    def hours(self, children: Children) -> Piece:
        opens, closes = (child for child in children if child.type in ("CLOCK", "NUM"))
        first, last = _minutes(opens), _minutes(closes)
        if _either_half(opens, closes, first, last):
            first = -2
        return Hours(*_span(children), first, last)

    def after(self, children: Children) -> Piece:
        return Hours(*_span(children), _minutes(_time(children)), 1440)

    def before(self, children: Children) -> Piece:
        return Hours(*_span(children), 0, _minutes(_time(children)))

    # conditions

    def length(self, children: Children) -> Piece:
        longer, more = _value(children, "COMPARED")
        tokens = whole(_value(children, "NUM")) + more
        when = When(longer_than_tokens=tokens) if longer else When(shorter_than_tokens=tokens)
        return Condition(*_span(children), when)


def _either_half(opens: Lexeme, closes: Lexeme, first: int, last: int) -> bool:
    """True for "9 to 5" and "1 to 5 pm", where a bare hour may be before or after noon."""
    noon = 720
    if opens.type == "NUM" and closes.type == "NUM":
        return 0 <= last < first <= noon
    if opens.type == "NUM" and closes.endswith("m") and first <= noon:
        return first + noon < last and first < last
    return closes.type == "NUM" and 0 <= last < first and opens.endswith("m") and last + noon > first


def _time(children: Children) -> Lexeme:
    return next(child for child in children if child.type in ("CLOCK", "NUM"))


def _minutes(lexeme: Lexeme) -> int:
    """Minutes since midnight of a clock time or of a bare hour; -1 where no clock shows it."""
    if lexeme.type == "CLOCK":
        return int(lexeme.meaning)
    hour: Fraction = lexeme.meaning
    return int(hour) * 60 if hour.denominator == 1 and 0 <= hour <= 24 else -1


def whole(value: Fraction) -> int:
    """-1 for what is no count of tokens; `meaning` refuses it with the phrase."""
    return int(value) if value.denominator == 1 and value >= 0 else -(10**9)


def _terminal(lexeme: Lexeme) -> Lexeme:
    """What is a piece already is one terminal to the grammar: fewer terminals make a table that is built sooner."""
    if not isinstance(lexeme.meaning, Piece) or lexeme.type == "AND":
        return lexeme
    return Lexeme.make("PIECE", str(lexeme), lexeme.first, lexeme.last, lexeme.meaning)


@lru_cache(maxsize=4)
def _parser(grammar: str) -> Callable[[Any], Any]:
    lark = Lark(grammar, parser="lalr", lexer=_Given, transformer=_Pieces(), keep_all_tokens=True)
    return cast(Callable[[Any], Any], lark.parse)


def pieces(grammar: str, lexemes: list[Lexeme]) -> list[Piece]:
    """The pieces that `grammar` makes of `lexemes`. Raises Misplaced."""
    try:
        return cast(list[Piece], _parser(grammar)([_terminal(lexeme) for lexeme in lexemes]))
    except UnexpectedInput as error:
        token = getattr(error, "token", None)
        raise Misplaced(token if isinstance(token, Lexeme) else None) from None
