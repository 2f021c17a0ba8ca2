"""Alignment to corrected text (Warmup-Distill, 2502.11766): direct preference plus imitation.

    -log sigmoid(beta [(log S z - log S0 z) - (log S y - log S0 y)]) + lambda NLL_S(z)

z is the student's text corrected by the teacher, y the student's own, S0 the student as it was.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def preference(chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float) -> Tensor:
    """(B,) summed log-probabilities of z and y, now and before -> (B,) loss; log 2 at the start."""
    return -logsigmoid(beta * ((chosen - chosen_before) - (rejected - rejected_before)))


def imitation(chosen: Tensor, tokens: Tensor) -> Tensor:
    """(B,) summed log-probability of z and its number of tokens -> (B,) mean negative log-likelihood per token, so
    that long answers weigh no more than short ones."""
    return -chosen / tokens.clamp_min(1)


def sequence_sums(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(N,) values of tokens and the row each belongs to -> (count,) sums."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, rows, values)
