"""An outcome table as arrays: features, qualities, splits, folds. What every learner and every baseline starts from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.features import draft_of, prompt_of, read_draft, read_prompt
from policies.outcomes import Outcome, Split, teachers_of
from policies.policy import Signals
from policies.prompt_features import Floats, Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Lists of indices of different lengths, end to end: row i is `flat[starts[i]:starts[i+1]]`."""

    flat: npt.NDArray[np.int32]
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, rows: Iterable[Ints]) -> "Ragged":
        pieces = [row.astype(np.int32) for row in rows]
        starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
        return cls(np.concatenate(pieces) if pieces else np.zeros(0, np.int32), starts)

    def __getitem__(self, row: int) -> Ints:
        return self.flat[self.starts[row] : self.starts[row + 1]].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """N rows in the order read. Unknown qualities are NaN."""

    ids: list[str]
    prompt: Floats
    """(N, prompt features)"""
    prompt_ngrams: Ragged
    draft: Floats | None
    """(N, draft features); None where the signals are the prompt's alone."""
    draft_ngrams: Ragged | None
    student: Floats
    """(N,) quality 0..1 or NaN"""
    teacher: Floats
    student_cost: Floats
    """(N,) USD or NaN"""
    teacher_cost: Floats
    split: npt.NDArray[np.str_]
    fold: Ints
    """(N,) the same number for rows with the same prompt, spread evenly; taken modulo the number of folds."""
    groups: list[str | None]
    teachers: tuple[str, ...] = ()
    """The names of several teachers, K; the first is the one above. Empty where there is one."""
    others: Floats | None = None
    """(N, K - 1) qualities of the teachers after the first, or NaN; None where there is one."""
    other_costs: Floats | None = None
    """(N, K - 1) USD or NaN"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def signals(self) -> Signals:
        return "prompt" if self.draft is None else "draft"

    @property
    def teacher_qualities(self) -> list[Floats]:
        """(N,) for each teacher."""
        return [self.teacher, *(() if self.others is None else self.others.T)]

    @property
    def teacher_costs(self) -> list[Floats]:
        return [self.teacher_cost, *(() if self.other_costs is None else self.other_costs.T)]

    @property
    def both_known(self) -> Bools:
        """Rows of which every model's quality is known."""
        known = ~np.isnan(self.student) & ~np.isnan(self.teacher)
        return known if self.others is None else known & ~np.isnan(self.others).any(axis=1)

    def rows(self, split: Split) -> Ints:
        """Indices of a split's rows with both qualities known."""
        return np.flatnonzero((self.split == split) & self.both_known)

    def take(self, rows: Ints) -> "Table":
        """The table of these rows, in this order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        taken = {
            name: value
            if value is None or isinstance(value, tuple)
            else Ragged.of(value[row] for row in rows)
            if isinstance(value, Ragged)
            else [value[row] for row in rows]
            if isinstance(value, list)
            else value[rows]
            for name, value in values.items()
        }
        return Table(**taken)  # type: ignore[arg-type]


def _optional(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def build_table(
    outcomes: Iterable[Outcome], signals: Signals, *, tick: Callable[[int], None] = lambda _: None
) -> Table:
    """Features of every row; with draft signals, rows without a student response are left out. `tick(n)`: n done.

    Raises TeachersDiffer.
    """
    kept: list[Outcome] = []
    dense: list[Floats] = []
    ngrams: list[Ints] = []
    draft_dense: list[Floats] = []
    draft_ngrams: list[Ints] = []
    numbers: dict[str, int] = {}
    fold: list[int] = []
    for outcome in outcomes:
        tick(1)
        draft = draft_of(outcome)
        if signals == "draft" and draft is None:
            continue
        view = read_prompt(prompt_of(outcome))
        kept.append(outcome)
        dense.append(view.dense)
        ngrams.append(view.ngrams)
        fold.append(numbers.setdefault(outcome.prompt, len(numbers)))
        if signals == "draft" and draft is not None:
            features, grams = read_draft(draft, view)
            draft_dense.append(features)
            draft_ngrams.append(grams)
    # Neighbours in a file are alike (sorted by subject); a fixed permutation spreads them over the folds.
    order = np.random.default_rng(0).permutation(max(len(numbers), 1))
    return Table(
        ids=[outcome.id for outcome in kept],
        prompt=np.stack(dense) if dense else np.zeros((0, 0)),
        prompt_ngrams=Ragged.of(ngrams),
        draft=np.stack(draft_dense) if draft_dense else None,
        draft_ngrams=Ragged.of(draft_ngrams) if draft_dense else None,
        student=_optional(outcome.student_quality for outcome in kept),
        teacher=_optional(outcome.teacher_quality for outcome in kept),
        student_cost=_optional(outcome.student_cost for outcome in kept),
        teacher_cost=_optional(outcome.teacher_cost for outcome in kept),
        split=np.array([outcome.split for outcome in kept], dtype=np.str_),
        fold=order[np.array(fold, dtype=np.int64)] if fold else np.zeros(0, np.int64),
        groups=[outcome.group for outcome in kept],
        **_other_teachers(kept),
    )


def _other_teachers(outcomes: list[Outcome]) -> dict[str, Any]:
    teachers = teachers_of(outcomes)
    if not teachers:
        return {}
    others = [outcome.teachers[1:] for outcome in outcomes]
    return {
        "teachers": teachers,
        "others": np.stack([_optional(each.quality for each in row) for row in others]),
        "other_costs": np.stack([_optional(each.cost for each in row) for row in others]),
    }
