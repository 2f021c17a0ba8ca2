"""From files to rows of tokens. Nothing is cut silently: what is too long is counted, and what becomes of it is a
setting."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.distill.config import DataConfig
from training.distill.errors import CannotDistill


@dataclass(frozen=True, slots=True)
class Row:
    """One example as tokens. Those from `answer_from` on are to be predicted; `number` is its place in the data."""

    tokens: tuple[int, ...]
    answer_from: int
    number: int

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.tokens[: self.answer_from]

    @property
    def answer(self) -> tuple[int, ...]:
        return self.tokens[self.answer_from :]


@dataclass(frozen=True, slots=True)
class Counted:
    """What was read and what became of it."""

    files: tuple[str, ...]
    examples: int
    rows: int
    tokens: int
    answer_tokens: int
    too_long: int
    longest: int
    context: int
    too_long_were: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_records(paths: Sequence[Path]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every record with where it stands. Raises CannotDistill where a file cannot be read or holds none."""
    records: list[tuple[str, Mapping[str, Any]]] = []
    for path in paths:
        found = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _jsonl(path)
        if not found:
            raise CannotDistill(f"{path}: holds no rows")
        records += found
    return records


def _jsonl(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotDistill(f"{path}: cannot be read ({error})") from None
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CannotDistill(f"{path}:{number}: no JSON ({error})") from None
        if not isinstance(record, dict):
            raise CannotDistill(f"{path}:{number}: is no JSON object")
        found.append((f"{path}:{number}", record))
    return found


def _parquet(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # pyarrow has many classes of its own; all say what is wrong with the file
        raise CannotDistill(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    return [(f"{path}: row {number}", record) for number, record in enumerate(table.to_pylist())]


def read_rows(
    paths: Sequence[Path], config: DataConfig, tokenizer: Any, *, length: int | None = None
) -> tuple[list[Row], Counted]:
    """Rows of at most `config.context` tokens; with `length`, text in pieces of exactly that many."""
    context = length or config.context
    rows: list[Row] = []
    too_long = longest = 0
    records = read_records(paths)
    running: list[int] = []
    for where, record in records:
        prompt, answer = _parts(record, config, where)
        if prompt is None:
            tokens = _ids(tokenizer, answer, special=length is None)
            if length is not None:
                running += tokens + ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])
                continue
            longest = max(longest, len(tokens))
            too_long += len(tokens) > context
            for start in range(0, len(tokens), context):
                piece = tokens[start : start + context]
                if len(piece) > 1:
                    rows.append(Row(tuple(piece), 1, len(rows)))
            continue
        if length is not None:
            raise CannotDistill(f"{where}: through-time learns from text (column {config.text_column}), not from pairs")
        asked, told = _pair(tokenizer, prompt, answer, config, where)
        total = len(asked) + len(told)
        longest = max(longest, total)
        if total > context:
            too_long += 1
            if config.too_long == "refuse":
                raise CannotDistill(f"{where}: {total} tokens, more than data.context = {context}")
            if config.too_long == "drop" or len(asked) >= context:
                continue
            told = told[: context - len(asked)]
        rows.append(Row((*asked, *told), len(asked), len(rows)))
    if length is not None:
        whole = len(running) // length
        rows = [Row(tuple(running[i * length : (i + 1) * length]), 0, i) for i in range(whole)]
        longest = len(running)
    if not rows:
        names = ", ".join(map(str, paths))
        raise CannotDistill(
            f"{names}: no usable rows: {len(records)} read, {too_long} longer than {context} tokens (longest {longest})"
        )
    return rows, Counted(
        tuple(str(path) for path in paths),
        len(records),
        len(rows),
        sum(len(row.tokens) for row in rows),
        sum(len(row.answer) for row in rows),
        too_long,
        longest,
        context,
        "split"
        if rows[0].answer_from <= 1 and prompt is None
        else {"drop": "dropped", "cut": "cut"}[config.too_long]
        if config.too_long != "refuse"
        else "refused",
    )


def _parts(record: Mapping[str, Any], config: DataConfig, where: str) -> tuple[str | list[Any] | None, str]:
    """Prompt (text, or messages before the last) and answer; no prompt where the record is text."""
    messages = record.get("messages")
    if isinstance(messages, str):
        messages = json.loads(messages)
    if messages:
        if not (isinstance(messages, list) and len(messages) > 1 and messages[-1].get("role") == "assistant"):
            raise CannotDistill(f"{where}: messages: must end with one of the assistant's")
        return messages[:-1], str(messages[-1]["content"])
    if record.get(config.prompt_column) is not None:
        answer = record.get(config.answer_column)
        if not isinstance(answer, str):
            raise CannotDistill(f"{where}: no text in column {config.answer_column!r} (data.answer_column)")
        return str(record[config.prompt_column]), answer
    text = record.get(config.text_column)
    if isinstance(text, str) and text:
        return None, text
    wanted = f"{config.prompt_column!r} and {config.answer_column!r}, 'messages', or {config.text_column!r}"
    raise CannotDistill(f"{where}: needs {wanted}; it has {', '.join(map(repr, record)) or 'nothing'}")


def _pair(
    tokenizer: Any, prompt: str | list[Any], answer: str, config: DataConfig, where: str
) -> tuple[list[int], list[int]]:
    chat = config.chat or not isinstance(prompt, str)
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise CannotDistill(f"{where}: is a chat, and the student's tokenizer has no chat template")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        asked = _ids(tokenizer, text, special=False)
    else:
        asked = _ids(tokenizer, prompt, special=True)
    if not asked:
        raise CannotDistill(f"{where}: the prompt is empty")
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    told = _ids(tokenizer, answer, special=False) + end
    if not told:
        raise CannotDistill(f"{where}: the answer is empty, and the tokenizer has no end token")
    return asked, told


def _ids(tokenizer: Any, text: Any, *, special: bool) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=special)["input_ids"]]


def split_off(rows: Sequence[Row], wanted: int) -> tuple[list[Row], list[Row]]:
    """Training rows, and at most a tenth of them (at most `wanted`) kept apart: every n-th, so that they are spread."""
    count = min(wanted, len(rows) // 10)
    if count == 0:
        return list(rows), []
    every = len(rows) // count
    held = set(range(0, every * count, every))
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]


def packed(rows: Sequence[Row], context: int) -> list[tuple[Row, ...]]:
    """Rows put together so that each pack holds at most `context` tokens: longest first, each where it first fits."""
    packs: list[list[Row]] = []
    room: list[int] = []
    open_from = 0
    for row in sorted(rows, key=lambda row: (-len(row.tokens), row.number)):
        size = len(row.tokens)
        # Packs before `open_from` are full to within the shortest row; without it this is quadratic.
        place = next((i for i in range(open_from, len(packs)) if room[i] >= size), None)
        if place is None:
            packs.append([row])
            room.append(context - size)
        else:
            packs[place].append(row)
            room[place] -= size
        if len(packs) - open_from > 256:
            open_from += 1
    return [tuple(pack) for pack in packs]


def total_answer_tokens(packs: Iterable[Sequence[Row]]) -> int:
    return sum(len(row.answer) for pack in packs for row in pack)
