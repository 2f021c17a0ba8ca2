"""Divergences between two next-token distributions, per token.

p is the teacher, q the student, m = skew * p + (1 - skew) * q:

    forward       KL(p || q)                        Hinton et al. 2015 (1503.02531)
    reverse       KL(q || p)                        MiniLLM (2306.08543)
    js            b KL(p || m) + (1 - b) KL(q || m) GKD (2306.13649), b = skew
    skew          KL(p || a p + (1 - a) q)          DistiLLM (2402.03898), a = skew
    skew-reverse  KL(q || (1 - a) p + a q)          DistiLLM
    tvd           1/2 sum |p - q|
    adaptive      w KL(p || q) + (1 - w) KL(q || p) AKL (2404.02657), w = the teacher's head's part of the gap

`js` with b = 0.5 is the symmetric one. Everything is computed in float32 from log-probabilities; one that is minus
infinity on both sides adds nothing.
"""

import math
from typing import Any

import torch
from torch import Tensor

from training.distill.config import Kind

# exp of it is 0 in float32; keeps 0 * log 0 at 0 and gradients finite where a logit is minus infinity.
_FLOOR = -1e4
SEPARABLE = ("forward", "reverse", "js", "skew", "skew-reverse", "tvd")
"""Those that are a sum over the vocabulary of something that needs one word's two log-probabilities only."""


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(..., V) -> (..., V), float32."""
    logits = logits.float()
    found = torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
    # In place where nothing is learned: these passes over the vocabulary are what a divergence costs.
    return found.clamp_min(_FLOOR) if found.requires_grad else found.clamp_min_(_FLOOR)


def divergence(log_p: Tensor, log_q: Tensor, kind: Kind, skew: float = 0.1) -> Tensor:
    """(..., V) teacher's and student's log-probabilities -> (...,) divergence in nats (tvd: probability)."""
    if log_p.shape != log_q.shape:
        raise ValueError(f"log-probabilities of different shapes: {tuple(log_p.shape)} and {tuple(log_q.shape)}")
    if kind == "adaptive":
        return _adaptive(log_p, log_q)
    return terms(log_p, log_q, kind, skew).sum(-1)


def forward_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """(N, V) logits of both -> (N,) KL(teacher || student): what `divergence` gives for `forward`, in half of the
    passes over memory, which are what it costs. Differentiable in the student's."""
    found: Tensor = _Forward.apply(teacher, student, temperature)  # type: ignore[no-untyped-call]
    return found


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
        p = log_p.exp()
        value: Tensor = torch.linalg.vecdot(p, log_p.sub_(log_q))
        ctx.save_for_backward(p, log_q)
        ctx.temperature = temperature
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        p, log_q = ctx.saved_tensors
        # softmax of the student less that of the teacher.
        return None, log_q.exp().sub_(p).mul_(gradients[0][:, None] / ctx.temperature), None


def terms(log_p: Tensor, log_q: Tensor, kind: Kind, skew: float) -> Tensor:
    """(..., V) each word's part of a separable divergence; differentiable in both."""
    if kind == "forward":
        # The commonest one, and bound by memory: no pass over the vocabulary more than it needs.
        return log_p.exp() * (log_p - log_q)
    p, q = log_p.exp(), log_q.exp()
    if kind == "reverse":
        return q * (log_q - log_p)
    if kind == "tvd":
        return 0.5 * (p - q).abs()
    if kind == "js":
        log_m = mixture(log_p, log_q, skew)
        return skew * p * (log_p - log_m) + (1 - skew) * q * (log_q - log_m)
    if kind == "skew":
        return p * (log_p - mixture(log_p, log_q, skew))
    if kind == "skew-reverse":
        return q * (log_q - mixture(log_p, log_q, 1 - skew))
    raise ValueError(f"{kind} is no sum over the vocabulary")


def mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share * p + (1 - share) * q)."""
    if share <= 0.0:
        return log_q
    if share >= 1.0:
        return log_p
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def slopes(log_p: Tensor, log_q: Tensor, kind: Kind, skew: float) -> Tensor:
    """(..., V) derivative of `terms` by log_q, written out, for losses that make their gradient themselves."""
    p, q = log_p.exp(), log_q.exp()
    if kind == "forward":
        return -p
    if kind == "reverse":
        return q * (log_q - log_p + 1)
    if kind == "tvd":
        return 0.5 * torch.sign(q - p) * q
    if kind == "js":
        log_m = mixture(log_p, log_q, skew)
        of_m = (1 - skew) * (log_q - log_m).exp()
        return -skew * p * of_m + (1 - skew) * q * (log_q - log_m + 1 - of_m)
    if kind == "skew":
        return -p * (1 - skew) * (log_q - mixture(log_p, log_q, skew)).exp()
    if kind == "skew-reverse":
        log_m = mixture(log_p, log_q, 1 - skew)
        return q * (log_q - log_m + 1 - skew * (log_q - log_m).exp())
    raise ValueError(f"{kind} is no sum over the vocabulary")


def _adaptive(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Forward KL where the student misses the teacher's head (the likeliest words, half of its mass), reverse KL where
    it misses the tail; the weights carry no gradient."""
    with torch.no_grad():
        p, q = log_p.exp(), log_q.exp()
        sorted_p, order = p.sort(dim=-1, descending=True)
        head = sorted_p.cumsum(-1) - sorted_p < 0.5
        gap = (p - q).abs().gather(-1, order)
        at_head, whole = (gap * head).sum(-1), gap.sum(-1)
        # Two equal distributions have no gap to divide; any weight gives 0 then.
        weight = torch.where(whole > 0, at_head / whole.clamp_min(1e-12), torch.full_like(whole, 0.5))
    forward = terms(log_p, log_q, "forward", 0.0).sum(-1)
    reverse = terms(log_p, log_q, "reverse", 0.0).sum(-1)
    return weight * forward + (1 - weight) * reverse


def top_k_divergence(
    logits: Tensor, top_ids: Tensor, top_log_p: Tensor, kind: Kind, skew: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """Divergence where only the teacher's `k` largest log-probabilities are known, the tail being one bucket.

    logits (N, V) of the student, top_ids (N, k), top_log_p (N, k) at temperature 1 -> (N,). Merging words never makes
    a divergence larger, so this is a lower bound of the whole one, and 0 where the two agree. A temperature other
    than 1 sharpens or flattens the k + 1 buckets, not the words within the tail, which are not known.
    """
    log_q = torch.log_softmax(logits.float(), dim=-1)
    head = log_q.gather(-1, top_ids)
    # The rest by itself, not 1 - head: near 1 the subtraction would keep no digits.
    rest = torch.logsumexp(log_q.scatter(-1, top_ids, float("-inf")), dim=-1, keepdim=True)
    student = torch.cat([head, rest], dim=-1).clamp_min(_FLOOR)
    known = top_log_p.float()
    tail = torch.log((-torch.expm1(torch.logsumexp(known, dim=-1, keepdim=True).clamp_max(0.0))).clamp_min(1e-30))
    teacher = torch.cat([known, tail], dim=-1).clamp_min(_FLOOR)
    # The tail's 1e-30 and rounding leave a sum near 1; the buckets are made to sum to it.
    return divergence(log_probabilities(teacher, temperature), log_probabilities(student, temperature), kind, skew)


def known_divergence(logits: Tensor, normaliser: Tensor, top_ids: Tensor, top_log_p: Tensor) -> Tensor:
    """`top_k_divergence` of kind forward where log sum exp of the logits, `normaliser` (N,), is there already: one pass
    over the vocabulary less. The student's tail is what its k words leave to 1, at least 1e-5, below which that keeps
    no digits and weighs nothing."""
    assert normaliser.shape == logits.shape[:-1]
    log_q = logits.gather(-1, top_ids).float() - normaliser[:, None]
    rest = torch.log((-torch.expm1(torch.logsumexp(log_q, dim=-1, keepdim=True).clamp_max(0.0))).clamp_min(1e-5))
    student = torch.cat([log_q, rest], dim=-1)
    known = top_log_p.float()
    tail = torch.log((-torch.expm1(torch.logsumexp(known, dim=-1, keepdim=True).clamp_max(0.0))).clamp_min(1e-30))
    teacher = log_probabilities(torch.cat([known, tail], dim=-1).clamp_min(_FLOOR))
    return (teacher.exp() * (teacher - student)).sum(-1)
