"""What a sentence allows, read off the student's states: where the linear map that reads it begins, and how much of it
is read in the end."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from training.distill.config import DistillConfig
from training.distill.wheels.collecting import Models
from training.distill.wheels.lesson import WheelsLesson, to_be_read
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import Restriction
from training.distill.wheels.row import Squares, read_states

READ_ON = 96
"""Texts under each level."""


@torch.no_grad()
def begin_reading(models: Models, config: DistillConfig, lesson: WheelsLesson, examples: Sequence[Example]) -> None:
    """The map begins at what the states tell already, by least squares on `examples`: begun by chance it pulls on them
    for some tens of steps with errors many times those that it ends with."""
    if lesson.allowed is None or not examples:
        return
    problem = Squares()
    for states, wanted in _under_every_level(models, config, examples[:READ_ON]):
        problem.add(torch.cat([states, states.new_ones(len(states), 1)], -1), wanted)
    found = problem.solution().T
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
    errors, every = 0.0, []
    for states, wanted in _under_every_level(models, config, examples[:READ_ON]):
        errors += float((lesson.allowed(states) - wanted).square().sum())
        every.append(wanted)
    all_of_it = torch.cat(every)
    return 1.0 - errors / float((all_of_it - all_of_it.mean(0)).square().sum())


def _under_every_level(
    models: Models, config: DistillConfig, examples: Sequence[Example]
) -> Iterator[tuple[Tensor, Tensor]]:
    """States (n, width) along the answers of some of the `examples`, and what is to be read off each, (n, 2)."""
    assert config.wheels is not None
    wheels = config.wheels
    for level in wheels.levels:
        under = [Restriction(level, wheels.phrasings[at % len(wheels.phrasings)]) for at in range(len(examples))]
        prompts = [
            restricted(one, restriction, config.data, models.tokenizer)
            for one, restriction in zip(examples, under, strict=True)
        ]
        for states, _ in read_states(models, prompts, [one.answer for one in examples]):
            yield states, to_be_read(states.new_full((len(states),), level))
