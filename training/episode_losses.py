"""The losses of one batch of episodes: path consistency over all sub-trajectories, and the cost critic's.

Two departures from the plain recipe, because a draft is a random thing given its prompt (docs/decisions/0020):
V(o_t+d) inside a path is held fixed, and paths over both steps are weighted by the policy's own probability of their
last action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.action import Step
from training import constraint
from training.learner_config import PathConsistencyConfig
from training.lessons import Lessons
from training.networks import TrainableStepNet
from training.path_consistency import (
    cost_consistency_error,
    path_consistency_error,
    two_action_policy,
    weighted_half_square,
)
from training.trajectories import Branch, Episodes, spans
from training.validation import price_at


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One step of the policy on B observations: value, log pi of staying and asking, expected cost; all (B,).

    Of several teachers, `log_ask` is that of asking any of them.
    """

    value: Tensor
    log_stay: Tensor
    log_ask: Tensor
    cost: Tensor
    log_whom: Tensor | None = None
    """(B, K) log pi of asking each of several teachers, given that one is asked."""


def judge(
    nets: dict[Step, TrainableStepNet],
    step: Step,
    features: Tensor,
    share: Tensor,
    price: Tensor,
    config: PathConsistencyConfig,
) -> Judged:
    """The forward pass of `policies.wheels`, in torch."""
    quality, gain, correction, cost = nets[step](features, share, price)
    if gain.ndim == 2:
        return _judge_several(list(nets), step, (quality, gain, correction, cost), price, config)
    if step is list(nets)[-1]:
        stay = quality + correction[:, 0]
        ask = stay + gain + correction[:, 1] - price
        largest = 1.0
    else:
        later = config.temperature * torch.nn.functional.softplus((gain - price) / config.temperature)
        stay = quality + later + correction[:, 0] - price * config.draft_cost
        ask = quality + gain + correction[:, 1] - price
        largest = 1.0 + config.draft_cost
    value, log_stay, log_ask = two_action_policy(stay, ask, config.temperature)
    return Judged(value, log_stay, log_ask, cost * largest)


def _judge_several(
    steps: list[Step],
    step: Step,
    values: tuple[Tensor, Tensor, Tensor, Tensor],
    price: Tensor,
    config: PathConsistencyConfig,
) -> Judged:
    """The same over K + 1 actions. The soft maximum over the teachers stands where one teacher's value stood, so
    V = t log sum exp(Q / t) and log pi(a) = (Q(a) - V) / t hold over all of them."""
    quality, gain, correction, cost = values
    t = config.temperature
    if step is steps[-1]:
        stay, largest = quality + correction[:, 0], 1.0
        each = stay[:, None] + gain + correction[:, 1:] - price[:, None]
    else:
        best = t * torch.logsumexp(gain / t, dim=1)
        later = t * torch.nn.functional.softplus((best - price) / t)
        stay, largest = quality + later + correction[:, 0] - price * config.draft_cost, 1.0 + config.draft_cost
        each = quality[:, None] + gain + correction[:, 1:] - price[:, None]
    value, log_stay, log_ask = two_action_policy(stay, t * torch.logsumexp(each / t, dim=1), t)
    return Judged(value, log_stay, log_ask, cost * largest, torch.log_softmax(each / t, dim=1))


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    policy: Tensor
    critic: Tensor


def losses(
    nets: dict[Step, TrainableStepNet],
    lagged: dict[Step, TrainableStepNet],
    lessons: Lessons,
    episodes: Episodes,
    multiplier: constraint.Multiplier,
    config: PathConsistencyConfig,
) -> Losses:
    """Path consistency and cost consistency over all sub-trajectories of the episodes."""
    two = lessons.two_steps
    row, branch = episodes.row, episodes.branch
    price = price_at(episodes.share, multiplier)
    features = lessons.features

    def look(which: dict[Step, TrainableStepNet]) -> list[Judged]:
        return [judge(which, step, features[step][row], episodes.share, price, config) for step in which]

    seen = look(nets)
    asked_at_route, escalated = branch == int(Branch.TEACHER), branch == int(Branch.ESCALATE)
    teacher_answers = asked_at_route | escalated
    whom = episodes.teacher
    by_teacher = lessons.teacher[row] if lessons.teachers is None or whom is None else lessons.teachers[row, whom]
    reward = torch.where(teacher_answers, by_teacher, lessons.student[row])
    weight = torch.where(torch.isnan(reward), 0.0, episodes.weight)
    reward = torch.nan_to_num(reward)

    def taken(judged: list[Judged]) -> Tensor:
        """(B, D) log pi of the actions taken; 0 where the episode was over."""

        def ask(at: Judged) -> Tensor:
            if at.log_whom is None or whom is None:
                return at.log_ask
            return at.log_ask + at.log_whom.gather(1, whom[:, None])[:, 0]

        columns = [torch.where(asked_at_route, ask(judged[0]), judged[0].log_stay)]
        if two:
            defer = torch.where(escalated, ask(judged[1]), judged[1].log_stay)
            columns.append(torch.where(asked_at_route, 0.0, defer))
        return torch.stack(columns, dim=1)

    log_pi = taken(seen)
    zero = torch.zeros_like(reward)
    if two:
        drafted = ~asked_at_route
        step_reward = torch.stack([torch.where(drafted, zero, reward), torch.where(drafted, reward, zero)], dim=1)
        step_cost = torch.stack(
            [torch.where(drafted, zero + config.draft_cost, zero + 1.0), escalated.to(zero.dtype)], dim=1
        )
    else:
        step_reward, step_cost = reward[:, None], asked_at_route.to(zero.dtype)[:, None]
    reference = None
    if config.trust > 0:
        with torch.no_grad():
            reference = taken(look(lagged))

    paths = spans(episodes, two_steps=two)
    e, first, last = paths.episode, paths.first, paths.last
    places = torch.arange(log_pi.shape[1])[None, :]
    inside = ((places >= first[:, None]) & (places < last[:, None])).to(zero.dtype)
    begins_late = first == 1

    def from_start(values: Tensor) -> Tensor:
        """Columns moved so that every span starts at the first one."""
        taken_there = values[e]
        if not two:
            return taken_there
        moved = torch.stack([taken_there[:, 1], torch.zeros_like(taken_there[:, 1])], dim=1)
        return torch.where(begins_late[:, None], moved, taken_there)

    mask = from_start(torch.ones_like(log_pi))
    mask = torch.where(begins_late[:, None], mask, inside) if two else inside

    def values(name: str) -> tuple[Tensor, Tensor]:
        at_route = getattr(seen[0], name)[e]
        if not two:
            return at_route, zero[e]
        at_defer = getattr(seen[1], name)[e]
        start = torch.where(begins_late, at_defer, at_route)
        # Held fixed: a draft is random given the prompt, and a gradient through both ends would be biased by that.
        end = torch.where(paths.ends, 0.0, at_defer.detach())
        return start, end

    start, end = values("value")
    error = path_consistency_error(
        start,
        end,
        from_start(step_reward),
        from_start(step_cost),
        from_start(log_pi),
        mask,
        price[e],
        temperature=config.temperature,
        discount=config.discount,
        log_reference=None if reference is None else from_start(reference),
        trust=config.trust,
    )
    probability = log_pi.detach().exp()
    on_policy = episodes.on_policy[e]
    path_weight = weight[e]
    if two:
        # Over both steps, noise in the draft is common to keep and escalate; it cancels only where these carry the
        # policy's own probabilities. On-policy episodes have them by having been drawn.
        long = (first == 0) & (last == 2) & ~on_policy
        actions = 2.0 if lessons.teachers is None else 1.0 + lessons.teachers.shape[1]
        path_weight = torch.where(long, path_weight * actions * probability[e, 1], path_weight)
    # An episode that stops at its draft needs no outcome: its end is a value.
    path_weight = torch.where(paths.ends, path_weight, episodes.weight[e])
    scaled = error / (1.0 + price[e])
    cost_start, cost_end = values("cost")
    cost_error = cost_consistency_error(cost_start, cost_end, from_start(step_cost), mask, discount=config.discount)
    taken_probability = torch.where(mask > 0, from_start(probability), 1.0).prod(dim=1)
    cost_weight = episodes.weight[e] * torch.where(on_policy, torch.ones_like(taken_probability), taken_probability)
    return Losses(weighted_half_square(scaled, path_weight), weighted_half_square(cost_error, cost_weight))
