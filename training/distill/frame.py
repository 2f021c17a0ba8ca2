"""The trainer: steps of a lesson on one or several devices, with validation, checkpoints, curves, and going on where
one stopped.

What a step learns depends on the seed, the step and the weights, never on the clock, so a run that was stopped and
resumed ends with the weights of one that never stopped (on the same number of devices).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.distill.batches import Batch
from training.distill.checkpoint import Progress, gathered, latest, restore, save
from training.distill.config import TrainingConfig
from training.distill.errors import DistillationFailed, Stopped
from training.distill.lesson import Lesson
from training.distill.models import save_activations
from training.distill.optimizers import optimizers_of


class BatchSource(Protocol):
    def batch(self, step: int, micro: int, rank: int, world: int) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the run is given from outside: the clock, the bar, the wish to stop, and the devices."""

    clock: Callable[[], float]
    tick: Callable[[int, int, str], None]
    """(steps done, steps in all, what to show)"""
    stop: Callable[[], bool]
    accelerator: Any

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)


@dataclass(frozen=True, slots=True)
class Trained:
    """`weights`: everything that learned, whole, by name (empty on other processes than the first). `curves`: one row
    per logged step or validation."""

    progress: Progress
    weights: dict[str, Tensor]
    curves: list[dict[str, float]]
    final: dict[str, float]


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Rises over the first `warmup` share, then falls to a tenth (cosine), to zero (linear), or stays."""
    rise = max(1, round(config.warmup * steps))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    part = (step - rise) / max(1, steps - rise)
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "linear":
        return config.learning_rate * (1.0 - part)
    return config.learning_rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * part)))


def train(
    lesson: Lesson,
    source: BatchSource,
    validation: Sequence[Batch],
    config: TrainingConfig,
    *,
    steps: int,
    seed: int,
    work: Path,
    around: Surroundings,
    after_step: Callable[[int], None] | None = None,
) -> Trained:
    """Trains to step `steps`, from the newest checkpoint under `work` where there is one.

    Raises Stopped when asked to stop, DistillationFailed where a loss is no number or the disk is full.
    """
    accelerator = around.accelerator
    world, device = accelerator.num_processes, accelerator.device
    lesson.to(device)
    # Gradient checkpointing and dropout follow the mode; measuring switches it off and on again.
    lesson.train()
    if config.gradient_checkpointing:
        save_activations(lesson.student)
    module: Any = lesson
    if config.sharding == "fsdp":
        from training.distill.sharding import shard

        shard(lesson, lesson.student, device.type, config.bf16)
    elif world > 1:
        module = accelerator.prepare_model(lesson)
    optimizers = optimizers_of(lesson, lesson.student, config)
    folder, curve_file = work / "checkpoints", work / "curves.jsonl"
    found = latest(folder)
    done = restore(found, lesson, optimizers) if found else Progress()
    curves = _curves(curve_file, done.step)
    began = around.clock() - done.seconds

    def log(row: dict[str, float]) -> None:
        curves.append(row)
        if around.main:
            with curve_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    work.mkdir(parents=True, exist_ok=True)
    if around.main:
        curve_file.write_text("".join(json.dumps(row) + "\n" for row in curves), encoding="utf-8")
    final = {name: value for name, value in (curves[-1] if curves else {}).items() if name.startswith("val_")}
    if done.step == 0 and validation and not curves:
        final = _validated(module, validation, accelerator, config)
        log({"step": 0, "tokens": 0, "seconds": around.clock() - began, **final})
    while done.step < steps:
        rate = learning_rate(config, done.step, steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        sums, tokens, norm = _one_step(lesson, module, source, config, optimizers, done.step, seed, accelerator)
        if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
            raise DistillationFailed(
                f"step {done.step + 1}: the loss is {sums['loss']}, the gradient's norm {norm}; the checkpoint "
                f"before is kept. Lower training.learning_rate (now {config.learning_rate}), or look at its rows"
            )
        if after_step is not None:
            after_step(done.step)
        done = Progress(done.step + 1, done.tokens + tokens, around.clock() - began)
        last = done.step == steps
        row: dict[str, float] = {}
        if done.step % config.log_every == 0 or last:
            row = {"rate": rate, "gradient_norm": norm, **sums}
        if validation and (done.step % config.evaluate_every == 0 or last):
            final = _validated(module, validation, accelerator, config)
            done = Progress(done.step, done.tokens, around.clock() - began)
            row |= final
        if row:
            log({"step": done.step, "tokens": done.tokens, "seconds": done.seconds, **row})
        around.tick(
            done.step, steps, f"loss {sums['loss']:.4f} · {done.tokens / max(done.seconds, 1e-9):,.0f} tokens/s"
        )
        stopping = _anybody(around.stop(), accelerator)
        if stopping or last or done.step % config.checkpoint_every == 0:
            save(folder, lesson, optimizers, done, main=around.main, keep=config.keep)
        if stopping and not last:
            raise Stopped(
                f"stopped after {done.step} of {steps} steps, checkpoint in {folder}; the same command goes on"
            )
    return Trained(done, gathered(lesson), curves, final)


def seeded(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """Chance for one step on one device; also sets dropout's."""
    mixed = (seed * 1_000_003 + step) * 4_099 + rank
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)


def _one_step(
    lesson: Lesson,
    module: Any,
    source: BatchSource,
    config: TrainingConfig,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    seed: int,
    accelerator: Any,
) -> tuple[dict[str, float], int, float]:
    """Mean losses per unit of weight, tokens seen, and the gradient's norm before clipping."""
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    generator = seeded(seed, step, rank, device)
    micros = [source.batch(step, micro, rank, world).to(device) for micro in range(config.accumulate)]
    with _autocast(config, device):
        micros = [lesson.prepare(batch, generator) for batch in micros]
    counts = torch.tensor(
        [sum(lesson.weight(batch) for batch in micros), sum(float((batch.owners > 0).sum()) for batch in micros)],
        dtype=torch.float64 if device.type == "cpu" else torch.float32,
        device=device,
    )
    counts = accelerator.reduce(counts, "sum")
    total, tokens = float(counts[0]), int(counts[1])
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(micros):
        with _sync(module, index == len(micros) - 1, config):
            with _autocast(config, device):
                out: Mapping[str, Tensor] = module(batch, step)
            # Gradients are averaged over devices, and the loss is a mean over all of them.
            (out["loss"] * (world / max(total, 1.0))).backward()
        for name, value in out.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach().float()
    norm = nn.utils.clip_grad_norm_(lesson.parameters(), config.clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    names = sorted(sums)
    whole = accelerator.reduce(torch.stack([sums[name] for name in names]), "sum")
    return {name: float(whole[i]) / max(total, 1.0) for i, name in enumerate(names)}, tokens, float(_whole(norm))


def _whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _autocast(config: TrainingConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if config.bf16 else nullcontext()


def _sync(module: Any, last: bool, config: TrainingConfig) -> AbstractContextManager[Any]:
    """Gradients are exchanged with the last micro-batch only."""
    if config.sharding == "fsdp":
        module.set_requires_gradient_sync(last)
        return nullcontext()
    if not last and hasattr(module, "no_sync"):
        found: AbstractContextManager[Any] = module.no_sync()
        return found
    return nullcontext()


def _anybody(wanted: bool, accelerator: Any) -> bool:
    """Whether any process was asked to stop: all must stop at the same step."""
    if accelerator.num_processes == 1:
        return wanted
    flag = torch.tensor([float(wanted)], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum")[0] > 0)


def _validated(module: Any, batches: Sequence[Batch], accelerator: Any, config: TrainingConfig) -> dict[str, float]:
    """Means over all validation batches, shared out over devices; every device runs equally many."""
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    sums: dict[str, Tensor] = {}
    rounds = -(-len(batches) // world)
    was = module.training
    module.eval()
    with torch.no_grad(), _autocast(config, device):
        for number in range(rounds):
            index = number * world + rank
            out = module(batches[min(index, len(batches) - 1)].to(device), 0, measure=True)
            for name, value in out.items():
                part = value.float() if index < len(batches) else torch.zeros_like(value, dtype=torch.float32)
                sums[name] = sums.get(name, torch.zeros((), device=device)) + part
    module.train(was)
    names = sorted(sums)
    whole = accelerator.reduce(torch.stack([sums[name] for name in names]), "sum")
    found = {name: float(whole[i]) for i, name in enumerate(names)}
    weight = max(found.pop("weight"), 1e-12)
    return {f"val_{name}": value / weight for name, value in found.items()}


def _curves(path: Path, step: int) -> list[dict[str, float]]:
    """What was logged up to `step`; a line cut short by a crash is left out."""
    rows: list[dict[str, float]] = []
    if step == 0 or not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step:
            rows.append(row)
    return rows
