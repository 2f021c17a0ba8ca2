"""The row of `<help>` in the student's head, found at once where that is better than waiting for gradients: at the
beginning by least squares, at the end by the decisions it makes.

A logit is the row times the state, so a change of the logit that is wanted at some states, `wanted` (N,), is had from
the row that solves a (weighted, ridge) least-squares problem over the states (N, width).
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from training.distill.config import DistillConfig
from training.distill.models import head_of, states
from training.distill.wheels.collecting import Models
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.mixing import Asker, Mixed, by_help, mixed
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import Restriction
from training.distill.wheels.trajectories import NEITHER, Trajectory, WheelsBatch, collate_trajectories

RIDGE = 1e-3
DECIDING = 100
"""Steps of L-BFGS: some seconds; it has come to rest long before."""
SOFTNESS = 0.5
"""Nats over which a decision counts as doubtful."""
AT_ONCE = 256
"""States whose logits exist at one time."""


class Squares:
    """A weighted ridge least-squares problem over states (N, width), of which only sums are kept: (width, width) and
    (width, wanted). The states of all texts under all levels are gigabytes where a student is some thousands wide."""

    def __init__(self) -> None:
        self.square: Tensor | None = None
        self.product: Tensor | None = None

    def add(self, read: Tensor, wanted: Tensor, weight: Tensor | None = None) -> None:
        """States (n, width), what is wanted there, (n,) or (n, m), and how much each counts, (n,): alike if None."""
        assert len(read) == len(wanted)
        exact = read.double()
        heavy = exact if weight is None else exact * weight.double()[:, None]
        square, product = heavy.T @ exact, heavy.T @ wanted.double()
        self.square = square if self.square is None else self.square + square
        self.product = product if self.product is None else self.product + product

    def solution(self) -> Tensor:
        """(width,) or (width, m): whose product with the states comes nearest to what is wanted."""
        assert self.square is not None
        assert self.product is not None
        ridge = RIDGE * self.square.diagonal().mean()
        one = torch.eye(len(self.square), dtype=torch.float64, device=self.square.device)
        found: Tensor = torch.linalg.solve(self.square + ridge * one, self.product)
        return found.float()


def read_states(
    models: Models, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """States of some of the texts (n, width), and the student's largest logit of a word at each (n,), until all texts
    are read in their order."""
    rows = [
        Trajectory(
            0, None, tuple(prompt), tuple(text), (NEITHER,) * len(text), torch.zeros(len(text)),
            torch.zeros(len(text), 1, dtype=torch.long), torch.zeros(len(text), 1), False, False, "",
        )
        for prompt, text in zip(prompts, texts, strict=True)
        if len(text)
    ]  # fmt: skip
    head, was = head_of(models.student, models.vocabulary), models.student.training
    models.student.eval()
    try:
        for start in range(0, len(rows), 64):
            some = rows[start : start + 64]
            batch = collate_trajectories(some, [0.0] * len(some), pad_id=models.pad_id)
            batch = batch.to(next(models.student.parameters()).device)
            with torch.no_grad():
                last = states(models.student, batch).last
                at = last[torch.arange(len(last), device=last.device)[:, None], batch.states[:, :-1]][batch.alive]
                largest = torch.cat([head.logits(some).max(-1).values for some in torch.split(at, AT_ONCE)])
            yield at.float(), largest
    finally:
        models.student.train(was)


def begin_row(models: Models, config: DistillConfig, examples: Sequence[Example], share: float) -> None:
    """`<help>` begins as a threshold on the largest logit that about `share` of the states lie below."""
    assert models.help_id is not None
    assert config.wheels is not None
    wheels = config.wheels
    draw = random.Random(config.seed)
    prompts = [
        restricted(
            one, Restriction(draw.choice(wheels.levels), draw.choice(wheels.phrasings)), config.data, models.tokenizer
        )
        for one in examples
    ]
    problem, every = Squares(), []
    for read, largest in read_states(models, prompts, [one.answer for one in examples]):
        problem.add(read, torch.ones_like(largest))
        every.append(largest)
    # What gives 1 everywhere, times the level, gives the level.
    _put(models, problem.solution() * torch.quantile(torch.cat(every), share))


def decided(read: Tensor, largest: Tensor, worth: Tensor, price: Tensor, row: Tensor) -> Tensor:
    """The row that decides best at states (N, width) whose largest logits are `largest` (N,), where asking is worth
    `worth` (N,) and costs `price` (N,), both in nats: logistic loss on whether asking pays, each state weighted by what
    a wrong decision costs there, all states of a price together by as much as those of any other. It begins at `row`
    (width,).

    Path consistency sets the score of `<help>` to worth - price everywhere, so a state where asking is out of the
    question counts as much as one where it is doubtful. At rest, what counts is on which side of 0 the score is.
    """
    assert len(read) == len(largest) == len(worth) == len(price)
    pays = worth - price
    # A steep price makes every mistake dear; a gentle one would hardly be heard beside it.
    level: Tensor = torch.unique(price, return_inverse=True)[1]
    cost = pays.new_zeros(int(level.max()) + 1).index_add(0, level, pays.abs()) / level.bincount()
    weight, side = pays.abs() / cost.clamp_min(1e-12)[level], torch.where(pays > 0, 1.0, -1.0)
    found = row.detach().float().clone().requires_grad_(True)
    steps = torch.optim.LBFGS([found], max_iter=DECIDING, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        wrong = torch.nn.functional.softplus(-side * (read @ found - largest) / SOFTNESS)
        total = (weight * wrong).mean() * SOFTNESS + 0.5 * RIDGE * (found - row).square().mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    steps.step(loss)  # type: ignore[no-untyped-call]
    return found.detach()


def decide_row(models: Models, lesson: WheelsLesson, batches: Sequence[WheelsBatch]) -> None:
    """Moves the row to where it decides best on the student's texts in `batches`, the rest of the student at rest."""
    seen = [lesson.doubts(batch) for batch in batches]
    if not seen:
        return
    read, largest, worth, price = (torch.cat(parts) for parts in zip(*seen, strict=True))
    if len(read):
        row = models.student.get_output_embeddings().weight[models.help_id]
        _put(models, decided(read, largest, worth, price, row))


def settle_row(models: Models, config: DistillConfig, examples: Sequence[Example]) -> None:
    """Moves the row so that every level and phrasing of training asks for its share on `examples`: the last of the
    multiplier's work, with the rest of the student at rest. States near the decision count most."""
    assert models.help_id is not None
    assert config.wheels is not None
    wheels = config.wheels
    problem = Squares()
    for level in wheels.levels:
        for number, phrasing in enumerate(wheels.phrasings):
            some = examples[number % 3 :: 3]
            prompts, texts = as_served(models, some, config, Restriction(level, phrasing))
            offset = offset_of(texts, level, wheels.segment)
            decisions = torch.cat([one.decisions for one in texts])
            score = torch.cat([one.score for one in texts])
            at = 0
            for read, _ in read_states(models, prompts, [one.tokens for one in texts]):
                here = slice(at, at + len(read))
                at += len(read)
                free = decisions[here].to(read.device)
                doubt = torch.exp(-(score[here].to(read.device)[free] + offset).abs())
                problem.add(read[free], torch.full_like(doubt, offset), doubt)
    _put(models, problem.solution(), add=True)


def as_served(
    models: Models,
    examples: Sequence[Example],
    config: DistillConfig,
    restriction: Restriction | None,
    ask: Asker | None = None,
) -> tuple[list[list[int]], list[Mixed]]:
    """Prompts, and the student's texts under one restriction as it is served: greedy, helped where `<help>` is
    likeliest, or where `ask` says."""
    assert config.wheels is not None
    wheels = config.wheels
    every: list[list[int]] = []
    found: list[Mixed] = []
    for start in range(0, len(examples), 256):
        some = examples[start : start + 256]
        prompts = [restricted(one, restriction, config.data, models.tokenizer) for one in some]
        every += prompts
        found += mixed(
            models.student, models.teacher, prompts, [one.prompt for one in some], ask or by_help(),
            limits=[max(1, min(wheels.max_new_tokens, config.data.context - len(prompt))) for prompt in prompts],
            eos=models.eos, pad_id=models.pad_id, vocabulary=models.vocabulary, help_id=models.help_id,
            segment=wheels.segment,
        )  # fmt: skip
    return every, found


def offset_of(texts: Sequence[Mixed], share: float, segment: int) -> float:
    """What is to be added to `<help>`'s logit so that `share` of these texts' tokens would be asked for."""
    # A segment of k tokens is one decision.
    part = share / (segment - share * (segment - 1))
    return -float(torch.quantile(torch.cat([one.score[one.decisions] for one in texts]), 1 - part))


def _put(models: Models, row: Tensor, *, add: bool = False) -> None:
    with torch.no_grad():
        weight: Any = models.student.get_output_embeddings().weight
        weight[models.help_id] = row.to(weight) + (weight[models.help_id] if add else 0.0)
