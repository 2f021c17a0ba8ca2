"""Outcome tables: what the models answered and how good it was. Training learns from them, `tw replay` answers.

Idea: one row type and one streaming reader for Parquet (pyarrow, imported when a Parquet file is opened) and JSON lines
(no extra needed). A table is wide, one row per request with a student's and a teacher's columns, or long, one row per
request and model (`policies.long_tables`). Every fault of a file is one `OutcomeTableError` that names file, column
and row, and rows are yielded in the file's order without holding the file in memory.
"""

import hashlib
import heapq
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.long_tables import is_long, long_outcomes
from policies.outcome import SPLITS, Answered, Outcome, Split, TeachersDiffer, message_text, split_of, teachers_of
from policies.outcome_cells import (
    OutcomeTableError,
    Row,
    columns_of,
    count_in,
    id_in,
    is_parquet,
    mark_of,
    number_in,
    numbers_in,
    prompt_in,
    raw_rows,
    split_in,
    text_in,
    texts_in,
)

__all__ = [
    "SPLITS",
    "Answered",
    "Outcome",
    "OutcomeTableError",
    "Sample",
    "Split",
    "TeachersDiffer",
    "file_sha256",
    "iter_outcomes",
    "message_text",
    "read_outcomes",
    "sample_outcomes",
    "split_of",
    "teachers_of",
]

TEXTS = (
    "group",
    "student_response",
    "teacher_response",
    "student_model",
    "teacher_model",
    "reference",
    "student_finish_reason",
)
NUMBERS = ("student_cost", "teacher_cost")
QUALITIES = ("student_quality", "teacher_quality")
LISTS = ("student_logprobs", "student_entropies")
TEXT_LISTS = ("student_samples",)
COUNTS = ("student_cached_tokens", "teacher_cached_tokens")
COLUMNS = ("id", "prompt", "messages", "split", *QUALITIES, *NUMBERS, *TEXTS, *LISTS, *TEXT_LISTS, *COUNTS)
"""Columns that are read; others are ignored."""

_ANOTHER_TEACHER = re.compile(r"teacher[\w.-]*_quality")


def _require_columns(path: Path, present: Iterable[str], row: int | None = None) -> None:
    names = set(present)
    for column in ("id", *QUALITIES):
        if column not in names:
            raise OutcomeTableError(path, "the column is missing", column=column, row=row)
    if "prompt" not in names and "messages" not in names:
        raise OutcomeTableError(path, "the column is missing (`messages` may stand instead)", column="prompt", row=row)


def _refuse_more_teachers(path: Path, columns: Iterable[str]) -> None:
    more = sorted(name for name in columns if name not in QUALITIES and _ANOTHER_TEACHER.fullmatch(name))
    if more:
        raise OutcomeTableError(
            path,
            "a table with one row per request knows one student and one teacher; for several teachers write one row"
            " per request and model, with the columns id, prompt, model, role, quality",
            column=more[0],
        )


def _outcome(path: Path, number: int, row: Row) -> Outcome:
    identity = id_in(path, number, row.get("id"))
    prompt, messages = prompt_in(path, number, row)
    if prompt is None:
        raise OutcomeTableError(path, "neither prompt nor messages", column="prompt", row=number)
    split = split_in(path, number, row)
    rest: dict[str, Any] = {column: text_in(path, number, column, row.get(column)) for column in TEXTS}
    rest |= {column: number_in(path, number, column, row.get(column), within=(0.0, 1.0)) for column in QUALITIES}
    rest |= {column: number_in(path, number, column, row.get(column), within=(0.0, math.inf)) for column in NUMBERS}
    rest |= {column: numbers_in(path, number, column, row.get(column)) for column in LISTS}
    rest |= {column: texts_in(path, number, column, row.get(column)) for column in TEXT_LISTS}
    rest |= {column: count_in(path, number, column, row.get(column)) for column in COUNTS}
    return Outcome(id=identity, prompt=prompt, messages=messages, split=split or split_of(prompt), **rest)


def iter_outcomes(path: str | Path) -> Iterator[Outcome]:
    """Requests in the file's order; memory holds one batch and one hash per row (to find duplicated ids).

    Raises OutcomeTableError; a table without rows raises too.
    """
    path = Path(path)
    columns = columns_of(path)
    yield from long_outcomes(path) if is_long(columns) else _wide_outcomes(path, columns)


def _wide_outcomes(path: Path, columns: frozenset[str]) -> Iterator[Outcome]:
    _refuse_more_teachers(path, columns)
    parquet = is_parquet(path)
    if parquet:
        _require_columns(path, columns)
    seen: set[int] = set()
    for number, row in raw_rows(path, frozenset(COLUMNS)):
        if not parquet:
            _require_columns(path, row, number)
        outcome = _outcome(path, number, row)
        mark = mark_of(outcome.id)
        if mark in seen:
            raise OutcomeTableError(path, f"id {outcome.id!r} occurs twice", column="id", row=number)
        seen.add(mark)
        yield outcome
    if not seen:
        raise OutcomeTableError(path, "the table has no rows")


def read_outcomes(*paths: str | Path) -> list[Outcome]:
    """All rows of all tables, in order. Raises OutcomeTableError."""
    return [outcome for path in paths for outcome in iter_outcomes(path)]


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows of tables that may be larger than memory."""

    rows: list[Outcome]
    """In order."""
    seen: int
    """Rows that the tables hold."""


def sample_outcomes(*paths: str | Path, most: int) -> Sample:
    """All rows where there are at most `most`, else that many, chosen by a hash of id and prompt: splits and groups
    keep their shares, the same tables give the same rows, and a table that grows lets go of few.

    Memory holds the chosen rows and one hash per row. Raises OutcomeTableError; ValueError for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1")
    kept: list[tuple[int, int, Outcome]] = []
    """A heap of (-hash, place, row): the row that goes first is the one with the largest hash."""
    seen = 0
    for path in paths:
        for outcome in iter_outcomes(path):
            key = f"{outcome.id}\0{outcome.prompt}".encode("utf-8", "replace")
            entry = (-int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()), seen, outcome)
            if len(kept) < most:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
            seen += 1
    return Sample([outcome for _, _, outcome in sorted(kept, key=lambda entry: entry[1])], seen)


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
