"""Pieces to clauses: one clause for each thing said.

A part of a sentence that only modifies ("on weekdays, ...", "..., per key") joins the clause it belongs to. Where that
cannot be told, nothing is guessed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from router.language.pieces import (
    Amount,
    Bound,
    Condition,
    Days,
    Duration,
    Each,
    Flag,
    Hours,
    Model,
    Outcome,
    Per,
    Piece,
    Quantile,
    Ratio,
    Separator,
    WeekStart,
    Word,
    Zone,
)

MODIFIERS = (Per, Each, Days, Hours, Zone, WeekStart, Ratio)
MODIFYING: frozenset[Flag] = frozenset({"otherwise", "outside", "total", "average", "concurrent"})
NOUNS: frozenset[Flag] = frozenset({"calls", "requests", "tokens", "share", "to"})


@dataclass(frozen=True, slots=True)
class Clause:
    pieces: tuple[Piece, ...]
    join: str | None
    """The sort of separator before it; None opens a sentence."""
    at: tuple[int, int]
    """From the separator before it to the one after it, in characters of the normalised text."""
    led_by: int = 0
    """How many of the first pieces were set off before it and so speak of the clauses after it too."""

    @property
    def flags(self) -> frozenset[Flag]:
        return frozenset(piece.flag for piece in self.pieces if isinstance(piece, Word))

    def has(self, *sorts: type[Piece]) -> bool:
        return any(isinstance(piece, sorts) for piece in self.pieces)


class Ambiguous(Exception):
    """A modifier between two clauses that could belong to either."""

    def __init__(self, clause: Clause) -> None:
        super().__init__("ambiguous")
        self.clause = clause


def sentences(pieces: Iterable[Piece], length: int, forward: bool) -> list[list[Clause]]:
    """Splits and joins the pieces of a text of `length` characters.

    `forward`: a modifier set off between two clauses belongs to the second, as in Japanese.
    """
    return [_joined(clauses, forward) for clauses in _split(pieces, length)]


def _split(pieces: Iterable[Piece], length: int) -> list[list[Clause]]:
    out: list[list[Clause]] = []
    sentence: list[Clause] = []
    current: list[Piece] = []
    join: str | None = None
    first = 0
    for piece in pieces:
        if not isinstance(piece, Separator):
            current.append(piece)
            continue
        if current:
            sentence.append(Clause(tuple(current), join, (first, piece.start)))
            current, join = [], piece.sort
        elif join is not None and piece.sort != "comma":
            join = piece.sort  # ", and": the stronger word counts
        if piece.sort == "stop":
            if sentence:
                out.append(sentence)
            sentence, join = [], None
        first = piece.end
    if current:
        sentence.append(Clause(tuple(current), join, (first, length)))
    if sentence:
        out.append(sentence)
    return out


def _joined(clauses: Sequence[Clause], forward: bool) -> list[Clause]:
    out: list[Clause] = []
    held: tuple[Piece, ...] = ()
    held_join: str | None = None
    held_from = 0
    for place, clause in enumerate(clauses):
        following = clauses[place + 1] if place + 1 < len(clauses) else None
        way = _way(clause, out[-1] if out and not held else None, following, forward)
        if way == "forward":
            if not held:
                held_join, held_from = clause.join, clause.at[0]
            held += clause.pieces
        elif way == "back":
            before = out[-1]
            out[-1] = replace(before, pieces=before.pieces + clause.pieces, at=(before.at[0], clause.at[1]))
        else:
            join, first = (held_join, held_from) if held else (clause.join, clause.at[0])
            out.append(Clause(held + clause.pieces, join, (first, clause.at[1]), len(held)))
            held = ()
    return out


def _way(clause: Clause, before: Clause | None, after: Clause | None, forward: bool) -> str | None:
    """Whether `clause` joins the clause after it, the one before it, or stands alone (None)."""
    flags = clause.flags
    if "exhausted" in flags and not clause.has(Outcome, Model):
        if after and after.has(Outcome, Model) and not after.has(Amount, Condition):
            return "forward"
        return "back" if before and before.has(Outcome, Model) else None
    if (
        clause.has(Condition)
        and not clause.has(Model, Amount, Outcome)
        and not flags & {"verb", "always", "never", "only"}
    ):
        if before and before.has(Condition):
            return "back"
        return "forward" if after and not after.has(Condition, Amount) else "back" if before else None
    if _colon(after) and clause.has(Bound) and all(isinstance(piece, (Bound, *MODIFIERS)) for piece in clause.pieces):
        return "forward"  # "Limit: 200 calls a day", "Daily limit: 200 calls"
    if (
        _colon(after)
        and clause.has(Model, Word)
        and not clause.has(Amount, Outcome, Condition, Bound, Quantile, Duration)
    ):
        return "forward"
    if (
        before
        and before.has(Amount, Quantile)
        and all(isinstance(p, Bound) and p.way == "under" for p in clause.pieces)
    ):
        return "back"  # "300 calls a day, tops"
    if not _modifies(clause):
        return None
    if before is None or after is None:
        return "forward" if after else "back" if before else None
    if _colon(after) or flags == {"otherwise"}:
        return "forward"
    if forward or (clause.join == "and" and after.join != "and"):
        return "forward"
    if after.join == "and" and clause.join != "and":
        return "back"
    if all(isinstance(piece, Zone) for piece in clause.pieces):
        return "back"
    raise Ambiguous(clause)


def _colon(after: Clause | None) -> bool:
    return after is not None and after.join == "colon"


def _modifies(clause: Clause) -> bool:
    """True for a clause that says only when, for whom or over what time, and for a bare bound before a colon."""
    modifying = False
    for piece in clause.pieces:
        if isinstance(piece, MODIFIERS) or (isinstance(piece, Word) and piece.flag in MODIFYING):
            modifying = True
        elif not (isinstance(piece, Word) and piece.flag in NOUNS):
            return False
    return modifying
