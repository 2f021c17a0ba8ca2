"""The decision log as training reads it: whole records, each with the last quality that feedback gave it.

The files are the gateway's (`decisions-*.jsonl`, one JSON object a line). A torn last line is what a process that died
leaves behind and is passed over; a line that is whole and no record is somebody's mistake and is named.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from router.ledger import Subject
from router.record import RECORD_VERSION, Reason, StepRecord


class LogError(ValueError):
    """The log cannot be read, or holds nothing to go by. The message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One request: what was decided, what came of it."""

    id: str
    at: float
    """Seconds since the epoch."""
    reason: Reason
    steps: tuple[StepRecord, ...]
    subject: Subject
    tags: tuple[str, ...] = ()
    policy_version: str = ""
    budget_version: int = 0
    budget_share: float = 1.0
    status: int = 200
    latency_ms: float = 0.0
    teacher_calls: int = 0
    teacher_tokens: int = 0
    teacher_usd: float = 0.0
    student_tokens: int = 0
    quality: float | None = None
    """0..1, the last that feedback said; None where nobody did."""
    prompt: str | None = None
    student_response: str | None = None
    student_logprobs: tuple[float, ...] | None = None
    student_cached_tokens: int | None = None
    """What the policy was told of prefix caches."""
    teacher_cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class DecisionRows:
    """All requests of a log in the order they came."""

    rows: tuple[Logged, ...]
    files: int = 0
    torn_lines: int = 0
    lost_feedback: int = 0
    """Feedback on decisions that the log no longer holds."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Policy version -> how many requests it decided."""


def read_decisions(path: Path) -> DecisionRows:
    """`path`: the directory of the segments, a state directory with `decisions/` in it, or one segment.

    Raises LogError.
    """
    if not path.exists():
        raise LogError(f"{path}: no such directory; --log names the gateway's state directory or its decisions/")
    files = [path] if path.is_file() else sorted(path.glob("decisions-*.jsonl"))
    if not files and path.is_dir():
        files = sorted((path / "decisions").glob("decisions-*.jsonl"))
    if not files:
        raise LogError(
            f"{path}: no decision log here (no decisions-*.jsonl); "
            "--log names the gateway's state directory or its decisions/"
        )
    torn = [0]
    found = join(_lines(files, torn))
    if not found.rows:
        raise LogError(f"{path}: the decision log is empty; serve some requests first")
    return DecisionRows(found.rows, len(files), torn[0], found.lost_feedback, found.versions)


def join(rows: Iterable[tuple[str, dict[str, Any]]]) -> DecisionRows:
    """(where, row) of records and feedback in any order. The last feedback on a decision counts, whenever it came.

    Lines about what a shadow would have done are passed over: nothing came of it.
    """
    records: dict[str, tuple[str, dict[str, Any]]] = {}
    qualities: dict[str, tuple[float, float]] = {}
    for where, row in rows:
        if "feedback_on" in row:
            quality = _quality(where, row)
            before = qualities.get(quality[0])
            if before is None or before[0] <= quality[1]:
                qualities[quality[0]] = (quality[1], quality[2])
        elif "shadow_on" not in row:
            records[str(row.get("id"))] = (where, row)
    logged = [_logged(where, row, qualities.get(id, (0.0, None))[1]) for id, (where, row) in records.items()]
    logged.sort(key=lambda each: each.at)
    versions: dict[str, int] = {}
    for each in logged:
        if each.steps:
            versions[each.policy_version] = versions.get(each.policy_version, 0) + 1
    return DecisionRows(tuple(logged), lost_feedback=len(qualities.keys() - records.keys()), versions=versions)


def _lines(files: Iterable[Path], torn: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        row = orjson.loads(line)
                    except orjson.JSONDecodeError:
                        # A worker that dies, or a disk that fills up, tears a line; its neighbours are whole.
                        torn[0] += bool(line.strip())
                        continue
                    if not isinstance(row, dict):
                        raise LogError(f"{path}, line {number}: not a decision record but {type(row).__name__}")
                    yield f"{path}, line {number}", row
        except FileNotFoundError:  # rotated away while reading
            continue
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror}") from None


def _quality(where: str, row: dict[str, Any]) -> tuple[str, float, float]:
    try:
        quality = float(row["quality"])
        if not 0.0 <= quality <= 1.0:
            raise LogError(f"{where}: feedback of {quality:g}; a quality lies between 0 and 1")
        return str(row["feedback_on"]), float(row["at"]), quality
    except (KeyError, TypeError) as error:
        raise LogError(f"{where}: not a line of feedback ({_what(error)})") from None


def _logged(where: str, row: dict[str, Any], quality: float | None) -> Logged:
    try:
        if row["version"] > RECORD_VERSION:
            raise LogError(
                f"{where}: record version {row['version']}, and this program knows versions up to {RECORD_VERSION}; "
                "update training-wheels"
            )
        logprobs = row.get("student_logprobs")
        cached = row.get("cached") or {}
        return Logged(
            id=row["id"],
            at=float(row["at"]),
            reason=Reason(row["reason"]),
            steps=tuple(_step(where, step) for step in row["steps"]),
            subject=Subject(row["key_id"], row["user"], row["tenant"], row["model"]),
            tags=tuple(row["tags"]),
            policy_version=row["policy_version"],
            budget_version=int(row["budget_version"]),
            budget_share=float(row["budget_share"]),
            status=int(row["status"]),
            latency_ms=float(row["latency_ms"]),
            teacher_calls=int(row["teacher_calls"]),
            teacher_tokens=int(row["teacher_tokens"]),
            teacher_usd=float(row["teacher_usd"]),
            student_tokens=int(row.get("student_tokens") or 0),
            quality=quality,
            prompt=row.get("prompt"),
            student_response=row.get("student_response"),
            student_logprobs=None if logprobs is None else tuple(logprobs),
            student_cached_tokens=cached.get("student_tokens"),
            teacher_cached_tokens=cached.get("teacher_tokens"),
        )
    except LogError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogError(f"{where}: not a decision record ({_what(error)})") from None


def _step(where: str, step: dict[str, Any]) -> StepRecord:
    propensity = float(step["propensity"])
    if not 0.0 < propensity <= 1.0 + 1e-9:
        raise LogError(f"{where}: a propensity of {propensity:g}; what was done had a chance above 0 and up to 1")
    score = step["score"]
    return StepRecord(
        step=step["step"],
        action=step["action"],
        score=None if score is None else float(score),
        shift=float(step["shift"]),
        propensity=min(propensity, 1.0),
        admitted=step.get("admitted"),
        details={name: float(value) for name, value in (step.get("details") or {}).items() if value is not None},
    )


def _what(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
