"""Which optimizer moves which weights."""

from typing import Any

import torch
from torch import nn

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
    muon = torch.optim.Muon(
        inside, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return muon, _adamw([p for p in learning if id(p) not in known], config)


def _adamw(learning: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    # Norms and biases are not pulled towards zero.
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, eps=1e-8
    )
