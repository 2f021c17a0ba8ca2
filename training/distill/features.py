"""Feature alignment as a term of distillation: which layers, which projection, which target.

The projection P brings the student's width to the teacher's and is dropped at export. It starts as the map that fits
both models' states best before the first step: states of two models differ in scale (by 20 and more) and in a direction
that all tokens share, and steps that P spends on these teach the student nothing. A free P can absorb the whole task,
so `projection = "orthogonal"` (frozen) is the check: what only works with a free P taught P, not the student.
"""

import math
from collections.abc import Sequence
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
        self.register_buffer("centres", torch.zeros(len(self.pairs), wide))
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

    def places(self, batch: Batch) -> Tensor:
        """(B, T) where states are compared."""
        if self._config.places == "all":
            return batch.owners > 0
        return torch.nn.functional.pad(batch.predicting(), (0, 1))

    def fit(self, moments: Sequence["Moments"]) -> None:
        """One per pair of layers: where P starts, and what is taken off the teacher's states."""
        centres: Any = self.centres
        for index, (project, found) in enumerate(zip(self.projections, moments, strict=True)):
            if self._config.centred:
                centres[index] = found.teacher_mean.to(centres)
            if self._config.start == "fitted" and isinstance(project, Linear | LowRank):
                project.start_from(*found.fitted(self._config.centred, rigid=self._config.projection == "orthogonal"))

    def forward(self, student: States, teacher: States, batch: Batch, generator: torch.Generator, model: Any) -> Tensor:
        """(N,) mean over the pairs of layers, at the places that predict answer tokens; (M,) at all places of all rows
        with `places = "all"`."""
        place, targets = self.places(batch), batch.targets()
        total = torch.zeros((), device=targets.device)
        centres: Any = self.centres
        for (ours, theirs), project, centre in zip(self.pairs, self.projections, centres, strict=True):
            s = project(student.layers[ours][place].float())
            t = teacher.layers[theirs][place].float() - centre
            if self._config.shuffled:
                t = t[torch.randperm(len(t), generator=generator).to(t.device)]
            direction = self._direction(targets, model, centre)
            total = total + alignment(s, t, self._config.kind, direction, self._config.log_norm)
        return total / len(self.pairs)

    def _direction(self, targets: Tensor, model: Any, centre: Tensor) -> Tensor | None:
        if self._config.target == "output-embedding":
            rows: Tensor = model.get_output_embeddings().weight.detach()[targets]
            return rows
        if self._config.target == "class-mean":
            if self._class_means is None:
                raise ValueError("class means are not set")
            return self._class_means.to(targets.device)[targets] - centre
        return None


class Moments:
    """Sums over tokens from which a projection is fitted, so that the states themselves need not be kept."""

    def __init__(self, width: int, wide: int) -> None:
        self.count = 0
        self._s, self._t = torch.zeros(width).double(), torch.zeros(wide).double()
        self._ss, self._st = torch.zeros(width, width).double(), torch.zeros(width, wide).double()
        self._tt = 0.0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """(N, width) and (N, wide) states of the same tokens."""
        s, t = student.float().cpu().double(), teacher.float().cpu().double()
        self.count += len(s)
        self._s, self._t = self._s + s.sum(0), self._t + t.sum(0)
        self._ss, self._st = self._ss + s.T @ s, self._st + s.T @ t
        self._tt += float(t.square().sum())

    @property
    def teacher_mean(self) -> Tensor:
        return (self._t / max(1, self.count)).float()

    def fitted(self, centred: bool, *, rigid: bool, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
        """(width, wide) and (wide,): the affine map of least squares from student states to teacher states (less their
        mean, with `centred`; without, no constant is fitted). `rigid`: a rotation (orthogonal Procrustes, Schönemann
        1966) times the one number that makes both sides equally long on average."""
        count = max(1, self.count)
        ss, st, tt = self._ss, self._st, self._tt
        if centred:
            ss = ss - torch.outer(self._s, self._s) / count
            st = st - torch.outer(self._s, self._t) / count
            tt = tt - float(self._t.square().sum()) / count
        if rigid:
            left, _, right = torch.linalg.svd(st, full_matrices=False)
            weight = left @ right * math.sqrt(tt / max(1e-30, float(ss.trace())))
        else:
            size = float(ss.trace()) / len(ss)
            weight = torch.linalg.solve(ss + ridge * size * torch.eye(len(ss)).double(), st)
        constant = -(self._s / count) @ weight if centred else torch.zeros(len(self._t))
        return weight.float(), constant.float()


class LowRank(nn.Module):
    """(…, width) -> (…, wide) through `rank` dimensions."""

    def __init__(self, width: int, wide: int, rank: int, generator: torch.Generator, *, constant: bool) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(width, rank, generator=generator) / math.sqrt(width))
        self.up = nn.Parameter(torch.randn(rank, wide, generator=generator) / math.sqrt(rank))
        self.bias = nn.Parameter(torch.zeros(wide)) if constant else None

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor) -> None:
        left, sizes, right = torch.linalg.svd(weight.to(self.down), full_matrices=False)
        rank = self.down.shape[1]
        root = sizes[:rank].sqrt()
        self.down.copy_(left[:, :rank] * root)
        self.up.copy_(root[:, None] * right[:rank])
        if self.bias is not None:
            self.bias.copy_(bias)

    def forward(self, states: Tensor) -> Tensor:
        found = states @ self.down @ self.up
        return found if self.bias is None else found + self.bias


class Linear(nn.Module):
    """(…, width) -> (…, wide). Starts orthogonal (the identity between equal widths), so that lengths are kept;
    `frozen` keeps the matrix where it starts, while the constant follows the student's mean."""

    def __init__(self, width: int, wide: int, generator: torch.Generator, *, frozen: bool, constant: bool) -> None:
        super().__init__()
        weight = torch.empty(width, wide)
        nn.init.orthogonal_(weight, generator=generator)
        if frozen and width == wide:
            nn.init.eye_(weight)
        self.weight = nn.Parameter(weight, requires_grad=not frozen)
        self.bias = nn.Parameter(torch.zeros(wide)) if constant else None

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor) -> None:
        self.weight.copy_(weight)
        if self.bias is not None:
            self.bias.copy_(bias)

    def forward(self, states: Tensor) -> Tensor:
        found = states @ self.weight
        return found if self.bias is None else found + self.bias


def projection(width: int, wide: int, config: FeaturesConfig, generator: torch.Generator) -> Linear | LowRank:
    if config.projection == "low-rank":
        return LowRank(width, wide, min(config.rank, width, wide), generator, constant=config.centred)
    return Linear(width, wide, generator, frozen=config.projection == "orthogonal", constant=config.centred)


def _layer(number: int, count: int, role: str) -> int:
    found = count + 1 + number if number < 0 else number
    if not 1 <= found <= count:
        raise CannotDistill(f"features.layers: {number} is no layer of the {role}, which has {count}")
    return found
