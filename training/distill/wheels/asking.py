"""Whether asking by the sentence is worth it: what it leaves of the student's regret, beside what a threshold on the
same student's largest probability leaves for as many of the teacher's tokens."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch

from training.distill.config import DistillConfig
from training.distill.models import head_of
from training.distill.wheels.collecting import Models
from training.distill.wheels.mixing import Mixed, by_largest_probability, never
from training.distill.wheels.prompts import Example
from training.distill.wheels.row import AT_ONCE, as_served, read_states

DENSER = (1.0, 1.3)
"""Helped texts hold fewer doubtful states than the unhelped ones that thresholds are taken from: the first gets rather
less than the level, the second about as much."""
CLEARLY = 0.05
"""By what part more regret is left by the worse way to ask, where it is called so."""


def compared(
    models: Models, config: DistillConfig, examples: Sequence[Example], asked: Sequence[tuple[float, Sequence[Mixed]]]
) -> dict[str, Any]:
    """`asked`: for each level its share and the texts of `examples` under it. Nats that the student's own words of a
    text lie below the teacher's likeliest, in the mean, each cut at `wheels.worst` as what they earn is: `alone` (no
    sentence, no help), and for each level `share` (got), `left`, and `threshold_left`, on straight lines between
    thresholds."""
    assert config.wheels is not None
    worst = config.wheels.worst

    def mean(texts: Sequence[Mixed]) -> float:
        return fmean(float(text.regrets.clamp_max(worst).sum()) for text in texts)

    prompts, alone = as_served(models, examples, config, None, never)
    head = head_of(models.student, models.vocabulary)
    with torch.no_grad():
        parts = [
            torch.log_softmax(head.logits(some), -1).max(-1).values
            for states, _ in read_states(models, prompts, [text.tokens for text in alone])
            for some in torch.split(states, AT_ONCE)
        ]
    sure = torch.cat(parts).exp().cpu()
    points = [(0.0, mean(alone)), (1.0, 0.0)]
    for part in sorted({min(1.0, level * more) for level, _ in asked for more in DENSER}):
        threshold = float(torch.quantile(sure, part))
        _, texts = as_served(models, examples, config, None, by_largest_probability(threshold))
        points.append((share_of(texts), mean(texts)))
    shares, lefts = zip(*sorted(points), strict=True)
    levels = [
        {
            "requested": level, "share": share_of(texts), "left": mean(texts),
            "threshold_left": float(np.interp(share_of(texts), shares, lefts)),
        }
        for level, texts in asked
    ]  # fmt: skip
    return {"alone": mean(alone), "levels": levels}


def better(asked: dict[str, Any]) -> str | None:
    """Who asks clearly better by what `compared` found, in the words of `help.by`: "student", or "policy" for a
    threshold; None where they are level."""
    mine, rival = (sum(one[name] for one in asked["levels"]) for name in ("left", "threshold_left"))
    if mine > (1 + CLEARLY) * rival:
        return "policy"
    return "student" if rival > (1 + CLEARLY) * mine else None


def share_of(texts: Sequence[Mixed]) -> float:
    return sum(one.teacher_tokens for one in texts) / max(1, sum(len(one.tokens) for one in texts))
