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


def _advantage(
    nets: Nets, multiplier: Multiplier, lessons: Lessons, share: float, teacher: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """At the last step of the validation rows: gain seen, by the blend, and added to it by training; (B,) each."""
    quality = lessons.teacher if lessons.teachers is None else lessons.teachers[:, teacher]
    rows = torch.from_numpy(lessons.val if len(lessons.val) else lessons.train)
    rows = rows[~torch.isnan(quality[rows] - lessons.student[rows])]
    step = list(nets)[-1]
    shares = torch.full((len(rows),), share, dtype=torch.float64)
    features = lessons.features[step][rows]
    with torch.no_grad():
        _, gain, correction, _ = nets[step](features, shares, price_at(shares, multiplier))
        start = lessons.start(step)[:, 1 + teacher]
        gain = gain if gain.ndim == 1 else gain[:, teacher]
        blended = features[:, : len(start) - 1] @ start[:-1] + start[-1]
    return quality[rows] - lessons.student[rows], blended, gain - blended + correction[:, 1 + teacher]


def validation_loss(nets: Nets, multiplier: Multiplier, lessons: Lessons) -> float:
    """Mean square of C(ask) - C(stay) over five budgets: what is inconsistent in the choice itself.

    The value's own error is left out: it is large, and says nothing about whom to ask.
    """
    teachers = range(1 if lessons.teachers is None else lessons.teachers.shape[1])
    found = [_advantage(nets, multiplier, lessons, share, k) for share in WATCHED for k in teachers]
    return sum(float((seen - gain - added).square().mean()) for seen, gain, added in found) / len(found)


def supported(nets: Nets, multiplier: Multiplier, lessons: Lessons, doubt: float, teacher: int = 0) -> float:
    """How much of what training added to the blend the validation rows bear out."""
    found = [_advantage(nets, multiplier, lessons, share, teacher) for share in WATCHED]
    return _borne_out([(seen - gain, added) for seen, gain, added in found], doubt)


def supported_at_route(
    nets: Nets, multiplier: Multiplier, lessons: Lessons, doubt: float, *, temperature: float
) -> float:
    """The same for the first of two steps, where asking at once spares the draft and gives up what it would tell.

    With a gain g expected from the draft, and a price p, that is worth min(g, p) - p and the draft's own price. The
    algebra that the step starts from says (gain - p) - t softplus((gain - p) / t).
    """
    rows = torch.from_numpy(lessons.val if len(lessons.val) else lessons.train)
    features = lessons.features[Step.ROUTE][rows]
    told = _blended(lessons.features[Step.DEFER][rows], lessons.start(Step.DEFER))
    found = []
    for share in WATCHED:
        shares = torch.full((len(rows),), share, dtype=torch.float64)
        price = price_at(shares, multiplier)

        def at_once(gain: Tensor, price: Tensor = price) -> Tensor:
            return gain - price - temperature * torch.nn.functional.softplus((gain - price) / temperature)

        with torch.no_grad():
            _, gain, correction, _ = nets[Step.ROUTE](features, shares, price)
        begun = at_once(_blended(features, lessons.start(Step.ROUTE)))
        corrected = correction[:, 1]
        if gain.ndim == 2:
            gain, best = gain.max(dim=1)
            corrected = correction.gather(1, 1 + best[:, None])[:, 0]
        added = at_once(gain) + corrected - correction[:, 0] - begun
        found.append((torch.minimum(told, price) - price - begun, added))
    return _borne_out(found, doubt)


def _blended(features: Tensor, start: Tensor) -> Tensor:
    """(B,) gain by the blend, (E + 1, 1 + K); of several teachers, of the one that it expects most of."""
    if start.shape[1] == 2:
        return features[:, : len(start) - 1] @ start[:-1, 1] + start[-1, 1]
    return (features[:, : len(start) - 1] @ start[:-1, 1:] + start[-1, 1:]).amax(dim=1)


def _borne_out(found: list[tuple[Tensor, Tensor]], doubt: float) -> float:
    """Least squares of what was missing on what was added, (B,) and (B,) for each budget; within 0..1.

    `doubt` standard errors are taken off, because a hundred validation rows bear out many things by chance, and the
    weights were chosen on the same rows.
    """
    product = torch.stack([missing * added for missing, added in found]).mean(dim=0)
    size = float(torch.stack([added.square() for _, added in found]).mean())
    if size < 1e-12 or len(product) < 2:
        return 0.0
    sure = float(product.mean() - doubt * product.std() / math.sqrt(len(product)))
    return min(max(sure / size, 0.0), 1.0)
