"""Outcome tables: what both models answered and how good it was. Training learns from them, `tw replay` answers.

Idea: one row type and one streaming reader for Parquet (pyarrow, imported when a Parquet file is opened) and JSON lines
(no extra needed). Every fault of a file becomes one `OutcomeTableError` that names file, column and row, and rows are
yielded in the file's order without holding the file in memory.
"""

import hashlib
import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

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
COLUMNS = ("id", "prompt", "messages", "split", *QUALITIES, *NUMBERS, *TEXTS, *LISTS)
"""Columns that are read; others are ignored."""

BATCH_ROWS = 1024


class OutcomeTableError(ValueError):
    """The table cannot be read. `str()` names file, and column and row where there are any; rows count from 1."""

    def __init__(self, path: Path, message: str, *, column: str | None = None, row: int | None = None) -> None:
        place = [str(path)]
        if column is not None:
            place.append(f"column {column!r}")
        if row is not None:
            place.append(f"row {row}")
        super().__init__(f"{', '.join(place)}: {message}")
        self.path, self.column, self.row = path, column, row


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row. Qualities are 0..1, costs USD; None where unknown."""

    id: str
    prompt: str
    """The whole conversation joined by newlines."""
    student_quality: float | None
    teacher_quality: float | None
    split: Split
    messages: tuple[Mapping[str, Any], ...] | None = None
    student_response: str | None = None
    teacher_response: str | None = None
    student_logprobs: tuple[float, ...] | None = None
    student_entropies: tuple[float, ...] | None = None
    student_finish_reason: str | None = None
    student_cost: float | None = None
    teacher_cost: float | None = None
    group: str | None = None
    reference: str | None = None
    student_model: str | None = None
    teacher_model: str | None = None

    @property
    def last_user(self) -> str:
        """The last user message; the prompt itself where the row has no messages."""
        for message in reversed(self.messages or ()):
            if message.get("role") == "user":
                return message_text(message.get("content"))
        return self.prompt

    @property
    def turn(self) -> int:
        """How many user messages the conversation holds, from 1."""
        return max(1, len([message for message in self.messages or () if message.get("role") == "user"]))


def message_text(content: object) -> str:
    """The text of an OpenAI message's `content`: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def split_of(prompt: str) -> Split:
    """60 / 10 / 30 by the prompt's SHA-256, so that the same prompt falls on the same side in every table."""
    place = int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[:8]) / 2**64
    if place < 0.6:
        return "train"
    return "val" if place < 0.7 else "test"


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                # The standard reader knows NaN, which deserves its own message below.
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise OutcomeTableError(path, f"not JSON: {error}", row=number) from None
            if not isinstance(row, dict):
                raise OutcomeTableError(path, f"expected a JSON object, got {type(row).__name__}", row=number)
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise OutcomeTableError(
            path, "reading Parquet needs pyarrow: pip install 'training-wheels[tables]', or give JSON lines"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            present = [name for name in file.schema_arrow.names if name in COLUMNS]
            _require_columns(path, present)
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutcomeTableError(path, f"broken Parquet: {reason}") from None


def _require_columns(path: Path, present: Iterable[str], row: int | None = None) -> None:
    names = set(present)
    for column in ("id", *QUALITIES):
        if column not in names:
            raise OutcomeTableError(path, "the column is missing", column=column, row=row)
    if "prompt" not in names and "messages" not in names:
        raise OutcomeTableError(path, "the column is missing (`messages` may stand instead)", column="prompt", row=row)


def _number(path: Path, row: int, column: str, value: object, *, within: tuple[float, float]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OutcomeTableError(path, f"expected a number, got {_shown(value)}", column=column, row=row)
    number = float(value)
    if math.isnan(number):
        raise OutcomeTableError(path, "not a number (NaN); leave unknown values null", column=column, row=row)
    low, high = within
    if not low <= number <= high or math.isinf(number):
        bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g} and finite"
        raise OutcomeTableError(path, f"{number:g} is out of range, expected {bounds}", column=column, row=row)
    return number


def _text(path: Path, row: int, column: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise OutcomeTableError(path, f"expected text, got {_shown(value)}", column=column, row=row)


def _numbers(path: Path, row: int, column: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise OutcomeTableError(path, f"expected a list of numbers, got {_shown(value)}", column=column, row=row)
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) or math.isnan(item) for item in value):
        raise OutcomeTableError(path, "expected a list of numbers without nulls or NaN", column=column, row=row)
    return tuple(map(float, value))


def _messages(path: Path, row: int, value: object) -> tuple[Mapping[str, Any], ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise OutcomeTableError(path, f"not JSON: {error}", column="messages", row=row) from None
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        message = f"expected a list of messages, got {_shown(value)}"
        raise OutcomeTableError(path, message, column="messages", row=row)
    return tuple(value)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _outcome(path: Path, number: int, row: dict[str, Any]) -> Outcome:
    identity = row.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or not identity:
        raise OutcomeTableError(path, f"expected text, got {_shown(identity)}", column="id", row=number)
    messages = _messages(path, number, row.get("messages"))
    prompt = _text(path, number, "prompt", row.get("prompt"))
    if prompt is None and messages is None:
        raise OutcomeTableError(path, "neither prompt nor messages", column="prompt", row=number)
    if messages is not None:
        prompt = "\n".join(message_text(message.get("content")) for message in messages)
    assert prompt is not None
    split = _text(path, number, "split", row.get("split"))
    if split is not None and split not in SPLITS:
        raise OutcomeTableError(path, f"expected train, val or test, got {split!r}", column="split", row=number)
    rest: dict[str, Any] = {column: _text(path, number, column, row.get(column)) for column in TEXTS}
    rest |= {column: _number(path, number, column, row.get(column), within=(0.0, 1.0)) for column in QUALITIES}
    rest |= {column: _number(path, number, column, row.get(column), within=(0.0, math.inf)) for column in NUMBERS}
    rest |= {column: _numbers(path, number, column, row.get(column)) for column in LISTS}
    known: Split = split_of(prompt) if split is None else SPLITS[SPLITS.index(split)]
    return Outcome(id=identity, prompt=prompt, messages=messages, split=known, **rest)


def iter_outcomes(path: str | Path) -> Iterator[Outcome]:
    """Rows in the file's order; memory holds one batch and one hash per row (to find duplicated ids).

    Raises OutcomeTableError; a table without rows raises too.
    """
    path = Path(path)
    if not path.exists():
        raise OutcomeTableError(path, "no such file")
    if not path.is_file():
        raise OutcomeTableError(path, "not a file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise OutcomeTableError(path, f"cannot be read: {error.strerror}") from None
    parquet = magic == b"PAR1" or path.suffix.lower() in (".parquet", ".pq")
    seen: set[int] = set()
    for number, row in _parquet_rows(path) if parquet else _json_rows(path):
        if not parquet:
            _require_columns(path, row, number)
        outcome = _outcome(path, number, row)
        # 64 bits of a hash instead of the id: ten million rows stay below a gigabyte.
        mark = int.from_bytes(hashlib.blake2b(outcome.id.encode("utf-8", "replace"), digest_size=8).digest())
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
