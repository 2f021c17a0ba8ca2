"""Divergences on logits that never exist all at once: block of words by block of words.

For a divergence D = sum_v g(log p_v, log q_v) with q = softmax(z / T), z = W h, three passes over blocks of words
suffice: the normalisers of both; then D and U = sum_v dg/dlog q_v; then dD/dz_v = (dg/dlog q_v - q_v U) / T and from it
the gradients of h and W. They are made at once, in the forward pass, and the backward pass only scales them, as in
Liger kernels (2410.10989) but over words instead of tokens: [tokens, vocabulary] never exists, not even for one row.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from training.distill.config import Kind
from training.distill.losses.blocks import Head
from training.distill.losses.divergence import _FLOOR, slopes, terms


def vocabulary_divergence(
    states: Tensor,
    head: Head,
    teacher_states: Tensor,
    teacher_head: Head,
    *,
    kind: Kind,
    skew: float = 0.1,
    temperature: float = 1.0,
    words: int = 8192,
    tokens: int = 4096,
) -> tuple[Tensor, Tensor]:
    """(N, width), (N, teacher's width) -> the sum over tokens (differentiable by `states` and the head's weight) and
    (N,) values without gradient. At most `tokens` x `words` logits exist at a time."""
    for part in (head, teacher_head):
        if part.softcap is not None:
            raise ValueError("a head with soft-capped logits cannot run by words; use blocks of tokens")
    if head.vocabulary != teacher_head.vocabulary:
        raise ValueError(f"vocabularies of {head.vocabulary} and {teacher_head.vocabulary} words")
    if torch.is_autocast_enabled(states.device.type):
        # Autocast is off inside, so that both passes compute the same; what it would do is done here.
        kind_of_number = torch.get_autocast_dtype(states.device.type)
        states, teacher_states = states.to(kind_of_number), teacher_states.to(kind_of_number)
    total, values = _ByWords.apply(  # type: ignore[no-untyped-call]
        states, head.weight, head, teacher_states.detach(), teacher_head, kind, skew, temperature, words, tokens
    )
    return total, values


def _blocks(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _logits(states: Tensor, head: Head, words: slice, temperature: float) -> Tensor:
    part = states @ head.weight[words].to(states.dtype).T
    if head.bias is not None:
        part = part + head.bias[words].to(states.dtype)
    return part.float() * (head.scale / temperature)


def _normaliser(states: Tensor, head: Head, words: int, temperature: float) -> Tensor:
    found = torch.full((len(states), 1), float("-inf"), device=states.device)
    for block in _blocks(head.vocabulary, words):
        part = torch.logsumexp(_logits(states, head, block, temperature), dim=-1, keepdim=True)
        found = torch.logaddexp(found, part)
    return found


class _ByWords(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        head: Head,
        teacher_states: Tensor,
        teacher_head: Head,
        kind: Kind,
        skew: float,
        temperature: float,
        words: int,
        tokens: int,
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        head = Head(weight, head.bias, head.vocabulary, head.scale)
        values = torch.zeros(len(states), device=states.device)
        of_states = torch.zeros_like(states, dtype=torch.float32) if wanted else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        # Autocast would turn float32 products into bfloat16 here and not in the backward pass.
        with torch.autocast(states.device.type, enabled=False):
            for rows in _blocks(len(states), tokens):
                s, t = states[rows], teacher_states[rows]
                norm_s, norm_t = (
                    _normaliser(s, head, words, temperature),
                    _normaliser(t, teacher_head, words, temperature),
                )
                total_slope = torch.zeros_like(norm_s)
                for block in _blocks(head.vocabulary, words):
                    log_q = (_logits(s, head, block, temperature) - norm_s).clamp_min(_FLOOR)
                    log_p = (_logits(t, teacher_head, block, temperature) - norm_t).clamp_min(_FLOOR)
                    values[rows] += terms(log_p, log_q, kind, skew).sum(-1)
                    if wanted:
                        total_slope += slopes(log_p, log_q, kind, skew).sum(-1, keepdim=True)
                if of_states is None or of_weight is None:
                    continue
                for block in _blocks(head.vocabulary, words):
                    log_q = (_logits(s, head, block, temperature) - norm_s).clamp_min(_FLOOR)
                    log_p = (_logits(t, teacher_head, block, temperature) - norm_t).clamp_min(_FLOOR)
                    of_logits = slopes(log_p, log_q, kind, skew) - log_q.exp() * total_slope
                    of_logits = (of_logits * (head.scale / temperature)).to(s.dtype)
                    of_states[rows] += (of_logits @ weight[block].to(s.dtype)).float()
                    of_weight[block] += (of_logits.T @ s).float()
        if of_states is not None and of_weight is not None:
            ctx.save_for_backward(of_states.to(states.dtype), of_weight.to(weight.dtype))
        ctx.mark_non_differentiable(values)
        return values.sum(), values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_weight = ctx.saved_tensors
        scale = gradients[0]
        return of_states * scale.to(of_states.dtype), of_weight * scale.to(of_weight.dtype), *([None] * 8)
