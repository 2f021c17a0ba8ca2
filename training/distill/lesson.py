"""What a method is to the frame: a module that holds what learns, and says its loss on one batch."""

from typing import Any

import torch
from torch import Tensor, nn

from training.distill.batches import Batch


class Lesson(nn.Module):
    """Holds the student and whatever else learns with it (projections, a value head); what does not learn (a teacher)
    is kept outside of its modules, so that checkpoints and sharding leave it alone.

    Losses are sums; the frame divides by the weight of the whole step, so that neither padding nor the way rows are
    spread over devices and micro-batches changes a gradient.
    """

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Called before the step's weight is counted: here a student may write the answers anew."""
        del generator
        return batch

    def weight(self, batch: Batch) -> float:
        """What the batch's loss is to be divided by: how many tokens it teaches."""
        return float(batch.predicting().sum())

    def forward(self, batch: Batch, step: int, measure: bool = False) -> dict[str, Tensor]:
        """Sums over the batch, `loss` among them; everything goes through here so that sharded weights are gathered."""
        return self.measure(batch) if measure else self.loss(batch, step)

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums for validation, `weight` among them."""
        raise NotImplementedError
