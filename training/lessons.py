"""What the training loop reads: features per step and outcomes of every row, as tensors, and the blends to begin at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.action import Step
from policies.prompt_features import Floats, Ints
from policies.wheels import estimate_names
from training.blend import Blend, choose
from training.dataset import Table
from training.estimators import Fitted


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What the loop reads: features per step and outcomes, N rows, qualities in units of `scale`."""

    route: Tensor
    defer: Tensor | None
    student: Tensor
    teacher: Tensor
    scale: float
    train: Ints
    """Rows to learn from."""
    val: Ints
    blends: dict[Step, Blend]
    teachers: Tensor | None = None
    """(N, K) qualities of K teachers, the first of which is `teacher`; None where there is one."""

    def start(self, step: Step) -> Tensor:
        """(E + 1, 1 + K): the blend that a step begins at, in units of `scale`."""
        return torch.tensor(self.blends[step].weights / self.scale)

    @property
    def two_steps(self) -> bool:
        return self.defer is not None

    @property
    def features(self) -> dict[Step, Tensor]:
        """(N, F) per step, in order."""
        if self.defer is None:
            return {Step.ROUTE: self.route}
        return {Step.ROUTE: self.route, Step.DEFER: self.defer}


def prepare(table: Table, fitted: Fitted) -> Lessons:
    """Join estimates and features, choose the blends, find the unit of quality."""
    known = table.both_known
    chosen_on = np.flatnonzero(known & (table.split != "test"))
    route = np.hstack([fitted.prompt_estimates, table.prompt])
    estimates = {Step.ROUTE: fitted.prompt_estimates}
    defer = None
    if table.draft is not None and fitted.draft_estimates is not None:
        estimates[Step.DEFER] = np.hstack([fitted.prompt_estimates, fitted.draft_estimates])
        defer = np.hstack([estimates[Step.DEFER], table.prompt, table.draft])
    if table.teachers:
        blends = {step: choose_several(values, table, chosen_on) for step, values in estimates.items()}
    else:
        blends = {
            step: choose(values[chosen_on], table.student[chosen_on], table.teacher[chosen_on])
            for step, values in estimates.items()
        }
    last = list(blends)[-1]
    # The floor keeps a table without any signal from blowing its noise up to full size.
    scale = max(round(float(_gain(estimates[last][chosen_on], blends[last].weights).std()), 8), 0.02)
    return Lessons(
        route=torch.tensor(route),
        defer=None if defer is None else torch.tensor(defer),
        student=torch.tensor(table.student / scale),
        teacher=torch.tensor(table.teacher / scale),
        scale=scale,
        train=np.flatnonzero((table.split == "train") & (~np.isnan(table.student) | ~np.isnan(table.teacher))),
        val=np.flatnonzero((table.split == "val") & known),
        blends=blends,
        teachers=torch.tensor(np.column_stack(table.teacher_qualities) / scale) if table.teachers else None,
    )


def _gain(estimates: Floats, weights: Floats) -> Floats:
    """(N,) what the blend expects of the teacher; of several, of the one that it expects most of."""
    if weights.shape[1] == 2:
        out: Floats = estimates @ weights[:-1, 1]
        return out
    best: Floats = (estimates @ weights[:-1, 1:] + weights[-1, 1:]).max(axis=1)
    return best


def choose_several(estimates: Floats, table: Table, rows: Ints) -> Blend:
    """A blend per teacher, each from the estimates that are about the student and that teacher: (E + 1, 1 + K)."""
    names = estimate_names(len(table.teachers))
    stages = estimates.shape[1] // len(names)
    weights = np.zeros((estimates.shape[1] + 1, 1 + len(table.teachers)))
    apgr: dict[str, float] = {}
    parts: dict[str, float] = {}
    for k, (teacher, quality) in enumerate(zip(table.teachers, table.teacher_qualities, strict=True)):
        about = [i for i, name in enumerate(names) if name.endswith(("student", f"_{k}"))]
        columns = [stage * len(names) + i for stage in range(stages) for i in about]
        blend = choose(estimates[rows][:, columns], table.student[rows], quality[rows])
        places = [*columns, estimates.shape[1]]
        weights[places, 1 + k] = blend.weights[:, 1]
        if k == 0:
            weights[places, 0] = blend.weights[:, 0]
        apgr |= {f"{teacher}: {name}": value for name, value in blend.apgr.items()}
        parts |= {f"{teacher}: {name}": value for name, value in blend.parts.items()}
    return Blend(weights, apgr, parts)
