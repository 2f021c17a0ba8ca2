"""Feature alignment as a term of distillation: which layers, which projection, which target.

The projection P brings the student's width to the teacher's and is dropped at export. A free P can absorb the whole
task, so `projection = "orthogonal"` (frozen) is the check: what only works with a free P taught P, not the student.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from training.distill.batches import Batch
from training.distill.config import FeaturesConfig
from training.distill.errors import CannotDistill
from training.distill.losses.features import alignment
from training.distill.models import States


class FeatureTerm(nn.Module):
    """Holds the projections, one per pair of layers."""

    def __init__(self, student: Any, teacher: Any, config: FeaturesConfig, seed: int) -> None:
        super().__init__()
        ours, theirs = student.config.get_text_config(), teacher.config.get_text_config()
        pairs = config.layers or ((ours.num_hidden_layers, theirs.num_hidden_layers),)
        self.pairs = tuple(
            (_layer(a, ours.num_hidden_layers, "student"), _layer(b, theirs.num_hidden_layers, "teacher"))
            for a, b in pairs
        )
        self._config = config
        generator = torch.Generator().manual_seed(seed)
        width, wide = int(ours.hidden_size), int(theirs.hidden_size)
        self.projections = nn.ModuleList(projection(width, wide, config, generator) for _ in self.pairs)
        self._class_means: Tensor | None = None

    @property
    def student_layers(self) -> tuple[int, ...]:
        return tuple(sorted({a for a, _ in self.pairs}))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        return tuple(sorted({b for _, b in self.pairs}))

    def set_class_means(self, means: Tensor) -> None:
        """(V, teacher's width) mean teacher state per next token, for `target = "class-mean"`."""
        self._class_means = means

    def forward(self, student: States, teacher: States, batch: Batch, generator: torch.Generator, model: Any) -> Tensor:
        """(N,) mean over the pairs of layers, at the places that predict answer tokens."""
        place, targets = batch.predicting(), batch.targets()
        total = torch.zeros(len(targets), device=targets.device)
        for (ours, theirs), project in zip(self.pairs, self.projections, strict=True):
            s = project(student.layers[ours][:, :-1][place].float())
            t = teacher.layers[theirs][:, :-1][place].float()
            if self._config.shuffled:
                t = t[torch.randperm(len(t), generator=generator).to(t.device)]
            direction = self._direction(targets, model)
            total = total + alignment(s, t, self._config.kind, direction, self._config.log_norm)
        return total / len(self.pairs)

    def _direction(self, targets: Tensor, model: Any) -> Tensor | None:
        if self._config.target == "output-embedding":
            rows: Tensor = model.get_output_embeddings().weight.detach()[targets]
            return rows
        if self._config.target == "class-mean":
            if self._class_means is None:
                raise ValueError("class means are not set")
            return self._class_means.to(targets.device)[targets]
        return None


class LowRank(nn.Module):
    """(…, width) -> (…, wide) through `rank` dimensions."""

    def __init__(self, width: int, wide: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(width, rank, generator=generator) / math.sqrt(width))
        self.up = nn.Parameter(torch.randn(rank, wide, generator=generator) / math.sqrt(rank))

    def forward(self, states: Tensor) -> Tensor:
        return states @ self.down @ self.up


class Linear(nn.Module):
    """(…, width) -> (…, wide). Starts orthogonal, so that lengths are kept at first; `frozen` keeps it there."""

    def __init__(self, width: int, wide: int, generator: torch.Generator, *, frozen: bool) -> None:
        super().__init__()
        weight = torch.empty(width, wide)
        nn.init.orthogonal_(weight, generator=generator)
        self.weight = nn.Parameter(weight, requires_grad=not frozen)

    def forward(self, states: Tensor) -> Tensor:
        return states @ self.weight


def projection(width: int, wide: int, config: FeaturesConfig, generator: torch.Generator) -> nn.Module:
    """Where both widths are the same and P would be frozen or free all the same, P is left out only by its kind:
    `orthogonal` of equal widths is the identity."""
    if config.projection == "low-rank":
        return LowRank(width, wide, min(config.rank, width, wide), generator)
    if config.projection == "orthogonal" and width == wide:
        return nn.Identity()
    return Linear(width, wide, generator, frozen=config.projection == "orthogonal")


def _layer(number: int, count: int, role: str) -> int:
    found = count + 1 + number if number < 0 else number
    if not 1 <= found <= count:
        raise CannotDistill(f"features.layers: {number} is no layer of the {role}, which has {count}")
    return found
