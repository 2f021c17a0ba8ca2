"""Self-distillation through time (SDTT, 2410.21035): a masked diffusion student learns to do in one step what its
teacher does in m, round by round, the student of a round being the teacher of the next.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.distill.batches import Batch
from training.distill.config import DiffusionConfig, DistillConfig, TrainingConfig
from training.distill.diffusion.base import BaseLesson, chance_of
from training.distill.diffusion.model import Denoiser, load_denoiser, mark
from training.distill.diffusion.sampler import dilated, gumbel_draw
from training.distill.errors import CannotDistill
from training.distill.frame import Surroundings, Trained, train
from training.distill.lesson import Lesson
from training.distill.losses.diffusion import antithetic_times, noised, step_divergence
from training.distill.models import export, parameters
from training.distill.pair import Data, course, read_data, validation_batches
from training.distill.report import claim, curves_png, versions, write_json


def targets(teacher: Denoiser, z: Tensor, revealed: Tensor, substeps: int, generator: torch.Generator) -> Tensor:
    """(B, L) noised tokens -> (M, V) log-probabilities at the masked places.

    The teacher takes `substeps` steps. A place revealed at a sub-step, `revealed` (B, L) from 0 on, keeps the
    log-probabilities of that sub-step; those whose turn comes later take the last ones.
    """
    masked = z == teacher.mask_id
    number = torch.full(z.shape, -1, dtype=torch.long, device=z.device)
    number[masked] = torch.arange(int(masked.sum()), device=z.device)
    found: Tensor | None = None
    current = z.clone()
    for substep in range(substeps):
        still = current == teacher.mask_id
        if not bool(still.any()):
            break
        log_x = teacher.log_x(current, still)
        if found is None:
            found = log_x.clone()
        else:
            found[number[still]] = log_x
        if substep + 1 == substeps:
            break
        tokens = torch.zeros_like(z)
        tokens[still] = gumbel_draw(log_x, 1.0, generator)
        current = torch.where(still & (revealed == substep), tokens, current)
    assert found is not None
    return found


def turns_of_ancestral(times: Tensor, length: int, dt: float, generator: torch.Generator) -> Tensor:
    """(B,) times -> (B, L): the sub-step of size `dt` in which a place that is masked at its text's time is revealed:
    when that is, is uniform between now and the end."""
    chance = torch.rand(len(times), length, generator=generator, dtype=torch.float64).to(times.device)
    return (times[:, None] * chance / dt).long()


class ThroughTimeLesson(Lesson):
    """One round. `average`: the running mean of the student, which is what the round gives; it lies among the modules
    so that checkpoints hold it."""

    def __init__(self, student: Denoiser, teacher: Denoiser, config: DiffusionConfig, *, dt: float, seed: int) -> None:
        super().__init__(student.model)
        self._denoiser, self._config, self._dt, self._seed = student, config, dt, seed
        # In a tuple, so that it is no module of this one.
        self._teacher = (teacher,)
        self.average = copy.deepcopy(student.model).requires_grad_(False)

    def weight(self, batch: Batch) -> float:
        return float(batch.tokens.numel())

    def update_average(self, _step: int) -> None:
        keep = self._config.average
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.student.parameters(), strict=True):
                mean.mul_(keep).add_(value, alpha=1.0 - keep)

    def _distance(self, denoiser: Denoiser, batch: Batch, step: int) -> Tensor:
        generator = chance_of(self._seed, step, batch)
        z, revealed = self._noised(batch.tokens, denoiser.mask_id, generator)
        with torch.no_grad():
            aim = targets(self._teacher[0], z, revealed, self._config.substeps, generator)
        return step_divergence(denoiser.log_x(z, z == denoiser.mask_id), aim, self._config.kind).sum()

    def _noised(self, tokens: Tensor, mask_id: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B, L) texts -> as they are before one of the student's steps, and for what is masked the teacher's sub-step
        that reveals it, from 0 on."""
        substeps, (count, length) = self._config.substeps, tokens.shape
        times = antithetic_times(count, self._config.smallest_time, generator).to(tokens.device)
        if self._config.order == "ancestral":
            z, _ = noised(tokens, times, mask_id, generator)
            return z, turns_of_ancestral(times, length, self._dt, generator)
        # As `sampling_steps` counts them; dt is a quotient of whole numbers.
        steps = max(1, int(1.0 / (self._dt * substeps) + 1e-6))
        offset = torch.randint(steps * substeps, (count, 1), generator=generator)
        at = dilated(torch.arange(length) + offset, steps, substeps).to(tokens.device)
        # Before the step that time falls into; as in sampling, all of a text is masked before the first.
        before = ((1.0 - times) * steps).long().clamp_max(steps - 1)[:, None] * substeps
        return torch.where(at >= before, mask_id, tokens), at - before

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return {"loss": self._distance(self._denoiser, batch, step)}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        mean = replace(self._denoiser, model=self.average)
        value = self._distance(mean, batch, -1)
        return {"loss": value, "weight": torch.tensor(self.weight(batch), device=value.device)}


def sampling_steps(config: DiffusionConfig, rounds_done: int) -> int:
    """How many sampling steps the student of that round is made for."""
    return max(1, int(config.from_steps // config.substeps**rounds_done))


def check(config: DiffusionConfig) -> None:
    if not config.base_steps and not config.rounds:
        raise CannotDistill("diffusion: neither base_steps nor rounds, so there is nothing to train; set one of them")
    left = config.from_steps / config.substeps**config.rounds
    if left < 1:
        raise CannotDistill(
            f"diffusion: {config.rounds} rounds divide {config.from_steps} steps by {config.substeps} each time, which "
            "leaves less than one; fewer rounds, or more from_steps"
        )


def one_round(
    denoiser: Denoiser,
    data: Data,
    config: DistillConfig,
    diffusion: DiffusionConfig,
    number: int,
    around: Surroundings,
) -> tuple[Denoiser, Trained]:
    """Round `number` (from 0): the student starts as its teacher. Returns the averaged student."""
    teacher = replace(denoiser, model=copy.deepcopy(denoiser.model).eval().requires_grad_(False))
    dt = diffusion.substeps**number / diffusion.from_steps
    lesson = ThroughTimeLesson(denoiser, teacher, diffusion, dt=dt, seed=config.seed + number)
    settings = config.training.model_copy(update={"steps": diffusion.steps_per_round, "epochs": None})
    trained = train(
        lesson,
        course(config, data, seed=config.seed + 101 * (number + 1)),
        validation_batches(config, data),
        settings,
        steps=diffusion.steps_per_round,
        seed=config.seed + number,
        work=config.out / f"round-{number + 1}",
        around=around,
        after_step=lesson.update_average,
    )
    return replace(denoiser, model=copy.deepcopy(lesson.average).requires_grad_(True)), trained


def train_base(
    denoiser: Denoiser, data: Data, config: DistillConfig, diffusion: DiffusionConfig, around: Surroundings
) -> Trained:
    lesson = BaseLesson(denoiser, smallest_time=diffusion.smallest_time, seed=config.seed)
    settings: TrainingConfig = config.training.model_copy(
        update={"steps": diffusion.base_steps, "epochs": None, "learning_rate": diffusion.base_learning_rate}
    )
    return train(
        lesson,
        course(config, data),
        validation_batches(config, data),
        settings,
        steps=diffusion.base_steps,
        seed=config.seed,
        work=config.out / "base",
        around=around,
    )


def distil_through_time(config: DistillConfig, around: Surroundings, stage: Callable[[str], None]) -> dict[str, Any]:
    """Base training where asked, rounds, export of every round. Raises as `run.distil` does."""
    diffusion = config.diffusion or DiffusionConfig()
    check(diffusion)
    if config.teacher is not None:
        raise CannotDistill("teacher: through-time teaches a masked diffusion student by itself; remove it")
    if config.training.sharding != "none":
        raise CannotDistill('training.sharding: through-time runs with "none" (several processes are fine)')
    stage("reading")
    data = read_data(config, length=diffusion.length)
    if around.main:
        config.out.mkdir(parents=True, exist_ok=True)
        claim(config.out, {"method": "through-time", **config.model_dump(mode="json")})
    torch.manual_seed(config.seed)
    denoiser = load_denoiser(config.student.path, data.tokenizer, diffusion)
    denoiser.model.to(around.accelerator.device)
    if around.accelerator.device.type == "cpu":
        # With a mask and a backward pass, torch's fused attention takes twice as long there as the plain one.
        denoiser.model.set_attn_implementation("eager")
    stages: dict[str, Trained] = {}
    if diffusion.base_steps:
        stage("base")
        stages["base"] = train_base(denoiser, data, config, diffusion, around)
        name = "base-model" if diffusion.rounds else "student"
        _export(config, diffusion, denoiser, data, diffusion.from_steps, name, around)
    for number in range(diffusion.rounds):
        stage(f"round {number + 1}")
        denoiser, stages[f"round {number + 1}"] = one_round(denoiser, data, config, diffusion, number, around)
        done = number + 1
        name = "student" if done == diffusion.rounds else f"student-of-round-{done}"
        _export(config, diffusion, denoiser, data, sampling_steps(diffusion, done), name, around)
    last = list(stages.values())[-1]
    report = {
        "method": "through-time",
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "device": str(around.accelerator.device),
        "devices": around.accelerator.num_processes,
        "data": data.as_dict(),
        "student_parameters": parameters(denoiser.model),
        "vocabulary": denoiser.vocabulary,
        "sampling_steps": sampling_steps(diffusion, diffusion.rounds),
        "stages": {
            name: {
                "steps": of.progress.step,
                "tokens": of.progress.tokens,
                "seconds": round(of.progress.seconds, 3),
                "curves": of.curves,
            }
            for name, of in stages.items()
        },
        "validation": last.final,
    }
    if around.main:
        curves_png({name: of.curves for name, of in stages.items()}, config.out / "curves.png")
        write_json(config.out / "report.json", report)
    around.accelerator.wait_for_everyone()
    return report


def _export(
    config: DistillConfig,
    diffusion: DiffusionConfig,
    denoiser: Denoiser,
    data: Data,
    steps: int,
    name: str,
    around: Surroundings,
) -> None:
    if around.main:
        told = mark(denoiser, diffusion, steps)
        export(denoiser.model, None, data.tokenizer, config.out / name, config.student.export_dtype, told)
