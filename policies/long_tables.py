"""Long outcome tables: one row per request and model, for pairs with several teachers.

Idea: two passes. The first looks at ids, models and roles alone: who is the student, which teachers there are, in which
order, whether every request has what it needs, and whether the rows of a request stand together. The second puts
requests together, one at a time where they do, else in memory.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from policies.outcome import Answered, Outcome, split_of
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
    shown,
    split_in,
    text_in,
    texts_in,
)

NEEDED = ("id", "model", "quality")
ANSWER_COLUMNS = ("response", "logprobs", "entropies", "finish_reason", "cost", "student_samples")
CACHED = ("student_cached_tokens", "teacher_cached_tokens")
"""Read in the student's row; the second only where there is one teacher, as in service."""
COLUMNS = frozenset((*NEEDED, "role", "prompt", "messages", "split", "group", "reference", *ANSWER_COLUMNS, *CACHED))
"""Columns that are read; others are ignored."""

MOST_TEACHERS = 16
"""More names than that in `model` are no models but a mistake."""
_STUDENT_SAID = "say so in the column `role` (student or teacher), or call the student's model `student`"


def is_long(columns: Iterable[str]) -> bool:
    """Whether a table with these columns has one row per request and model."""
    names = set(columns)
    return not names & {"student_quality", "teacher_quality"} and bool(names & {"quality", "model"})


@dataclass(frozen=True, slots=True)
class _Survey:
    student: str
    teachers: tuple[str, ...]
    """In the order in which they first appear."""
    together: bool
    """The rows of every request stand one after the other."""


def long_outcomes(path: Path) -> Iterator[Outcome]:
    """Requests in the order of their first rows. With one teacher they are as a wide table's; with several, `teachers`
    holds all, and those whose row a request lacks are unknown. Raises OutcomeTableError."""
    survey = _survey(path)
    for rows in _requests(path, together=survey.together):
        yield _outcome(path, rows, survey)


def _survey(path: Path) -> _Survey:
    parquet = is_parquet(path)
    if parquet:
        _require(path, columns_of(path))
    roles: dict[str, str] = {}
    places: dict[str, int] = {}
    student: str | None = None
    seen: dict[int, int] = {}
    """Per request, by a hash of its id: one bit per model."""
    first_rows: dict[int, int] = {}
    last, together = None, True
    for number, row in raw_rows(path, frozenset(("id", "model", "role"))):
        if not parquet:
            _require(path, row, number)
        identity, model = id_in(path, number, row.get("id")), _model(path, number, row)
        role = _role(path, number, row, model)
        if roles.setdefault(model, role) != role:
            message = f"model {model!r} is a {role} here and a {roles[model]} before; a model has one role"
            raise OutcomeTableError(path, message, column="role", row=number)
        if role == "student":
            if student is not None and student != model:
                message = f"two students, {student!r} and {model!r}; a table has one"
                raise OutcomeTableError(path, message, column="role", row=number)
            student = model
        place = places.setdefault(model, len(places))
        if place > MOST_TEACHERS:
            message = f"{model!r} is the {place + 1}th model; at most {MOST_TEACHERS} teachers are known"
            raise OutcomeTableError(path, message, column="model", row=number)
        mark = mark_of(identity)
        before = seen.get(mark, 0)
        if before >> place & 1:
            message = f"id {identity!r} and model {model!r} occur twice"
            raise OutcomeTableError(path, message, column="model", row=number)
        if before and mark != last:
            together = False
        seen[mark], last = before | 1 << place, mark
        first_rows.setdefault(mark, number)
    if not seen:
        raise OutcomeTableError(path, "the table has no rows")
    if student is None:
        raise OutcomeTableError(path, f"no row is the student's; {_STUDENT_SAID}", column="role")
    if len(places) == 1:
        message = f"{student!r} is the only model; routing chooses between a student and a teacher, so ask both"
        raise OutcomeTableError(path, message, column="model")
    bit = 1 << places[student]
    for mark, models in seen.items():
        if not models & bit:
            message = f"the request that begins here has no row of the student, {student!r}"
            raise OutcomeTableError(path, message, column="id", row=first_rows[mark])
    return _Survey(student, tuple(name for name in places if name != student), together)


def _require(path: Path, present: Iterable[str], row: int | None = None) -> None:
    names = set(present)
    for column in NEEDED:
        if column not in names:
            message = "the column is missing; a table with one row per request and model has id, prompt, model, quality"
            raise OutcomeTableError(path, message, column=column, row=row)
    if row is None and not names & {"prompt", "messages"}:
        raise OutcomeTableError(path, "the column is missing (`messages` may stand instead)", column="prompt")


def _model(path: Path, number: int, row: Row) -> str:
    model = text_in(path, number, "model", row.get("model"))
    if not model:
        raise OutcomeTableError(path, f"expected a model's name, got {shown(model)}", column="model", row=number)
    return model


def _role(path: Path, number: int, row: Row, model: str) -> str:
    role = text_in(path, number, "role", row.get("role"))
    if role is None:
        return "student" if model == "student" else "teacher"
    if role not in ("student", "teacher"):
        raise OutcomeTableError(path, f"expected student or teacher, got {role!r}", column="role", row=number)
    return role


_Rows = list[tuple[int, Row]]


def _requests(path: Path, *, together: bool) -> Iterator[_Rows]:
    """The rows of each request, with their numbers."""
    if not together:
        gathered: dict[str, _Rows] = {}
        for number, row in raw_rows(path, COLUMNS):
            gathered.setdefault(id_in(path, number, row.get("id")), []).append((number, row))
        yield from gathered.values()
        return
    rows: _Rows = []
    for number, row in raw_rows(path, COLUMNS):
        if rows and str(rows[0][1]["id"]) != str(row["id"]):
            yield rows
            rows = []
        rows.append((number, row))
    if rows:
        yield rows


def _outcome(path: Path, rows: _Rows, survey: _Survey) -> Outcome:
    prompt, messages, split = None, None, None
    texts: dict[str, str | None] = {"group": None, "reference": None}
    answers: dict[str, tuple[int, Row]] = {}
    for number, row in rows:
        said, conversation = prompt_in(path, number, row)
        if said is not None:
            if prompt not in (None, said):
                message = "another prompt than in the other rows of this request"
                raise OutcomeTableError(path, message, column="prompt", row=number)
            prompt, messages = said, conversation or messages
        place = split_in(path, number, row)
        if place is not None:
            if split not in (None, place):
                message = f"{place!r}, and {split!r} in another row of this request"
                raise OutcomeTableError(path, message, column="split", row=number)
            split = place
        for name in texts:
            texts[name] = texts[name] or text_in(path, number, name, row.get(name))
        answers[str(row["model"])] = (number, row)
    first = rows[0][0]
    if prompt is None:
        raise OutcomeTableError(path, "neither prompt nor messages", column="prompt", row=first)
    number, own = answers[survey.student]
    teachers = tuple(_answered(path, name, answers.get(name)) for name in survey.teachers)
    default = teachers[0]
    drafted = _answered(path, survey.student, (number, own))
    return Outcome(
        id=id_in(path, first, rows[0][1].get("id")),
        prompt=prompt,
        student_quality=drafted.quality,
        teacher_quality=default.quality,
        split=split or split_of(prompt),
        messages=messages,
        student_response=drafted.response,
        teacher_response=default.response,
        student_logprobs=numbers_in(path, number, "logprobs", own.get("logprobs")),
        student_entropies=numbers_in(path, number, "entropies", own.get("entropies")),
        student_finish_reason=text_in(path, number, "finish_reason", own.get("finish_reason")),
        student_cost=drafted.cost,
        teacher_cost=default.cost,
        group=texts["group"],
        reference=texts["reference"],
        student_model=survey.student,
        teacher_model=default.model,
        student_samples=texts_in(path, number, "student_samples", own.get("student_samples")),
        teachers=teachers if len(teachers) > 1 else (),
        **{name: count_in(path, number, name, own.get(name)) for name in CACHED[: 2 if len(teachers) == 1 else 1]},
    )


def _answered(path: Path, model: str, numbered: tuple[int, Row] | None) -> Answered:
    if numbered is None:
        return Answered(model)
    number, row = numbered
    return Answered(
        model,
        number_in(path, number, "quality", row.get("quality"), within=(0.0, 1.0)),
        text_in(path, number, "response", row.get("response")),
        number_in(path, number, "cost", row.get("cost"), within=(0.0, math.inf)),
    )
