"""Which of several teachers: how much of what a policy learned about it the rows bear out.

Taking the best of several estimates takes the luckiest as well. So the expected difference between two teachers is
drawn towards its mean by as much as the rows do not bear it out; where they bear out nothing, one is asked always.
"""

import math
from dataclasses import replace

import numpy as np

from policies.action import Step
from policies.prompt_features import Floats
from policies.wheels import StepNet, WheelsPolicy

SHARE = 0.2
"""The budget at which expected gains are read; on whom to ask it has next to no bearing."""


def bear_out_choice(
    policy: WheelsPolicy, features: dict[Step, Floats], gains: Floats, *, doubt: float
) -> tuple[WheelsPolicy, list[float]]:
    """The policy with its differences between teachers as far as these rows bear them out, and which part that is of
    each after the first, at the last step.

    (B, F) per step and gains seen (B, K), NaN where unknown. Estimates of the rows must come out of fold.
    """
    nets: dict[Step, StepNet] = {}
    parts: list[float] = []
    for step, net in policy.nets.items():
        expected = policy.teacher_gains(step, features[step], SHARE)
        skip, w2, b2 = net.skip.copy(), net.w2.copy(), net.b2.copy()
        parts = []
        for k in range(1, gains.shape[1]):
            known = ~np.isnan(gains[:, k]) & ~np.isnan(gains[:, 0])
            foreseen, seen = (expected[known, k] - expected[known, 0]), (gains[known, k] - gains[known, 0])
            part, constant = _borne_out(foreseen, seen, doubt)
            parts.append(part)
            for weights in (skip, w2):
                weights[:, 1 + k] = (1.0 - part) * weights[:, 1] + part * weights[:, 1 + k]
            b2[1 + k] = (1.0 - part) * b2[1] + part * b2[1 + k]
            skip[-1, 1 + k] += constant / policy.scale
        nets[step] = replace(net, skip=skip, w2=w2, b2=b2)
    return replace(policy, nets=nets), parts


def _borne_out(foreseen: Floats, seen: Floats, doubt: float) -> tuple[float, float]:
    """Least squares seen = part x foreseen + constant, both (B,); the part within 0..1 and less by `doubt` standard
    errors."""
    if len(seen) == 0:
        return 1.0, 0.0
    moved = foreseen - foreseen.mean()
    product = moved * (seen - seen.mean())
    size = float((moved**2).mean())
    part = 0.0
    if size > 1e-12 and len(seen) > 1:
        sure = float(product.mean() - doubt * product.std() / math.sqrt(len(product)))
        part = min(max(sure / size, 0.0), 1.0)
    return part, float(seen.mean() - part * foreseen.mean())
