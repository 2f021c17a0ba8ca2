"""Path consistency under a constraint, as pure functions of tensors.

Path Consistency Learning (Nachum et al. 2017, arXiv 1702.08892) with the unified parameterisation of its section 4.3:
one pair of action values gives policy and value, `V = t log sum exp(Q / t)`, `log pi(a) = (Q(a) - V) / t`. The
multiplier prices cost inside the reward; the reference term is Trust-PCL's (arXiv 1707.01891).
"""

import torch
from torch import Tensor


def _assert_shapes(batch: int, length: int, *tensors: Tensor) -> None:
    for tensor in tensors:
        assert tensor.shape == (batch, length), f"expected {(batch, length)}, got {tuple(tensor.shape)}"


def two_action_policy(stay: Tensor, ask: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Action values (B,), (B,) -> value (B,), log pi(stay) (B,), log pi(ask) (B,).

    `ask` already holds its price. The three satisfy `V + t log pi(a) = Q(a)`.
    """
    assert stay.shape == ask.shape
    odds = (ask - stay) / temperature
    log_stay = -torch.nn.functional.softplus(odds)
    log_ask = -torch.nn.functional.softplus(-odds)
    return stay - temperature * log_stay, log_stay, log_ask


def path_consistency_error(
    value_start: Tensor,
    value_end: Tensor,
    reward: Tensor,
    cost: Tensor,
    log_pi: Tensor,
    mask: Tensor,
    multiplier: Tensor,
    *,
    temperature: float,
    discount: float = 1.0,
    log_reference: Tensor | None = None,
    trust: float = 0.0,
) -> Tensor:
    """C of sub-trajectories: starts and ends (B,), the rest (B, D), multiplier (B,) -> (B,).

        C = -V(o_t) + g^d V(o_t+d) + sum_j g^j [ r - multiplier c - temperature log pi - trust (log pi - log ref) ]

    `mask` is 1 on the d steps of each sub-trajectory, 0 on padding after them; `value_end` is 0 at the end of an
    episode. The log-probabilities are of the actions taken.
    """
    batch, length = reward.shape
    _assert_shapes(batch, length, cost, log_pi, mask)
    assert value_start.shape == value_end.shape == multiplier.shape == (batch,)
    powers = discount ** torch.arange(length, dtype=reward.dtype)
    inside = reward - multiplier[:, None] * cost - temperature * log_pi
    if log_reference is not None:
        _assert_shapes(batch, length, log_reference)
        inside = inside - trust * (log_pi - log_reference)
    end = discount ** mask.sum(dim=1) * value_end
    return -value_start + end + (powers * mask * inside).sum(dim=1)


def cost_consistency_error(
    cost_start: Tensor, cost_end: Tensor, cost: Tensor, mask: Tensor, *, discount: float = 1.0
) -> Tensor:
    """The same for the cost critic, which has no entropy: (B,), (B,), (B, D), (B, D) -> (B,)."""
    batch, length = cost.shape
    _assert_shapes(batch, length, mask)
    assert cost_start.shape == cost_end.shape == (batch,)
    powers = discount ** torch.arange(length, dtype=cost.dtype)
    return -cost_start + discount ** mask.sum(dim=1) * cost_end + (powers * mask * cost).sum(dim=1)


def weighted_half_square(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of C^2 / 2 under weights, (B,), (B,) -> (); 0 where no weight is left."""
    assert error.shape == weight.shape
    return 0.5 * (weight * error.square()).sum() / weight.sum().clamp_min(1e-12)
