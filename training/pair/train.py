"""Training one model of the pair: steps of packed questions, checkpoints, and going on where one stopped.

What a step learns depends on the seed, the step and the weights, never on the clock, so a run stopped and resumed
ends with the weights of a run that never stopped (on the same machine with the same number of threads).
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from training.pair.config import Course, Role
from training.pair.lessons import IGNORED, lesson
from training.pair.model import build, grown


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


def scale(course: Course, step: int) -> float:
    """The share of the full learning rate at `step`: in every stage it rises, stays, falls."""
    stage, done = course.at(step)
    falling = max(1, round(stage.steps * stage.decay))
    return stage.scale * min(1.0, (done + 1) / stage.warmup, (stage.steps - done) / falling)


def optimizers_of(model: LlamaForCausalLM, course: Course) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (orthogonalised momentum) for the matrices inside the layers, AdamW for embeddings and norms.

    On these questions Muon needs about a quarter of AdamW's steps (docs/pair.md has both curves).
    """
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    known = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in known]
    muon = torch.optim.Muon(
        inside, lr=course.learning_rate, weight_decay=course.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=course.embedding_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return muon, adamw


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
    model = build(course.shape_at(0), tokenizer, course.seed)
    optimizers = optimizers_of(model, course)
    path = work / "checkpoint.pt"
    done = Progress(0, float("nan"), 0, 0, 0.0)
    if path.exists():
        saved = torch.load(path, weights_only=True)
        done = Progress(**saved["progress"])
        # The weights are those of the step done last: growing comes with the step after it.
        model = build(course.shape_at(max(0, done.step - 1)), tokenizer, course.seed)
        optimizers = optimizers_of(model, course)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(saved["rng"])
    model.train()
    began = clock() - done.seconds
    while done.step < course.steps:
        shape = course.shape_at(done.step)
        if shape.layers > len(model.model.layers):
            model = grown(model, shape, tokenizer, course.seed).train()
            optimizers = optimizers_of(model, course)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * scale(course, done.step)
        loss, questions = loss_of(model, course, role, tokenizer, done.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens = done.tokens + course.rows * course.row_tokens
        done = Progress(done.step + 1, float(loss.detach()), tokens, done.questions + questions, clock() - began)
        report(done)
        stopping = stop()
        if stopping or done.step % course.checkpoint_every == 0 or done.step == course.steps:
            _save(path, model, optimizers, done)
        if stopping and done.step < course.steps:
            raise Stopped(f"the {role} stopped after {done.step} of {course.steps} steps; the same command goes on")
    model.train(False)
    return model, done


def _save(path: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], done: Progress) -> None:
    # Written beside and renamed: a machine that dies here leaves the last checkpoint whole.
    beside = path.with_suffix(".part")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
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
