"""Training one model of the pair: steps of packed questions, checkpoints, and going on where one stopped.

What a step learns depends on the seed, the step and the weights, never on the clock, so a run stopped and resumed
ends with the weights of a run that never stopped (on the same machine with the same number of threads).
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from training.pair.config import Course, Role
from training.pair.lessons import IGNORED, lesson
from training.pair.model import build


class Stopped(Exception):
    """Training was asked to stop and did, with its checkpoint written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is after `step` steps: loss of that step in nats per answer token, totals, time spent."""

    step: int
    loss: float
    tokens: int
    questions: int
    seconds: float


def learning_rate(course: Course, step: int) -> float:
    """Rises, stays, falls: the plateau can be made longer without changing what was learned on it."""
    falling = max(1, round(course.steps * course.decay))
    rise = min(1.0, (step + 1) / course.warmup)
    return course.learning_rate * min(rise, (course.steps - step) / falling)


def loss_of(model: LlamaForCausalLM, course: Course, role: Role, tokenizer: Tokenizer, step: int) -> tuple[Any, int]:
    """Mean cross-entropy over the answer tokens of one step's questions, and how many questions these were."""
    rows = lesson(course, role, tokenizer, step)
    with torch.autocast("cpu", torch.bfloat16):
        states = model.model(
            input_ids=rows.tokens, position_ids=rows.positions, attention_mask=rows.mask, use_cache=False
        ).last_hidden_state
        # Questions are not learned, so the head runs only where an answer token comes next.
        learned = rows.targets != IGNORED
        logits = model.lm_head(states[learned])
    return cross_entropy(logits.float(), rows.targets[learned]), rows.questions


def train(
    course: Course,
    role: Role,
    tokenizer: Tokenizer,
    work: Path,
    *,
    clock: Callable[[], float],
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> tuple[LlamaForCausalLM, Progress]:
    """Trains `role` to the end of its course, from its checkpoint in `work` where there is one.

    Raises Stopped when `stop()` says so, and ValueError where the checkpoint belongs to another course.
    """
    work.mkdir(parents=True, exist_ok=True)
    _claim(work / "course.json", course)
    model = build(course.shape, tokenizer, course.seed)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": course.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=course.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    path = work / "checkpoint.pt"
    done = Progress(0, float("nan"), 0, 0, 0.0)
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        done = Progress(**saved["progress"])
    model.train()
    began = clock() - done.seconds
    while done.step < course.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(course, done.step)
        loss, questions = loss_of(model, course, role, tokenizer, done.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens = done.tokens + course.rows * course.row_tokens
        done = Progress(done.step + 1, float(loss.detach()), tokens, done.questions + questions, clock() - began)
        report(done)
        stopping = stop()
        if stopping or done.step % course.checkpoint_every == 0 or done.step == course.steps:
            _save(path, model, optimizer, done)
        if stopping and done.step < course.steps:
            raise Stopped(f"the {role} stopped after {done.step} of {course.steps} steps; the same command goes on")
    model.train(False)
    return model, done


def _save(path: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, done: Progress) -> None:
    # Written beside and renamed: a machine that dies here leaves the last checkpoint whole.
    beside = path.with_suffix(".part")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "progress": asdict(done),
        },
        beside,
    )
    os.replace(beside, path)


def _claim(path: Path, course: Course) -> None:
    described = json.loads(json.dumps(asdict(course)))
    if not path.exists():
        path.write_text(json.dumps(described, indent=2) + "\n")
        return
    known = json.loads(path.read_text())
    changed = sorted(key for key in {*known, *described} if known.get(key) != described.get(key))
    if changed:
        raise ValueError(
            f"{path.parent} holds a checkpoint of another course (different: {', '.join(changed)}); "
            f"use another --work, or remove {path.parent} to start again"
        )
