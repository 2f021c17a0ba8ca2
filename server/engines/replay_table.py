"""What a replayed model would say: an outcome table, looked up by prompt."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from policies.outcomes import Answered, Outcome, message_text

Side = str
"""student, teacher, or the name of one of several teachers after the first."""
SIDES: tuple[Side, ...] = ("student", "teacher")

# About what a subword tokenizer makes of European text; good enough to stream by and to count.
_PIECE = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")


@dataclass(frozen=True, slots=True)
class Answer:
    """One side of one row. `logprobs` has one number per piece, or is empty."""

    row_id: str
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    cost_usd: float | None
    is_stand_in: bool
    """The table holds no text for this side; the pieces say so."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def cut(self, most: int | None) -> "Answer":
        """At most so many pieces, as `max_tokens` asks."""
        if most is None or most >= len(self.pieces):
            return self
        return Answer(
            self.row_id,
            self.pieces[:most],
            self.logprobs[:most],
            "length",
            self.prompt_tokens,
            self.cost_usd,
            self.is_stand_in,
        )


class ReplayTable:
    """Rows by their prompt; white space counts as one blank. Of rows with the same prompt the first one answers."""

    def __init__(self, rows: Iterable[Outcome]) -> None:
        self._rows: list[Outcome] = []
        self._by_prompt: dict[bytes, int] = {}
        self.repeated = 0
        """Rows that no request reaches, because an earlier one has the same prompt."""
        for row in rows:
            key = _key(row.prompt)
            if key in self._by_prompt:
                self.repeated += 1
                continue
            self._by_prompt[key] = len(self._rows)
            self._rows.append(row)
        for i, row in enumerate(self._rows):
            # A client may put a system message of its own before the question; whole conversations go first.
            self._by_prompt.setdefault(_key(row.last_user), i)

    def __len__(self) -> int:
        return len(self._rows)

    def names(self) -> dict[str, Side]:
        """Every model name that is answered to: the roles, and the models that the table names."""
        names: dict[str, Side] = {"student": "student", "teacher": "teacher"}
        for row in self._rows:
            if row.student_model:
                names.setdefault(row.student_model, "student")
            if row.teacher_model:
                names.setdefault(row.teacher_model, "teacher")
            for teacher in row.teachers[1:]:
                names.setdefault(teacher.model, teacher.model)
        return names

    def sides(self) -> tuple[Side, ...]:
        """All that answer differently."""
        return tuple(dict.fromkeys((*SIDES, *self.names().values())))

    def without_text(self, side: Side) -> int:
        """How many rows have no text for this side."""
        return sum(_response(row, side) is None for row in self._rows)

    def find(self, prompts: Sequence[str]) -> Outcome | None:
        """The row of the first of these texts that the table knows."""
        for prompt in prompts:
            i = self._by_prompt.get(_key(prompt))
            if i is not None:
                return self._rows[i]
        return None


def answer_of(row: Outcome, side: Side) -> Answer:
    text = _response(row, side)
    stand_in = text is None
    if text is None:
        # Nothing about the row may show here: a policy reads drafts, and must not find the grade in one.
        text = f"The outcome table holds no text of the {side} for this prompt; this sentence stands in for it."
    logprobs: tuple[float, ...] = ()
    if side == "student" and not stand_in:
        logprobs = row.student_logprobs or ()
    finish = row.student_finish_reason if side == "student" else None
    return Answer(
        row_id=row.id,
        pieces=_split(text, len(logprobs)) if logprobs else tuple(_PIECE.findall(text)),
        logprobs=logprobs,
        finish_reason="length" if finish == "length" else "stop",
        prompt_tokens=max(1, len(_PIECE.findall(row.prompt))),
        cost_usd=row.student_cost if side == "student" else _teacher(row, side).cost,
        is_stand_in=stand_in,
    )


def prompts_of(body: Mapping[str, Any]) -> list[str]:
    """The texts under which a request may stand in the table, the most telling first."""
    messages = body.get("messages")
    if isinstance(messages, list):
        valid = [message for message in messages if isinstance(message, dict)]
        texts = [message_text(message.get("content")) for message in valid]
        users = [text for message, text in zip(valid, texts, strict=True) if message.get("role") == "user"]
        return ["\n".join(texts), *users[-1:]]
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return [prompt] if isinstance(prompt, str) else []


def _response(row: Outcome, side: Side) -> str | None:
    return row.student_response if side == "student" else _teacher(row, side).response


def _teacher(row: Outcome, side: Side) -> Answered:
    if side == "teacher":
        return Answered(side, response=row.teacher_response, cost=row.teacher_cost)
    return next((each for each in row.teachers if each.model == side), Answered(side))


def _split(text: str, count: int) -> tuple[str, ...]:
    """`text` in exactly `count` pieces of about the same length; some are empty where there are too few letters."""
    edges = [round(i * len(text) / count) for i in range(count + 1)]
    return tuple(text[a:b] for a, b in pairwise(edges))


def _key(text: str) -> bytes:
    normal = " ".join(text.split())
    return hashlib.blake2b(normal.encode("utf-8", "replace"), digest_size=16).digest()
