"""Episodes of the two-step process route -> defer, built from an outcome table.

A row whose two qualities are known holds every branch: send it to the teacher at once; let the student draft and keep
the draft; draft and then escalate. Off-policy batches take all of them, on-policy batches the one that the current
policy draws. Budgets are drawn log-uniformly, and episodes are relabelled with other budgets in hindsight: reward and
cost do not depend on the budget, only what the policy was shown and what the cost is worth.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor


class Branch(IntEnum):
    TEACHER = 0  # asked at the route step
    KEEP = 1  # the draft was kept; with one step: the student was chosen
    ESCALATE = 2  # the draft was read and the teacher asked


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """B episodes, all fields (B,)."""

    row: Tensor
    branch: Tensor
    share: Tensor
    weight: Tensor
    """How much an episode counts; 0 where its reward is unknown."""
    on_policy: Tensor
    """Bool: the branch was drawn from the policy, so its later steps need no weight of their own."""
    teacher: Tensor | None = None
    """Which of several teachers answers where one does; None where there is one."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class SubTrajectories:
    """Spans t..t+d of episodes, padded to the process's length D. Indices point into the episodes."""

    episode: Tensor
    """(S,)"""
    first: Tensor
    """(S,) step at which the span starts: 0 route, 1 defer"""
    last: Tensor
    """(S,) step at which it ends; the process's length is the end of the episode"""
    ends: Tensor
    """(S,) bool: the episode is over at the end of the span"""


def draw_shares(count: int, least: float, generator: torch.Generator) -> Tensor:
    """(count,) budgets, log-uniform between `least` and 1."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.exp(torch.log(torch.tensor(least, dtype=torch.float64)) * draws)


def branches(two_steps: bool) -> tuple[Branch, ...]:
    return (Branch.TEACHER, Branch.KEEP, Branch.ESCALATE) if two_steps else (Branch.TEACHER, Branch.KEEP)


def off_policy(rows: Tensor, share: Tensor, *, two_steps: bool, teachers: int = 1) -> Episodes:
    """Every branch of every row, with every teacher, each a part of one."""
    if teachers > 1:
        return _off_policy_of_several(rows, share, branches(two_steps), teachers)
    every = torch.tensor(branches(two_steps))
    count = len(every)
    return Episodes(
        row=rows.repeat_interleave(count),
        branch=every.repeat(len(rows)),
        share=share.repeat_interleave(count),
        weight=torch.full((len(rows) * count,), 1.0 / count, dtype=torch.float64),
        on_policy=torch.zeros(len(rows) * count, dtype=torch.bool),
    )


def _off_policy_of_several(rows: Tensor, share: Tensor, every: tuple[Branch, ...], teachers: int) -> Episodes:
    pairs = [(b, k) for b in every for k in range(1 if b is Branch.KEEP else teachers)]
    branch, teacher = torch.tensor(pairs).T
    total = len(rows) * len(pairs)
    return Episodes(
        row=rows.repeat_interleave(len(pairs)),
        branch=branch.repeat(len(rows)),
        share=share.repeat_interleave(len(pairs)),
        weight=torch.full((total,), 1.0 / len(pairs), dtype=torch.float64),
        on_policy=torch.zeros(total, dtype=torch.bool),
        teacher=teacher.repeat(len(rows)),
    )


def draw_teachers(episodes: Episodes, choices: list[Tensor], generator: torch.Generator) -> Episodes:
    """Rolled-out episodes with the teacher drawn from the policy's probabilities, (B, K) per step."""
    at_route, last = choices[0], choices[-1]
    chance = torch.where((episodes.branch == int(Branch.TEACHER))[:, None], at_route, last)
    drawn = torch.multinomial(chance, 1, generator=generator)[:, 0]
    return replace(episodes, teacher=torch.where(episodes.branch == int(Branch.KEEP), 0, drawn))


def roll_out(
    rows: Tensor, share: Tensor, ask_at_route: Tensor, ask_at_defer: Tensor | None, generator: torch.Generator
) -> Episodes:
    """Branches drawn with the policy's probabilities of asking, (B,) each; one step where there is no defer step."""
    draw = torch.rand(2, len(rows), generator=generator, dtype=torch.float64)
    branch = torch.full_like(rows, int(Branch.KEEP))
    if ask_at_defer is not None:
        branch[draw[1] < ask_at_defer] = int(Branch.ESCALATE)
    branch[draw[0] < ask_at_route] = int(Branch.TEACHER)
    ones = torch.ones(len(rows), dtype=torch.float64)
    return Episodes(rows, branch, share, ones, torch.ones(len(rows), dtype=torch.bool))


def relabel(episodes: Episodes, part: float, least: float, generator: torch.Generator) -> Episodes:
    """Give a part of the episodes another budget. Drawn under another budget, they no longer count as on-policy."""
    chosen = torch.rand(len(episodes), generator=generator, dtype=torch.float64) < part
    share = torch.where(chosen, draw_shares(len(episodes), least, generator), episodes.share)
    return replace(episodes, share=share, on_policy=episodes.on_policy & ~chosen)


def join(first: Episodes, second: Episodes) -> Episodes:
    names = ("row", "branch", "share", "weight", "on_policy", *(() if first.teacher is None else ("teacher",)))
    return Episodes(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def spans(episodes: Episodes, *, two_steps: bool) -> SubTrajectories:
    """All sub-trajectories: (0,1); and for episodes that reach the defer step also (1,2) and (0,2)."""
    every = torch.arange(len(episodes))
    drafted = every[episodes.branch != int(Branch.TEACHER)] if two_steps else every[:0]
    zeros, ones = torch.zeros_like, torch.ones_like
    over_at_once = torch.ones_like(every, dtype=torch.bool)
    over_at_once[drafted] = False
    return SubTrajectories(
        episode=torch.cat([every, drafted, drafted]),
        first=torch.cat([zeros(every), ones(drafted), zeros(drafted)]),
        last=torch.cat([ones(every), 2 * ones(drafted), 2 * ones(drafted)]),
        ends=torch.cat([over_at_once, torch.ones(2 * len(drafted), dtype=torch.bool)]),
    )
