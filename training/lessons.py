"""What the training loop reads: features per step and outcomes of every row, as tensors, and the blends to begin at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.action import Step
from policies.prompt_features import Ints
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

    def start(self, step: Step) -> Tensor:
        """(E + 1, 2): the blend that a step begins at, in units of `scale`."""
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
    blends = {
        step: choose(values[chosen_on], table.student[chosen_on], table.teacher[chosen_on])
        for step, values in estimates.items()
    }
    last = list(blends)[-1]
    gain = estimates[last][chosen_on] @ blends[last].weights[:-1, 1]
    # The floor keeps a table without any signal from blowing its noise up to full size.
    scale = max(round(float(gain.std()), 8), 0.02)
    return Lessons(
        route=torch.tensor(route),
        defer=None if defer is None else torch.tensor(defer),
        student=torch.tensor(table.student / scale),
        teacher=torch.tensor(table.teacher / scale),
        scale=scale,
        train=np.flatnonzero((table.split == "train") & (~np.isnan(table.student) | ~np.isnan(table.teacher))),
        val=np.flatnonzero((table.split == "val") & known),
        blends=blends,
    )
