"""What the validation rows say of a policy in training: which weights to keep, and how much of what they learned."""

import math

import numpy as np
import torch
from torch import Tensor

from policies.action import Step
from training.constraint import Multiplier
from training.lessons import Lessons
from training.networks import TrainableStepNet

Nets = dict[Step, TrainableStepNet]

WATCHED = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Budgets at which training is judged on the validation rows."""


def price_at(share: Tensor, multiplier: Multiplier) -> Tensor:
    return torch.tensor(np.interp(np.log(share.numpy()), np.log(multiplier.budgets), multiplier.price))


def _advantage(nets: Nets, multiplier: Multiplier, lessons: Lessons, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """At the last step of the validation rows: gain seen, by the blend, and added to it by training; (B,) each."""
    rows = torch.from_numpy(lessons.val if len(lessons.val) else lessons.train)
    rows = rows[~torch.isnan(lessons.teacher[rows] - lessons.student[rows])]
    step = list(nets)[-1]
    shares = torch.full((len(rows),), share, dtype=torch.float64)
    features = lessons.features[step][rows]
    with torch.no_grad():
        _, gain, correction, _ = nets[step](features, shares, price_at(shares, multiplier))
        start = lessons.start(step)[:, 1]
        blended = features[:, : len(start) - 1] @ start[:-1] + start[-1]
    return lessons.teacher[rows] - lessons.student[rows], blended, gain - blended + correction[:, 1]


def validation_loss(nets: Nets, multiplier: Multiplier, lessons: Lessons) -> float:
    """Mean square of C(ask) - C(stay) over five budgets: what is inconsistent in the choice itself.

    The value's own error is left out: it is large, and says nothing about whom to ask.
    """
    found = [_advantage(nets, multiplier, lessons, share) for share in WATCHED]
    return sum(float((seen - gain - added).square().mean()) for seen, gain, added in found) / len(found)


def supported(nets: Nets, multiplier: Multiplier, lessons: Lessons, doubt: float) -> float:
    """How much of what training added to the blend the validation rows bear out: least squares, within 0..1.

    `doubt` standard errors are taken off, because a hundred validation rows bear out many things by chance, and the
    weights were chosen on the same rows.
    """
    found = [_advantage(nets, multiplier, lessons, share) for share in WATCHED]
    borne_out = torch.stack([(seen - gain) * added for seen, gain, added in found]).mean(dim=0)
    size = float(torch.stack([added.square() for _, _, added in found]).mean())
    if size < 1e-12 or len(borne_out) < 2:
        return 0.0
    sure = float(borne_out.mean() - doubt * borne_out.std() / math.sqrt(len(borne_out)))
    return min(max(sure / size, 0.0), 1.0)
