"""Made-up decision logs, written as the gateway writes them."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from router.record import DecisionRecord, Reason, StepRecord

START = 1_780_000_000.0


def step(
    action: str = "student",
    propensity: float = 0.9,
    *,
    at: str = "route",
    score: float | None = 0.0,
    admitted: bool | None = None,
    **details: float,
) -> StepRecord:
    if admitted is None and action in ("teacher", "escalate"):
        admitted = True
    return StepRecord(at, action, score, 0.0, propensity, admitted, details)


def record(number: int, *steps: StepRecord, **changes: Any) -> DecisionRecord:
    """A request that was answered; who answered is read from its last step."""
    asked = bool(steps) and steps[-1].action in ("teacher", "escalate") and steps[-1].admitted is not False
    plain = DecisionRecord(
        id=f"dec_{number}", at=START + number, endpoint="chat", model="auto", route="teacher" if asked else "student",
        reason=Reason.POLICY_TEACHER if asked else Reason.POLICY_STUDENT, steps=steps, policy="wheels",
        policy_version="one", budget_version=1, budget_share=0.2, refused_by=None, status=200, error=None, key_id="",
        user="", tenant="", conversation="", tags=(), latency_ms=100.0, first_byte_ms=None, student_tokens=10,
        teacher_tokens=50 if asked else 0, teacher_usd=0.001 if asked else 0.0, teacher_calls=int(asked),
    )  # fmt: skip
    return replace(plain, **changes)


def feedback(number: int, quality: float, at: float = START + 1e6) -> dict[str, Any]:
    return {"feedback_on": f"dec_{number}", "quality": quality, "at": at, "key_id": ""}


def write_log(directory: Path, rows: Iterable[DecisionRecord | dict[str, Any]], name: str = "a") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    (directory / f"decisions-20261121T000000-{name}-00000.jsonl").write_bytes(lines)
    return directory


@dataclass(frozen=True)
class Traffic:
    """A log and what both answers to each of its requests are worth."""

    rows: list[DecisionRecord | dict[str, Any]]
    student: list[float]
    teacher: list[float]

    def best(self, share: float) -> float:
        """The mean quality when the best `share` by score is asked."""
        scores = [row.steps[0].score for row in self.rows if isinstance(row, DecisionRecord)]
        order = sorted(range(len(scores)), key=lambda i: -float(scores[i] or 0.0))
        asked = set(order[: round(share * len(scores))])
        return sum(self.teacher[i] if i in asked else self.student[i] for i in range(len(scores))) / len(scores)


def traffic(count: int, *, explore: float = 0.2, told: float = 1.0, text: bool = False, seed: int = 0) -> Traffic:
    """The best fifth by score is asked. The student is right with a chance that falls with the score, from 0.9 to 0.3;
    the teacher nine times in ten."""
    rng = random.Random(seed)
    rows: list[DecisionRecord | dict[str, Any]] = []
    student, teacher = [], []
    for number in range(count):
        hard = rng.random()
        student.append(float(rng.random() < 0.9 - 0.6 * hard))
        teacher.append(float(rng.random() < 0.9))
        wanted = hard > 0.8
        chance = explore / 2 + (1 - explore) * wanted
        asks = rng.random() < chance
        decided = step(
            "teacher" if asks else "student",
            chance if asks else 1 - chance,
            score=(hard - 0.8) * 10,
            expected_student_quality=0.9 - 0.6 * hard,
            expected_gain=0.6 * hard,
            price=0.48,
        )
        words = f"Question {number}: {'why ' * round(10 * hard)}" if text else None
        rows.append(record(number, decided, prompt=words))
        if rng.random() < told:
            rows.append(feedback(number, teacher[-1] if asks else student[-1]))
    return Traffic(rows, student, teacher)
