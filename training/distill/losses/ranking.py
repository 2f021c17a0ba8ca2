"""Ranking loss (RLKD, 2409.12545): the order of the likeliest words, as Spearman's correlation of soft ranks.

Per token U is the union of both top-k sets, never deduplicated across the batch: (N, 2k) ids with a mask that is false
where a word stands in it twice. Soft ranks are sums of pairwise sigmoids in float32 with a temperature that can be set:
sorting-based soft ranks give exactly zero gradient once neighbouring gaps exceed their strength.
"""

import torch
from torch import Tensor

# A word ruled out (minus infinity) is very improbable instead, so that differences stay numbers.
_FLOOR = -1e30


def union_of_top_k(teacher: Tensor, student: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(N, V), (N, V) -> ids (N, 2k) and a mask (N, 2k): the teacher's top k, then those of the student's not among
    them."""
    k = min(k, teacher.shape[-1])
    first, second = teacher.topk(k, dim=-1).indices, student.topk(k, dim=-1).indices
    new = ~(second[:, :, None] == first[:, None, :]).any(-1)
    return torch.cat([first, second], -1), torch.cat([torch.ones_like(new), new], -1)


def soft_ranks(values: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """(N, U) values, (N, U) mask -> (N, U) ranks from 1 (largest); what is masked out has rank 0 and moves nobody.

    R_i = 1 + sum_{j != i} sigmoid((x_j - x_i) / temperature)
    """
    values = values.float().masked_fill(~mask, 0.0)
    above = torch.sigmoid((values[:, None, :] - values[:, :, None]) / temperature)
    others = mask[:, None, :] & ~torch.eye(values.shape[1], dtype=torch.bool, device=values.device)
    return (1.0 + (above * others).sum(-1)) * mask


def spearman(left: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """(N, U) ranks on both sides -> (N,) correlation over what the mask shows; 1 where one side has no spread, since
    there is then no order to get wrong."""
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    a = (left - (left * mask).sum(-1, keepdim=True) / count) * mask
    b = (right - (right * mask).sum(-1, keepdim=True) / count) * mask
    spread = a.square().sum(-1) * b.square().sum(-1)
    flat = spread <= 1e-12
    found = (a * b).sum(-1) / spread.masked_fill(flat, 1.0).sqrt()
    return torch.where(flat, torch.ones_like(found), found)


def ranking_loss(
    teacher: Tensor,
    student: Tensor,
    k: int,
    temperature: float,
    *,
    on: str = "probability",
    shuffle: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Teacher's and student's logits or log-probabilities (N, V) -> (N,) 1 - Spearman, and (N,) |overlap of top-k sets|
    / k.

    p and q are renormalised over U, so logits do as well as log-probabilities. `shuffle`: (N, 2k) noise that reorders
    the teacher's values within each token: the control that must lose.
    """
    ids, mask = union_of_top_k(teacher.detach(), student.detach(), k)
    p, q = _restricted(teacher.detach(), ids, mask), _restricted(student, ids, mask)
    if on == "probability":
        p, q = p.exp(), q.exp()
    if shuffle is not None:
        # A permutation of the real members only; the others stay behind.
        order = shuffle[:, : mask.shape[1]].masked_fill(~mask, float("inf")).argsort(-1)
        behind = (~mask).to(torch.int8).argsort(stable=True, dim=-1)
        p = torch.zeros_like(p).scatter(-1, behind, p.gather(-1, order))
    loss = 1.0 - spearman(soft_ranks(p, mask, temperature), soft_ranks(q, mask, temperature), mask)
    size = min(k, teacher.shape[-1])
    overlap = (2 * size - mask.sum(-1)) / size
    return loss, overlap


def _restricted(values: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    some = values.gather(-1, ids).float().clamp_min(_FLOOR)
    return torch.log_softmax(some.masked_fill(~mask, float("-inf")), dim=-1).masked_fill(~mask, 0)


def order_agreement(teacher: Tensor, student: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(N, V), (N, V) -> (N,) CR@k: whether the top k come in the same order; (N,) MOR@k: |overlap| / k."""
    k = min(k, teacher.shape[-1])
    return agreement_of(teacher.topk(k, dim=-1).indices, student.topk(k, dim=-1).indices)


def agreement_of(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(N, k), (N, k) ids, likeliest first -> what `order_agreement` gives. The first j columns are the top j."""
    same = (first == second).all(-1).float()
    overlap = (first[:, :, None] == second[:, None, :]).any(-1).float().mean(-1)
    return same, overlap
