"""A row of an outcome table: what the student and one teacher, or several, made of one request."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Answered:
    """What one of several teachers made of a request; None where unknown."""

    model: str
    quality: float | None = None
    """0..1"""
    response: str | None = None
    cost: float | None = None
    """USD"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. Qualities are 0..1, costs USD; None where unknown."""

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
    student_samples: tuple[str, ...] | None = None
    """Short samples of the student for the same prompt, beside its response."""
    teachers: tuple[Answered, ...] = ()
    """Where the table holds several teachers: all of them, in the same order in every row. The first one's values stand
    under `teacher_…` as well, so whoever knows one teacher sees that one. Empty where there is one."""
    student_cached_tokens: int | None = None
    """Tokens of the prompt that the student was believed to hold in its prefix cache before it answered."""
    teacher_cached_tokens: int | None = None

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


class TeachersDiffer(ValueError):
    """Rows that do not know the same teachers; the message names both lists."""


def teachers_of(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """The names of several teachers, which all rows share; empty where there is one. Raises TeachersDiffer."""
    names: tuple[str, ...] | None = None
    for outcome in outcomes:
        found = tuple(teacher.model for teacher in outcome.teachers)
        if names is None:
            names = found
        elif names != found:
            first, second = (", ".join(each) or "one teacher" for each in (names, found))
            raise TeachersDiffer(
                f"the tables do not hold the same teachers: {first} in one, {second} in another (row id"
                f" {outcome.id!r}); give tables with the same teachers in the same order"
            )
    return names or ()


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
