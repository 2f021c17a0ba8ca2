"""What a sentence allows, read off the student's states: where the linear map that reads it begins, and how much of it
is read in the end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.distill.config import DistillConfig
from training.distill.wheels.collecting import Models
from training.distill.wheels.lesson import WheelsLesson, to_be_read
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import Restriction
from training.distill.wheels.row import read_states, solved

READ_ON = 96
"""Texts under each level."""


@torch.no_grad()
def begin_reading(models: Models, config: DistillConfig, lesson: WheelsLesson, examples: Sequence[Example]) -> None:
    """The map begins at what the states tell already, by least squares on `examples`: begun by chance it pulls on them
    for some tens of steps with errors many times those that it ends with."""
    if lesson.allowed is None or not examples:
        return
    states, wanted = _under_every_level(models, config, examples[:READ_ON])
    read = torch.cat([states, states.new_ones(len(states), 1)], -1)
    alike = read.new_ones(len(read))
    found = torch.stack([solved(read, number, alike) for number in wanted.T])
    lesson.allowed.weight.copy_(found[:, :-1])
    lesson.allowed.bias.copy_(found[:, -1])


@torch.no_grad()
def sentences_read(
    models: Models, config: DistillConfig, lesson: WheelsLesson, examples: Sequence[Example]
) -> float | None:
    """R²: the part of the variance of what sentences allow that is read off the student's states, over `examples` under
    every level, in the phrasings in turn. None where nothing reads it, or there is one level alone."""
    assert config.wheels is not None
    if lesson.allowed is None or len(config.wheels.levels) < 2 or not examples:
        return None
    states, wanted = _under_every_level(models, config, examples[:READ_ON])
    errors = lesson.allowed(states) - wanted
    return 1.0 - float(errors.square().sum() / (wanted - wanted.mean(0)).square().sum())


def _under_every_level(models: Models, config: DistillConfig, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """States (N, width) along the answers of `examples`, and what is to be read off each, (N, 2)."""
    assert config.wheels is not None
    wheels = config.wheels
    found, wanted = [], []
    for level in wheels.levels:
        under = [Restriction(level, wheels.phrasings[at % len(wheels.phrasings)]) for at in range(len(examples))]
        prompts = [
            restricted(one, restriction, config.data, models.tokenizer)
            for one, restriction in zip(examples, under, strict=True)
        ]
        states, _ = read_states(models, prompts, [one.answer for one in examples])
        found.append(states)
        wanted.append(to_be_read(states.new_full((len(states),), level)))
    return torch.cat(found), torch.cat(wanted)
