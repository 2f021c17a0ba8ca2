"""Masked diffusion (MDLM, 2406.07524) and self-distillation through time (SDTT, 2410.21035).

Noise masks each token with probability t. The model knows no time: MASK's own logit is minus infinity, and tokens that
are not masked stay as they are.

    base   L = E_t (1/t) sum over masked of -log x(x0 | z_t), per token of the text
    round  divergence(student(z_t), target), target = what the teacher would have revealed in m steps of size dt
"""

import torch
from torch import Tensor


def antithetic_times(count: int, smallest: float, generator: torch.Generator) -> Tensor:
    """(count,) times in [smallest, 1), one in each of `count` equal parts, so that a batch covers them evenly."""
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    spread = (start / count + torch.arange(count, dtype=torch.float64) / count) % 1.0
    return (smallest + (1.0 - smallest) * spread).float()


def noised(tokens: Tensor, times: Tensor, mask_id: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, L), (B,) -> z_t (B, L) and which are masked (B, L). Drawn on the CPU: one seed, one noise."""
    draw = torch.rand(tokens.shape, generator=generator, dtype=torch.float64)
    masked = draw.to(tokens.device) < times.to(tokens.device)[:, None]
    return torch.where(masked, torch.full_like(tokens, mask_id), tokens), masked


def base_loss(log_x: Tensor, truth: Tensor, times: Tensor) -> Tensor:
    """(M, V) log-probabilities at the masked places, (M,) true tokens, (M,) their times -> (M,); their sum over the
    number of all tokens is the bound on the negative log-likelihood in nats per token."""
    return -log_x.gather(-1, truth[:, None]).squeeze(-1) / times


def step_divergence(log_student: Tensor, log_target: Tensor, kind: str) -> Tensor:
    """(M, V), (M, V) -> (M,): `reverse` KL(student || target), `forward` KL(target || student), `mse` of
    log-probabilities, `tvd`. A word both give minus infinity (MASK itself) adds nothing."""
    student, target = log_student.clamp_min(-1e4), log_target.clamp_min(-1e4)
    if kind == "reverse":
        return (student.exp() * (student - target)).sum(-1)
    if kind == "forward":
        return (target.exp() * (target - student)).sum(-1)
    if kind == "tvd":
        return 0.5 * (student.exp() - target.exp()).abs().sum(-1)
    if kind == "mse":
        return (student - target).square().mean(-1)
    raise ValueError(f"no divergence named {kind}")
