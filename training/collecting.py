"""`tw collect`: asks both models every prompt and keeps answers, log-probabilities, tokens and costs, graded.

Idea: every finished row is appended to `OUT.partial` at once, so an interrupted run loses only what was on the wire;
the table itself appears by one rename when all rows are there. A row that could not be answered keeps a null quality
and is asked again when the command is run again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from policies.outcome_files import write_table
from policies.outcomes import split_of
from training.asking import Asking, Endpoint, Reply, ask, sample

__all__ = ["Asking", "CannotCollect", "Collected", "Endpoint", "Grade", "Question", "collect", "read_questions"]

_SAMPLES = ("student_samples", "student_sample_tokens")
_CACHED = ("student_cached_tokens", "teacher_cached_tokens")
GATEWAY = "http://127.0.0.1:8080/v1"


class CannotCollect(Exception):
    """The prompts or the settings are wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    messages: list[dict[str, Any]]
    prompt: str | None
    reference: str | None = None
    group: str | None = None
    split: str | None = None
    cached: tuple[int | None, int | None] = (None, None)
    """Tokens that student and teacher held in their prefix caches when this was asked in service; carried on."""

    @property
    def text(self) -> str:
        return self.prompt if self.prompt is not None else json.dumps(self.messages, ensure_ascii=False)


Grade = Callable[[aiohttp.ClientSession, Question, str], Awaitable[float]]
"""Question and response -> quality 0..1; ValueError where it cannot be said."""


def read_questions(path: Path) -> list[Question]:
    """JSON lines with `id`, `prompt` or `messages`, and maybe `reference`, `group`, `split`, and the columns of prefix
    caches. Raises CannotCollect."""
    if not path.is_file():
        raise CannotCollect(f"{path}: no such file")
    found: list[Question] = []
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            question = _question(path, number, line)
            if question.id in seen:
                raise CannotCollect(f"{path}, row {number}: id {question.id!r} occurs twice")
            seen.add(question.id)
            found.append(question)
    if not found:
        raise CannotCollect(f"{path}: no prompts in it")
    return found


def _question(path: Path, number: int, line: bytes) -> Question:
    place = f"{path}, row {number}"
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CannotCollect(f"{place}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise CannotCollect(f"{place}: expected a JSON object")
    prompt, messages = row.get("prompt"), row.get("messages")
    if isinstance(messages, str):
        try:
            messages = orjson.loads(messages)
        except orjson.JSONDecodeError as error:
            raise CannotCollect(f"{place}: messages is not JSON: {error}") from None
    if messages is None and isinstance(prompt, str):
        messages = [{"role": "user", "content": prompt}]
    elif not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise CannotCollect(f"{place}: needs prompt (text) or messages (a list of chat messages)")
    else:
        prompt = None
    texts: dict[str, str | None] = {}
    for name in ("reference", "group", "split"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
            raise CannotCollect(f"{place}: {name} must be text")
        texts[name] = None if value is None else str(value)
    if texts["split"] not in (None, "train", "val", "test"):
        raise CannotCollect(f"{place}: split must be train, val or test, got {texts['split']!r}")
    identity = row.get("id", number)
    if not isinstance(identity, (str, int)) or isinstance(identity, bool) or identity == "":
        raise CannotCollect(f"{place}: id must be text")
    cached: list[int | None] = []
    for name in _CACHED:
        tokens = row.get(name)
        if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0):
            raise CannotCollect(f"{place}: {name} must be a whole number of tokens")
        cached.append(tokens)
    return Question(str(identity), messages, prompt, **texts, cached=(cached[0], cached[1]))


@dataclass(frozen=True, slots=True)
class Collected:
    rows: int
    asked: int
    """Rows asked in this run; the others were there already."""
    failed: int
    """Rows with an unanswered side."""
    first_error: str | None


async def collect(
    questions: Sequence[Question],
    out: Path,
    student: Endpoint,
    teacher: Endpoint,
    grade: Grade,
    how: Asking,
    *,
    grade_name: str,
    others: Sequence[Endpoint] = (),
    tick: Callable[[int, str], None] = lambda _count, _note: None,
) -> Collected:
    """Ask, grade, append; when all rows are there write the table. Raises CannotCollect.

    With `others`, more teachers, each of them has a label, and the table one row per request and model.
    """
    partial = out.with_name(out.name + ".partial")
    settings = {"student": [student.url, student.model], "teacher": [teacher.url, teacher.model], "grade": grade_name}
    for each in others:
        settings[f"teacher {each.label}"] = [each.url, each.model]
    if how.samples is not None:
        settings["samples"] = [str(how.samples.count), str(how.samples.max_tokens)]
    rows = _resume(partial, settings)
    wanted = {question.id for question in questions}
    done = {row["id"] for row in rows.values() if row["id"] in wanted and row["error"] is None}
    todo = [question for question in questions if question.id not in done]
    tick(len(done), "already there" if done else "")
    gate = asyncio.Semaphore(how.concurrency)
    failed = 0
    with partial.open("ab") as file:
        if not rows and file.tell() == 0:
            _append(file, {"settings": settings})

        async def one(question: Question) -> None:
            nonlocal failed
            async with gate:
                endpoints = (student, teacher, *others)
                replies = await asyncio.gather(*(ask(session, each, question.messages, how) for each in endpoints))
                if others:
                    row = await _long_rows(session, question, endpoints, replies, grade)
                else:
                    row = await _row(session, question, replies[0], replies[1], grade)
                if how.samples is not None:
                    row |= await sample(session, student, question.messages, how.samples, how)
            rows[question.id] = row
            _append(file, row)
            if row["error"] is not None:
                failed += 1
            tick(1, f"{failed} failed" if failed else "")

        connector = aiohttp.TCPConnector(limit=(2 + len(others)) * how.concurrency)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, trust_env=True) as session,
                asyncio.TaskGroup() as group,
            ):
                for question in todo:
                    group.create_task(one(question))
        except BaseExceptionGroup as several:
            raise _first(several) from None
    ordered = [rows[question.id] for question in questions]
    # In the order of the prompts, whichever was answered first.
    first_error = next((f"{row['id']}: {row['error']}" for row in ordered if row["error"] is not None), None)
    if any(question.cached != (None, None) for question in questions):
        ordered = [
            row | dict(zip(_CACHED, question.cached, strict=True))
            for row, question in zip(ordered, questions, strict=True)
        ]
    if failed and failed == len(questions):
        models = "all models" if others else "both models"
        raise CannotCollect(f"no prompt was answered by {models}; the first: {first_error}")
    if others:
        write_table(out, _flattened(ordered))
    else:
        write_table(out, [{name: value for name, value in row.items() if name != "error"} for row in ordered])
    if not failed:
        partial.unlink()
    return Collected(len(ordered), len(todo), failed, first_error)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the exceptions that ended the tasks: a nested group says nothing to whoever reads it."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _row(
    session: aiohttp.ClientSession, question: Question, student: Reply, teacher: Reply, grade: Grade
) -> dict[str, Any]:
    qualities: list[float | None] = []
    errors = [f"{role}: {reply.error}" for role, reply in (("student", student), ("teacher", teacher)) if reply.error]
    for reply in (student, teacher):
        quality = None
        if reply.text is not None:
            try:
                quality = await grade(session, question, reply.text)
            except (ValueError, aiohttp.ClientError, TimeoutError) as failure:
                errors.append(f"grading: {failure}")
        qualities.append(quality)
    return {
        "id": question.id,
        "prompt": question.prompt,
        "messages": None if question.prompt is not None else json.dumps(question.messages, ensure_ascii=False),
        "reference": question.reference,
        "group": question.group,
        "split": question.split or split_of(question.text),
        "student_model": student.model,
        "teacher_model": teacher.model,
        "student_quality": qualities[0],
        "teacher_quality": qualities[1],
        "student_response": student.text,
        "teacher_response": teacher.text,
        "student_logprobs": student.logprobs,
        "student_entropies": student.entropies,
        "student_finish_reason": student.finish_reason,
        "student_tokens_in": student.tokens_in,
        "student_tokens_out": student.tokens_out,
        "teacher_tokens_in": teacher.tokens_in,
        "teacher_tokens_out": teacher.tokens_out,
        "student_cost": student.cost,
        "teacher_cost": teacher.cost,
        "error": "; ".join(errors) or None,
    }


async def _long_rows(
    session: aiohttp.ClientSession,
    question: Question,
    endpoints: Sequence[Endpoint],
    replies: Sequence[Reply],
    grade: Grade,
) -> dict[str, Any]:
    """What is kept of one request with several teachers: what is common, and under `answers` a part per model."""
    errors: list[str] = []
    answers: list[dict[str, Any]] = []
    for endpoint, reply in zip(endpoints, replies, strict=True):
        name = endpoint.label or endpoint.model
        if reply.error:
            errors.append(f"{name}: {reply.error}")
        quality = None
        if reply.text is not None:
            try:
                quality = await grade(session, question, reply.text)
            except (ValueError, aiohttp.ClientError, TimeoutError) as failure:
                errors.append(f"grading {name}: {failure}")
        own = endpoint.role == "student"
        answers.append(
            {
                "model": name,
                "role": endpoint.role,
                "quality": quality,
                "response": reply.text,
                "logprobs": reply.logprobs if own else None,
                "entropies": reply.entropies if own else None,
                "finish_reason": reply.finish_reason,
                "tokens_in": reply.tokens_in,
                "tokens_out": reply.tokens_out,
                "cost": reply.cost,
            }
        )
    return {
        "id": question.id,
        "prompt": question.prompt,
        "messages": None if question.prompt is not None else json.dumps(question.messages, ensure_ascii=False),
        "reference": question.reference,
        "group": question.group,
        "split": question.split or split_of(question.text),
        "answers": answers,
        "error": "; ".join(errors) or None,
    }


def _flattened(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per request and model; what samples of the student were kept stand in its own row."""
    found = []
    for row in rows:
        common = {name: value for name, value in row.items() if name not in ("answers", "error", *_SAMPLES)}
        for answer in row["answers"]:
            own = answer["role"] == "student"
            sampled = {name: row[name] if own else None for name in _SAMPLES if name in row}
            found.append({**common, **answer, **sampled})
    return found


def _append(file: Any, row: dict[str, Any]) -> None:
    # One write per row, pushed to the disk: what is in the file was paid for.
    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    file.flush()


def _resume(partial: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if not partial.exists() or partial.stat().st_size == 0:
        return {}
    raw = partial.read_bytes()
    if not raw.endswith(b"\n"):
        # The line that was being written when the last run was killed.
        raw = raw[: raw.rfind(b"\n") + 1]
        partial.write_bytes(raw)
    lines = [orjson.loads(line) for line in raw.splitlines()]
    if not lines:
        return {}
    if lines[0].get("settings") != settings:
        raise CannotCollect(f"{partial} was begun with other models, URLs or grading; remove it to begin anew")
    return {row["id"]: row for row in lines[1:]}
