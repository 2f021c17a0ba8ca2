"""What the pair is worth, as JSON: both models on held-out questions, and how well a draft foretells its error."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from training.pair.config import ROLES, Recipe, Role
from training.pair.grade import Answer, ask
from training.pair.model import parameters
from training.pair.questions import Question, distinct
from training.pair.train import Progress

# Beside the seeds of training, so that held-out questions are drawn anew.
GRADING_SEED: Final = 1
TIMED: Final = 20


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ranks_right_higher(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Area under the ROC curve: how often a right answer scores above a wrong one, ties counting half. None where
    all are right or all are wrong."""
    above = [score for score, good in zip(scores, right, strict=True) if good]
    below = [score for score, good in zip(scores, right, strict=True) if not good]
    if not above or not below:
        return None
    won = sum((high > low) + 0.5 * (high == low) for high in above for low in below)
    return won / (len(above) * len(below))


def draft_signals(student: Sequence[Answer]) -> dict[str, float | None]:
    """How well log-probabilities of the student's answer tell right from wrong (see `ranks_right_higher`)."""
    right = [answer.quality == 1.0 for answer in student]
    return {
        "mean_logprob": ranks_right_higher([fmean(answer.logprobs) for answer in student], right),
        "min_logprob": ranks_right_higher([min(answer.logprobs) for answer in student], right),
        "first_logprob": ranks_right_higher([answer.logprobs[0] for answer in student], right),
        "sum_logprob": ranks_right_higher([sum(answer.logprobs) for answer in student], right),
    }


def grade(recipe: Recipe, directory: Path, trained: dict[Role, Progress]) -> dict[str, Any]:
    """The report on the two models in `directory`, loaded as a user loads them and asked held-out questions."""
    questions = distinct(GRADING_SEED, recipe.graded, "test")
    answers: dict[Role, list[Answer]] = {}
    report: dict[str, Any] = {
        "questions": len(questions),
        "split": "test",
        "tokenizer_sha256": sha256(directory / "student" / "tokenizer.json"),
    }
    for role in ROLES:
        model = LlamaForCausalLM.from_pretrained(directory / role)
        tokenizer = AutoTokenizer.from_pretrained(directory / role)
        answers[role] = ask(model, tokenizer, questions)
        report[role] = _of_model(model, tokenizer, questions, answers[role]) | _of_training(
            directory / role / "model.safetensors", trained[role]
        )
    pairs = list(zip(answers["student"], answers["teacher"], strict=True))
    report["teacher_right_student_wrong"] = fmean(t.quality > s.quality for s, t in pairs)
    report["student_right_teacher_wrong"] = fmean(s.quality > t.quality for s, t in pairs)
    report["auc_of_student_being_right"] = draft_signals(answers["student"])
    return report


def _of_model(
    model: LlamaForCausalLM, tokenizer: Any, questions: Sequence[Question], answers: Sequence[Answer]
) -> dict[str, Any]:
    groups: dict[str, list[float]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        groups[question.group].append(answer.quality)
    seconds = _seconds(model, tokenizer, questions[:TIMED])
    return {
        "quality": fmean(answer.quality for answer in answers),
        "quality_by_group": {group: fmean(values) for group, values in sorted(groups.items())},
        "parameters": parameters(model),
        "answer_tokens_mean": fmean(len(answer.logprobs) for answer in answers),
        "answer_tokens_max": max(len(answer.logprobs) for answer in answers),
        "seconds_per_answer_p50": median(seconds),
        "seconds_per_answer_max": max(seconds),
    }


def _seconds(model: LlamaForCausalLM, tokenizer: Any, questions: Sequence[Question]) -> list[float]:
    """Seconds per answer, one question at a time, on one thread: two that wait for each other at every layer are
    slower than one as soon as anything else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for question in questions:
            began = time.perf_counter()
            ask(model, tokenizer, [question])
            seconds.append(time.perf_counter() - began)
        return seconds
    finally:
        torch.set_num_threads(threads)


def _of_training(weights: Path, progress: Progress) -> dict[str, Any]:
    return {
        "weights_sha256": sha256(weights),
        "weights_bytes": weights.stat().st_size,
        "steps": progress.step,
        "training_tokens": progress.tokens,
        "training_questions": progress.questions,
        "training_seconds": progress.seconds,
    }
