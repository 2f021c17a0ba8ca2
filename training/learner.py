"""Trains the wheels: estimators -> blend -> path consistency under the constraint -> prices -> artifact arrays.

One loop: draw rows and budgets, take every branch off-policy and the policy's own on-policy, relabel some budgets,
minimise C^2 / 2 over all sub-trajectories, let the cost critic drive the price of each budget. The best weights on the
validation split are kept; the start (a blend of estimators) is among them, so training never ends below it there.
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
from training.episode_losses import Judged, Losses, judge, losses
from training.learner_config import PathConsistencyConfig
from training.lessons import Lessons
from training.networks import TrainableStepNet
from training.trajectories import Episodes, draw_shares, draw_teachers, join, off_policy, relabel, roll_out
from training.validation import price_at, supported, supported_at_route, validation_loss

__all__ = [
    "Judged",
    "Loop",
    "Losses",
    "PathConsistencyConfig",
    "begin",
    "finish",
    "judge",
    "losses",
    "run",
    "save_checkpoint",
]


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
