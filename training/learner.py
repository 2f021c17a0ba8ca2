"""Trains the wheels: estimators -> blend -> path consistency under the constraint -> prices -> artifact arrays.

One loop: draw rows and budgets, take every branch off-policy and the policy's own on-policy, relabel some budgets,
minimise C^2 / 2 over all sub-trajectories, let the cost critic drive the price of each budget. The best weights on the
validation split are kept; the start (a blend of estimators) is among them, so training never ends below it there.

Two departures from the plain recipe, because a draft is a random thing given its prompt (docs/decisions/0020):
V(o_t+d) inside a path is held fixed, and paths over both steps are weighted by the policy's own probability of their
last action.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.action import Step
from policies.wheels import Estimators, Prices, StepNet, WheelsPolicy
from training import constraint
from training.calibration import calibrate, hold_back
from training.choice import bear_out_choice
from training.dataset import Table
from training.estimators import EstimatorConfig
from training.lessons import Lessons
from training.networks import TrainableStepNet
from training.path_consistency import (
    cost_consistency_error,
    path_consistency_error,
    two_action_policy,
    weighted_half_square,
)
from training.trajectories import (
    Branch,
    Episodes,
    draw_shares,
    draw_teachers,
    join,
    off_policy,
    relabel,
    roll_out,
    spans,
)
from training.validation import price_at, supported, supported_at_route, validation_loss


@dataclass(frozen=True, slots=True)
class PathConsistencyConfig:
    steps: int = 1200
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    """AdamW's, on the weights of the correcting network."""
    skip_rate: float = 0.1
    """The blend's learning rate as a part of the network's."""
    hidden: int = 32
    critic_hidden: int = 16
    temperature: float = 0.5
    """In units of the spread of the expected gain."""
    discount: float = 1.0
    on_policy: float = 0.5
    """The part of each batch that the current policy rolls out; the rest takes every branch."""
    relabel: float = 0.3
    trust: float = 0.0
    """Trust-PCL's weight on log pi - log of a lagged pi; 0 switches it off."""
    lag: float = 0.98
    least_share: float = 0.01
    only_share: float | None = None
    """Train for this budget alone; None: for all of them."""
    sees_budget: bool = True
    """Whether the networks are shown share and price; without, the policy has one ranking for all budgets."""
    knots: int = 17
    draft_cost: float = 0.0
    """What a draft costs, in teacher calls."""
    critic_weight: float = 0.3
    doubt: float = 1.5
    """Standard errors by which the validation rows must bear out what training adds to the blend."""
    evaluate_every: int = 50
    checkpoint_every: int = 200
    seed: int = 0
    gains: constraint.Gains = field(default_factory=constraint.Gains)
    estimators: EstimatorConfig = field(default_factory=EstimatorConfig)


@dataclass(slots=True, eq=False)
class Loop:
    """Everything that changes while training, so that a checkpoint is this object written out."""

    nets: dict[Step, TrainableStepNet]
    lagged: dict[Step, TrainableStepNet]
    optimiser: torch.optim.Optimizer
    multiplier: constraint.Multiplier
    generator: torch.Generator
    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    best: dict[Step, dict[str, Tensor]] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "nets": {str(step): net.state_dict() for step, net in self.nets.items()},
            "lagged": {str(step): net.state_dict() for step, net in self.lagged.items()},
            "optimiser": self.optimiser.state_dict(),
            "multiplier": {name: torch.tensor(value) for name, value in asdict(self.multiplier).items()},
            "generator": self.generator.get_state(),
            "step": self.step,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "best": {str(step): weights for step, weights in self.best.items()},
            "curves": self.curves,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for step, net in self.nets.items():
            net.load_state_dict(state["nets"][str(step)])
            self.lagged[step].load_state_dict(state["lagged"][str(step)])
        self.optimiser.load_state_dict(state["optimiser"])
        self.multiplier = constraint.Multiplier(**{k: v.numpy() for k, v in state["multiplier"].items()})
        self.generator.set_state(state["generator"])
        self.step, self.curves = state["step"], state["curves"]
        self.best_loss, self.best_step = state["best_loss"], state["best_step"]
        self.best = {Step(step): weights for step, weights in state["best"].items()}


def begin(lessons: Lessons, config: PathConsistencyConfig) -> Loop:
    """Networks at the blend, prices at the blend's quantiles, generators seeded."""
    generator = torch.Generator().manual_seed(config.seed)
    nets: dict[Step, TrainableStepNet] = {}
    lagged: dict[Step, TrainableStepNet] = {}
    for step, features in lessons.features.items():
        for place in (nets, lagged):
            place[step] = TrainableStepNet(
                features[lessons.train].numpy(),
                lessons.start(step).numpy(),
                hidden=config.hidden,
                critic_hidden=config.critic_hidden,
                generator=generator,
                sees_budget=config.sees_budget,
            )
        lagged[step].load_state_dict(nets[step].state_dict())
    groups: list[dict[str, Any]] = []
    for net in nets.values():
        groups += [dict(group) for group in net.groups(config.weight_decay, config.skip_rate)]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    budgets = constraint.knots(config.least_share, config.knots)
    last = list(nets)[-1]
    with torch.no_grad():
        features = lessons.features[last][lessons.train]
        one = torch.ones(len(features), dtype=torch.float64)
        gain = nets[last](features, one, one)[1].numpy()
        gain = gain if gain.ndim == 1 else gain.max(axis=1)
    price = constraint.falling(np.maximum(0.0, np.quantile(gain, 1.0 - budgets)))
    return Loop(nets, lagged, optimiser, constraint.start(budgets, price), generator)


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


def _batch(loop: Loop, lessons: Lessons, config: PathConsistencyConfig) -> Episodes:
    generator = loop.generator
    picks = torch.randint(len(lessons.train), (config.batch,), generator=generator)
    rows = torch.from_numpy(lessons.train)[picks]
    share = draw_shares(config.batch, config.least_share, generator)
    if config.only_share is not None:
        share = torch.full_like(share, config.only_share)
    cut = round(config.batch * config.on_policy)
    teachers = 1 if lessons.teachers is None else lessons.teachers.shape[1]
    episodes = off_policy(rows[cut:], share[cut:], two_steps=lessons.two_steps, teachers=teachers)
    if cut:
        features = lessons.features
        with torch.no_grad():
            price = price_at(share[:cut], loop.multiplier)
            judged = [
                judge(loop.nets, step, features[step][rows[:cut]], share[:cut], price, config) for step in loop.nets
            ]
        ask = [each.log_ask.exp() for each in judged]
        rolled = roll_out(rows[:cut], share[:cut], ask[0], ask[1] if lessons.two_steps else None, generator)
        if teachers > 1:
            choices = [each.log_whom.exp() for each in judged if each.log_whom is not None]
            rolled = draw_teachers(rolled, choices, generator)
        episodes = join(episodes, rolled)
    part = config.relabel if config.only_share is None else 0.0
    return relabel(episodes, part, config.least_share, generator)


def _track_costs(loop: Loop, lessons: Lessons, config: PathConsistencyConfig) -> None:
    """One PID step: the critic's mean expected cost under each budget."""
    picks = torch.randint(len(lessons.train), (128,), generator=loop.generator)
    rows = torch.from_numpy(lessons.train)[picks]
    budgets = torch.tensor(loop.multiplier.budgets)
    share = budgets.repeat_interleave(len(rows))
    features = lessons.route[rows].repeat(len(budgets), 1)
    with torch.no_grad():
        judged = judge(loop.nets, Step.ROUTE, features, share, price_at(share, loop.multiplier), config)
        cost = judged.cost.view(len(budgets), len(rows)).mean(dim=1).numpy()
    loop.multiplier = constraint.update(loop.multiplier, cost, config.gains)


def run(
    loop: Loop,
    lessons: Lessons,
    config: PathConsistencyConfig,
    *,
    tick: Callable[[Loop], None] = lambda _: None,
    checkpoint: Path | None = None,
) -> None:
    """Train from `loop.step` to the end, leaving the best weights in `loop.best`. `tick` runs after every step."""
    while loop.step < config.steps:
        if loop.step % config.evaluate_every == 0:
            _keep_best(loop, lessons)
        rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * loop.step / config.steps))
        for group in loop.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        found = losses(loop.nets, loop.lagged, lessons, _batch(loop, lessons, config), loop.multiplier, config)
        total = found.policy + config.critic_weight * found.critic
        loop.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        for net in loop.nets.values():
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        loop.optimiser.step()
        with torch.no_grad():
            for step, net in loop.nets.items():
                for slow, fast in zip(loop.lagged[step].parameters(), net.parameters(), strict=True):
                    slow.lerp_(fast, 1.0 - config.lag)
        if loop.step % 5 == 4:
            _track_costs(loop, lessons, config)
        if loop.step % 10 == 0:
            loop.curves.append(
                {"step": loop.step, "loss": float(found.policy.detach()), "critic": float(found.critic.detach())}
            )
        loop.step += 1
        if checkpoint is not None and loop.step % config.checkpoint_every == 0:
            save_checkpoint(loop, checkpoint)
        tick(loop)
    _keep_best(loop, lessons)


def _keep_best(loop: Loop, lessons: Lessons) -> None:
    loss = validation_loss(loop.nets, loop.multiplier, lessons)
    loop.curves.append({"step": loop.step, "val_loss": loss})
    if loss < loop.best_loss:
        loop.best_loss, loop.best_step = loss, loop.step
        loop.best = {
            step: {name: value.detach().clone() for name, value in net.state_dict().items()}
            for step, net in loop.nets.items()
        }


def save_checkpoint(loop: Loop, path: Path) -> None:
    """Write beside and rename, so that an interruption never leaves half a checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(loop.state(), temporary)
    temporary.replace(path)


def finish(
    loop: Loop, lessons: Lessons, estimators: Estimators, table: Table, config: PathConsistencyConfig, name: str
) -> WheelsPolicy:
    """The best weights as a serving policy, its prices set so that the share of rows asked is the share allowed."""
    for step, weights in loop.best.items():
        # The critic goes on learning after the policy's best moment and decides nothing: keep its last weights.
        latest = loop.nets[step].state_dict()
        merged = {key: latest[key] if key.startswith("cost_") else value for key, value in weights.items()}
        loop.nets[step].load_state_dict(merged)
    last = list(loop.nets)[-1]
    with torch.no_grad():
        for k in range(max(len(table.teachers), 1)):
            part = supported(loop.nets, loop.multiplier, lessons, config.doubt, k)
            loop.nets[last].w2[:, 1 + k] *= part
            loop.nets[last].b2[1 + k] *= part
            begun = lessons.start(last)[:, 1 + k]
            loop.nets[last].skip[:, 1 + k] = torch.lerp(begun, loop.nets[last].skip[:, 1 + k], part)
        if lessons.two_steps:
            route = loop.nets[Step.ROUTE]
            part = supported_at_route(loop.nets, loop.multiplier, lessons, config.doubt, temperature=config.temperature)
            route.w2.mul_(part)
            route.b2.mul_(part)
            route.skip[:, 1:] = torch.lerp(lessons.start(Step.ROUTE)[:, 1:], route.skip[:, 1:], part)
    nets: dict[Step, StepNet] = {step: net.export() for step, net in loop.nets.items()}
    policy = WheelsPolicy(
        name=name,
        version="unsaved",
        steps=tuple(nets),
        estimators=estimators,
        nets=nets,
        prices=Prices(np.log(loop.multiplier.budgets), loop.multiplier.price),
        temperature=config.temperature,
        scale=lessons.scale,
        draft_cost=config.draft_cost,
        teachers=table.teachers,
    )
    rows = np.flatnonzero(table.split != "test")
    features = {step: values[rows].numpy() for step, values in lessons.features.items()}
    if table.teachers:
        gains = (np.column_stack(table.teacher_qualities) - table.student[:, None])[rows]
        policy, _ = bear_out_choice(policy, features, gains, doubt=config.doubt)
        chosen = policy.teacher_gains(last, features[last], 0.2).argmax(axis=1)
        gain = gains[np.arange(len(gains)), chosen]
    else:
        gain = (table.teacher - table.student)[rows]
    known = ~np.isnan(gain)
    policy = calibrate(policy, features)
    return hold_back(policy, {step: values[known] for step, values in features.items()}, gain[known])
