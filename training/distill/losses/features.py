"""Feature alignment: hidden states by direction and norm.

    nd        1 - <s, e> / max(|s|, |t|), e the unit direction of t      ND loss (2305.17007), as used in 2504.13825
    cos       1 - cos(s, t)
    cos-norm  cos + weight * (log|s| - log|t|)^2
    mse       mean (s - t)^2                                            TinyBERT (1909.10351)

States are taken before the final norm: behind it, norms are set by its gain.
"""

import torch
from torch import Tensor

from training.distill.config import Alignment

_TINY = 1e-6


def alignment(
    student: Tensor, teacher: Tensor, kind: Alignment, direction: Tensor | None = None, log_norm: float = 1.0
) -> Tensor:
    """(N, d) projected student states, (N, d) teacher states -> (N,). `direction` (N, d), where another one than the
    teacher's own state is to be followed (a class mean, a row of the output embedding); its length does not count."""
    if student.shape != teacher.shape:
        raise ValueError(f"states of different shapes: {tuple(student.shape)} and {tuple(teacher.shape)}")
    s, t = student.float(), teacher.float()
    aim = t if direction is None else direction.float()
    unit = aim / torch.linalg.vector_norm(aim, dim=-1, keepdim=True).clamp_min(_TINY)
    size_s, size_t = torch.linalg.vector_norm(s, dim=-1), torch.linalg.vector_norm(t, dim=-1)
    along: Tensor = (s * unit).sum(-1)
    if kind == "nd":
        return 1.0 - along / torch.maximum(size_s, size_t).clamp_min(_TINY)
    if kind == "mse":
        apart_squared: Tensor = (s - t).square().mean(-1)
        return apart_squared
    apart: Tensor = 1.0 - along / size_s.clamp_min(_TINY)
    if kind == "cos":
        return apart
    gap: Tensor = size_s.clamp_min(_TINY).log() - size_t.clamp_min(_TINY).log()
    return apart + log_norm * gap.square()


def linear_cka(left: Tensor, right: Tensor) -> Tensor:
    """(N, d), (N, e) states of the same tokens -> () linear centred kernel alignment (Kornblith et al. 2019,
    1905.00414): 1 where one is a rotation and scaling of the other."""
    a, b = left.double(), right.double()
    a, b = a - a.mean(0), b - b.mean(0)
    cross: Tensor = (a.T @ b).square().sum()
    own: Tensor = torch.linalg.matrix_norm(a.T @ a) * torch.linalg.matrix_norm(b.T @ b)
    return cross / own.clamp_min(1e-30)


def directions(states: Tensor) -> Tensor:
    """(N, d) -> (N, d) from the mean state, all of length one. CKA of states as they are is ruled by the few tokens
    whose states are several times as long as all others (the first of a sentence, its full stop)."""
    return torch.nn.functional.normalize(states - states.mean(0), dim=-1)


def centred_cosine(left: Tensor, right: Tensor) -> Tensor:
    """(N, d), (N, d) -> () mean cosine after each side's mean state is taken off, so that a direction shared by all
    tokens does not count as likeness."""
    a, b = left.double() - left.double().mean(0), right.double() - right.double().mean(0)
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).mean()
