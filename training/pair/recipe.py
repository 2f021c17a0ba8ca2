"""The whole recipe: tokenizer, student, teacher, grades, files. One function; what it prints is the caller's choice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer

from training.pair.config import ROLES, Recipe, Role
from training.pair.model import STORED, export
from training.pair.questions import make
from training.pair.report import grade
from training.pair.tokenizer import train as train_tokenizer
from training.pair.train import Progress, train


def tokenizer_of(recipe: Recipe) -> Tokenizer:
    """The tokenizer, learned from questions and worked answers of the recipe's own seed."""
    rng = Random(f"tokenizer-{recipe.seed}")
    questions = (make(rng, recipe.student.stages[0].shares) for _ in range(recipe.tokenizer_questions))
    texts = (text for question in questions for text in (question.prompt, question.worked))
    return train_tokenizer(texts, recipe.vocabulary)


def make_pair(
    recipe: Recipe,
    out: Path,
    work: Path,
    *,
    clock: Callable[[], float],
    report: Callable[[Role, Progress], None],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Trains and grades both models and writes `out/student`, `out/teacher` and `out/report.json`; returns the report.

    Checkpoints lie in `work`, so the same call goes on where it stopped. `out` is touched only when both models are
    done. Raises `train.Stopped` when `stop()` says so, ValueError where `work` belongs to another recipe.
    """
    tokenizer = tokenizer_of(recipe)
    finished = work / "finished"
    trained: dict[Role, Progress] = {}
    for role in ROLES:

        def told(progress: Progress, role: Role = role) -> None:
            report(role, progress)

        model, trained[role] = train(
            recipe.course(role), role, tokenizer, work / role, clock=clock, report=told, stop=stop
        )
        export(model, tokenizer, finished / role, STORED[role])
    graded = {"recipe": asdict(recipe)} | grade(recipe, finished, trained)
    out.mkdir(parents=True, exist_ok=True)
    for role in ROLES:
        shutil.copytree(finished / role, out / role, dirs_exist_ok=True)
    (out / "report.json").write_text(json.dumps(graded, indent=2) + "\n")
    return graded
