"""Which optimizer moves which weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from training.distill.config import TrainingConfig


def optimizers_of(lesson: nn.Module, student: Any, config: TrainingConfig) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW for everything; or Muon (orthogonalised momentum, Jordan et al. 2024) for the matrices inside the student's
    layers and AdamW for embeddings, norms, and what stands beside the student.

    Muon's steps are scaled to those of AdamW (2502.16982), so that one learning rate does for both.
    """
    learning = [p for p in lesson.parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return (_adamw(learning, config),)
    ends = {id(m.weight) for m in (student.get_input_embeddings(), student.get_output_embeddings()) if m is not None}
    inside = [p for p in student.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in ends]
    known = {id(p) for p in inside}
    muon = Muon(inside, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
    return muon, _adamw([p for p in learning if id(p) not in known], config)


class Muon(torch.optim.Muon):
    """torch's Muon, which on a processor orthogonalises in float32 instead of bfloat16.

    Most processors only emulate bfloat16: one product takes seven times as long there as in float32, and these products
    six times as long as all else that a small model's step does. State and settings are torch's, so that checkpoints
    go from one device to another.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        weights = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        scales = {group["adjust_lr_fn"] for group, _ in weights}
        elsewhere = any(p.device.type != "cpu" for _, p in weights)
        if closure is not None or elsewhere or scales - {"match_rms_adamw"}:
            return super().step(closure)  # type: ignore[no-untyped-call]
        for group, p in weights:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p.grad)
            momentum = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
            update = p.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            rate = float(group["lr"])
            # "match_rms_adamw"; torch knows the others.
            scaled = rate * 0.2 * math.sqrt(max(p.shape))
            p.mul_(1 - rate * group["weight_decay"])
            p.add_(orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"]), alpha=-scaled)
        return None


def orthogonal(update: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """(m, n) with its singular values brought near 1 by the quintic Newton-Schulz iteration of Muon, in its dtype."""
    a, b, c = coefficients
    wide = update if update.shape[0] <= update.shape[1] else update.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if update.shape[0] <= update.shape[1] else wide.T


def _adamw(learning: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    # Norms and biases are not pulled towards zero.
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, eps=1e-8
    )
