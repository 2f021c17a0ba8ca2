"""Losses on logits that never exist all at once: block of tokens by block of tokens.

A model of 150,000 words gives 150,000 logits per token; for 16 rows of 1,024 tokens that is 10 GB in float32, several
times over with gradients. Here the head runs on a few tokens at a time, and the backward pass runs it again
(torch.utils.checkpoint), so memory holds one block. Any loss per token works; vocabulary.py is the leaner way where the
loss is a sum over words.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True)
class Head:
    """From states before the head to logits: (N, width) -> (N, vocabulary). `vocabulary` may be smaller than the
    weights' rows: what lies behind it is padding. `softcap` and `scale` are what some architectures add."""

    weight: Tensor
    bias: Tensor | None
    vocabulary: int
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, states: Tensor) -> Tensor:
        weight = self.weight[: self.vocabulary]
        bias = None if self.bias is None else self.bias[: self.vocabulary].to(states.dtype)
        logits = torch.nn.functional.linear(states, weight.to(states.dtype), bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


PerToken = Callable[[Tensor, Tensor | None, slice], dict[str, Tensor]]
"""(student's logits, teacher's logits or None, which tokens) -> name -> (n,) values."""


def by_blocks(
    states: Tensor, head: Head, teacher_states: Tensor | None, teacher_head: Head | None, loss: PerToken, tokens: int
) -> dict[str, Tensor]:
    """Runs `loss` on blocks of `tokens` tokens: (N, width) -> name -> (N,), differentiable by states and head."""

    def block(s: Tensor, weight: Tensor, t: Tensor | None, start: int) -> dict[str, Tensor]:
        ours = Head(weight, head.bias, head.vocabulary, head.scale, head.softcap)
        with torch.no_grad():
            theirs = teacher_head.logits(t) if teacher_head is not None and t is not None else None
        return loss(ours.logits(s), theirs, slice(start, start + len(s)))

    parts: list[dict[str, Tensor]] = []
    for start in range(0, max(len(states), 1), tokens):
        stop = start + tokens
        t = None if teacher_states is None else teacher_states[start:stop]
        if torch.is_grad_enabled() and len(states) > tokens:
            part = checkpoint(block, states[start:stop], head.weight, t, start, use_reentrant=False)
        else:
            part = block(states[start:stop], head.weight, t, start)
        assert isinstance(part, dict)
        parts.append(part)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
