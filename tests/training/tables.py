"""Small made-up outcome tables: what they hold can be learned, and by construction what."""

import json
import random
from pathlib import Path

from policies.outcomes import Outcome


def sums(count: int, *, seed: int = 0, logprobs: bool = True) -> list[Outcome]:
    """Short sums, answered at once. The student fails on large numbers, and its log-probabilities say so.

    The teacher is right nine times in ten. About 60% of the student's answers are right.
    """
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        a, b = (
            (rng.randint(2, 30), rng.randint(2, 30))
            if rng.random() < 0.5
            else (rng.randint(50, 900), rng.randint(50, 900))
        )
        hard = a * b > 2000
        right = rng.random() < (0.35 if hard else 0.85)
        said = a * b if right else a * b + rng.choice([-10, 10, 1, 100])
        sure = -0.05 if right else -0.9
        row = Outcome(
            id=f"sum-{i}",
            prompt=f"A box holds {a} rows of {b} apples. How many apples are there?",
            student_quality=float(right),
            teacher_quality=float(rng.random() < 0.9),
            split=("train", "train", "train", "val", "test", "test")[i % 6],
            student_response=f"The answer is {said}.",
            teacher_response=f"{a} * {b} = {a * b}. The answer is {a * b}.",
            student_logprobs=tuple(min(0.0, rng.gauss(mean, 0.3)) for mean in (-0.01, -0.01, -0.01, sure, -0.02))
            if logprobs
            else None,
            student_model="small",
            teacher_model="big",
        )
        rows.append(row)
    return rows


def as_dict(row: Outcome) -> dict[str, object]:
    return {
        "id": row.id,
        "prompt": row.prompt,
        "student_quality": row.student_quality,
        "teacher_quality": row.teacher_quality,
        "split": row.split,
        "student_response": row.student_response,
        "teacher_response": row.teacher_response,
        "student_logprobs": row.student_logprobs,
        "student_model": row.student_model,
        "teacher_model": row.teacher_model,
    }


def write(path: Path, rows: list[Outcome]) -> Path:
    path.write_text("".join(json.dumps(as_dict(row)) + "\n" for row in rows))
    return path
