"""Made-up tables with several teachers: what is to be learned is known by construction."""

import json
import random
from pathlib import Path
from typing import Any

KINDS = ("code", "history", "sums")
TOPICS = {
    "code": "Write a Python function that returns the list `xs_{i}` sorted, without using sorted().",
    "history": "In which year did the war of the {i}th dynasty end, and who signed the treaty?",
    "sums": "Add {i} and {j}, then multiply the result by {k}. What do you get?",
}
QUALITIES = {
    "small": {"code": 0.2, "history": 0.3, "sums": 0.9},
    "coder": {"code": 0.95, "history": 0.35, "sums": 0.9},
    "scholar": {"code": 0.4, "history": 0.95, "sums": 0.9},
}
BILLS = {"small": 0.0, "coder": 0.002, "scholar": 0.008}


def specialists(count: int, *, seed: int = 0, drafts: bool = True) -> list[dict[str, Any]]:
    """Long rows of a student that can add up, and two teachers of which each is good at one other thing; the second is
    four times as dear."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        kind = rng.choice(KINDS)
        prompt = TOPICS[kind].format(i=i, j=rng.randint(2, 99), k=rng.randint(2, 9))
        for model, qualities in QUALITIES.items():
            right = rng.random() < qualities[kind]
            row: dict[str, Any] = {
                "id": f"q{i}",
                "model": model,
                "role": "student" if model == "small" else "teacher",
                "prompt": prompt,
                "quality": float(right),
                "cost": BILLS[model] * rng.uniform(0.8, 1.25),
                "split": "train" if i % 10 < 6 else "val" if i % 10 < 7 else "test",
                "group": kind,
            }
            if drafts:
                row["response"] = f"{model} says {'yes' if right else 'perhaps'}, number {i}."
            if drafts and model == "small":
                row["logprobs"] = [-0.1 if right else -1.5 + 0.5 * rng.random()] * 4
            rows.append(row)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
