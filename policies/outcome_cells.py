"""The cells of an outcome table of any shape: read from Parquet or JSON lines, checked, named where they are wrong."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from policies.outcome import SPLITS, Split, message_text

BATCH_ROWS = 1024
Row = dict[str, Any]


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


def is_parquet(path: Path) -> bool:
    """By its first bytes or its name. Raises OutcomeTableError for what is no readable file."""
    if not path.exists():
        raise OutcomeTableError(path, "no such file")
    if not path.is_file():
        raise OutcomeTableError(path, "not a file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise OutcomeTableError(path, f"cannot be read: {error.strerror}") from None
    return magic == b"PAR1" or path.suffix.lower() in (".parquet", ".pq")


def columns_of(path: Path) -> frozenset[str]:
    """Of Parquet its schema's; of JSON lines those of the first row, none where there is none."""
    if is_parquet(path):
        with _parquet(path) as file:
            return frozenset(file.schema_arrow.names)
    for _, row in _json_rows(path):
        return frozenset(row)
    return frozenset()


def raw_rows(path: Path, columns: frozenset[str]) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers, from 1, in the file's order; of Parquet only these columns are read, as far as they are
    there. Memory holds one batch. Raises OutcomeTableError."""
    if not is_parquet(path):
        yield from _json_rows(path)
        return
    with _parquet(path) as file:
        present = [name for name in file.schema_arrow.names if name in columns]
        number = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present):
            for row in batch.to_pylist():
                number += 1
                yield number, row


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise OutcomeTableError(
            path, "reading Parquet needs pyarrow: pip install 'training-wheels[tables]', or give JSON lines"
        ) from None
    try:
        # Reading ahead would keep what was read: memory would grow with the file.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutcomeTableError(path, f"broken Parquet: {reason}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
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


def number_in(path: Path, row: int, column: str, value: object, *, within: tuple[float, float]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OutcomeTableError(path, f"expected a number, got {shown(value)}", column=column, row=row)
    number = float(value)
    if math.isnan(number):
        raise OutcomeTableError(path, "not a number (NaN); leave unknown values null", column=column, row=row)
    low, high = within
    if not low <= number <= high or math.isinf(number):
        bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g} and finite"
        raise OutcomeTableError(path, f"{number:g} is out of range, expected {bounds}", column=column, row=row)
    return number


def count_in(path: Path, row: int, column: str, value: object) -> int | None:
    number = number_in(path, row, column, value, within=(0.0, math.inf))
    if number is None:
        return None
    if not number.is_integer():  # 12.0 is how a column with nulls comes out of many a program
        raise OutcomeTableError(path, f"expected a whole number, got {shown(value)}", column=column, row=row)
    return int(number)


def text_in(path: Path, row: int, column: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise OutcomeTableError(path, f"expected text, got {shown(value)}", column=column, row=row)


def numbers_in(path: Path, row: int, column: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise OutcomeTableError(path, f"expected a list of numbers, got {shown(value)}", column=column, row=row)
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) or math.isnan(item) for item in value):
        raise OutcomeTableError(path, "expected a list of numbers without nulls or NaN", column=column, row=row)
    return tuple(map(float, value))


def texts_in(path: Path, row: int, column: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise OutcomeTableError(path, f"expected a list of texts, got {shown(value)}", column=column, row=row)
    return tuple(value)


def messages_in(path: Path, row: int, value: object) -> tuple[Mapping[str, Any], ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise OutcomeTableError(path, f"not JSON: {error}", column="messages", row=row) from None
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        message = f"expected a list of messages, got {shown(value)}"
        raise OutcomeTableError(path, message, column="messages", row=row)
    return tuple(value)


def shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def id_in(path: Path, row: int, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise OutcomeTableError(path, f"expected text, got {shown(value)}", column="id", row=row)
    return value


def prompt_in(path: Path, number: int, row: Row) -> tuple[str | None, tuple[Mapping[str, Any], ...] | None]:
    """(the whole conversation as text, its messages); None where the row has neither."""
    messages = messages_in(path, number, row.get("messages"))
    prompt = text_in(path, number, "prompt", row.get("prompt"))
    if messages is not None:
        prompt = "\n".join(message_text(message.get("content")) for message in messages)
    return prompt, messages


def split_in(path: Path, number: int, row: Row) -> Split | None:
    split = text_in(path, number, "split", row.get("split"))
    if split is not None and split not in SPLITS:
        raise OutcomeTableError(path, f"expected train, val or test, got {split!r}", column="split", row=number)
    return None if split is None else SPLITS[SPLITS.index(split)]


def mark_of(text: str) -> int:
    """64 bits of a hash instead of the text: ten million ids stay below a gigabyte."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
