"""Texts and what the teacher says about each of their states: what path consistency learns from.

A text may be the data's, the teacher's, or the student's own with help; the action taken is no part of the loss, since
path consistency holds for every text and every action that it could have come from (see docs/distill/wheels.md).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.distill.batches import Batch

GO, ASK, INSIDE, NEITHER = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One text of T tokens. `prompt`: what the student read, restriction included; `level`: which restriction, None
    without one; `own` (T,): the student's likeliest word at each state when this was collected; `log_p`, `own_log_p`:
    the teacher's log-probability of the token and of `own`; `top_ids`, `top_log_p` (T, K): the teacher's likeliest
    words; `acted` (T,): GO, ASK (a help segment begins), INSIDE (of one), NEITHER; `ended`: the last token is the end;
    `served`: the student wrote it as it would when served."""

    number: int
    level: int | None
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    own: tuple[int, ...]
    acted: tuple[int, ...]
    log_p: Tensor
    own_log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor
    ended: bool
    served: bool
    source: str

    @property
    def asked_tokens(self) -> int:
        return sum(action in (ASK, INSIDE) for action in self.acted)


_TENSORS = ("log_p", "own_log_p", "top_ids", "top_log_p")
_PLAIN = ("number", "level", "prompt", "tokens", "own", "acted", "ended", "served", "source")


def save_trajectories(path: Path, found: Sequence[Trajectory]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    whole = {name: torch.cat([getattr(one, name) for one in found]) for name in _TENSORS}
    plain = [[getattr(one, name) for name in _PLAIN] for one in found]
    torch.save({"tensors": whole, "plain": plain}, beside)
    os.replace(beside, path)


def load_trajectories(path: Path) -> list[Trajectory]:
    raw = torch.load(path, weights_only=True)
    sizes = [len(plain[3]) for plain in raw["plain"]]
    parts = {name: torch.split(raw["tensors"][name], sizes) for name in _TENSORS}
    found = []
    for index, plain in enumerate(raw["plain"]):
        values: dict[str, Any] = dict(zip(_PLAIN, plain, strict=True))
        for name in ("prompt", "tokens", "own", "acted"):
            values[name] = tuple(values[name])
        values |= {name: parts[name][index] for name in _TENSORS}
        found.append(Trajectory(**values))
    return found


@dataclass(frozen=True, slots=True)
class WheelsBatch(Batch):
    """Rows of prompt, text, and behind the text a branch for every word that could have been written instead: one
    token that sees the text before it, so that one pass gives the value of both actions' next states.

    `states` (B, T + 1): columns of s_0..s_T; `after_own`, `after_best` (B, T): columns of the states after the
    student's and the teacher's likeliest word, -1 where that ends the text; `alive` (B, T); the rest as in Trajectory,
    (B, T) or (B, T, K); `price` (B,): the multiplier; `asks` (B,): whether asking is allowed."""

    branch: Tensor
    states: Tensor
    alive: Tensor
    length: Tensor
    ended: Tensor
    words: Tensor
    own: Tensor
    best: Tensor
    acted: Tensor
    log_p: Tensor
    own_log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor
    after_own: Tensor
    after_best: Tensor
    price: Tensor
    asks: Tensor
    on_policy: Tensor

    def to(self, device: torch.device) -> "WheelsBatch":
        names = [name for base in (Batch, WheelsBatch) for name in base.__slots__]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()}
        return WheelsBatch(**moved)

    def attention(self, implementation: str | None) -> Tensor:
        """(B, 1, W, W): text is causal; a branch sees the text up to where it leaves it, and itself."""
        width = self.tokens.shape[1]
        column = torch.arange(width, device=self.tokens.device)
        text = (self.owners > 0) & (self.branch < 0)
        # A text token sees up to itself, a branch up to the column it continues.
        last = torch.where(self.branch < 0, column[None, :], self.branch)
        seen = (column[None, None, :] <= last[:, :, None]) & text[:, None, :]
        seen = seen | torch.eye(width, dtype=torch.bool, device=seen.device)
        if implementation == "sdpa":
            return seen[:, None]
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def collate_trajectories(
    found: Sequence[Trajectory], prices: Sequence[float], *, pad_id: int, eos: int | None, branches: bool
) -> WheelsBatch:
    """`prices`: the multiplier of each row (0 without restriction)."""
    size, steps = len(found), max(len(one.tokens) for one in found)
    k = max(one.top_ids.shape[1] for one in found)
    rows: list[tuple[list[int], list[int], list[int]]] = []
    after_own = torch.full((size, steps), -1, dtype=torch.long)
    after_best = torch.full((size, steps), -1, dtype=torch.long)
    states = torch.zeros((size, steps + 1), dtype=torch.long)
    for b, one in enumerate(found):
        start, count = len(one.prompt), len(one.tokens)
        tokens = [*one.prompt, *one.tokens]
        positions, branch = list(range(len(tokens))), [-1] * len(tokens)
        states[b, : count + 1] = torch.arange(start - 1, start + count)
        best = one.top_ids[:, 0].tolist()
        for t in range(count):
            added: dict[int, int] = {one.tokens[t]: start + t}
            for word, after in ((one.own[t], after_own), (best[t], after_best)):
                if word == eos:
                    continue
                if word not in added and branches and one.level is not None:
                    added[word] = len(tokens)
                    tokens.append(word)
                    positions.append(start + t)
                    branch.append(start + t - 1)
                # Without branches the state after another word is not known; the text's own stands in.
                after[b, t] = added.get(word, start + t)
        rows.append((tokens, positions, branch))
    width = max(len(tokens) for tokens, _, _ in rows)

    def padded(which: int, fill: int) -> Tensor:
        return torch.tensor([[*row[which], *[fill] * (width - len(row[which]))] for row in rows])

    def along(values: Sequence[Any], fill: float, dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*v, *[fill] * (steps - len(v))] for v in values], dtype=dtype)

    def stacked(name: str, fill: float) -> Tensor:
        return torch.stack(
            [
                torch.nn.functional.pad(
                    getattr(one, name), (0, k - one.top_ids.shape[1], 0, steps - len(one.tokens)), value=fill
                )
                for one in found
            ]
        )

    length = torch.tensor([len(one.tokens) for one in found])
    alive = torch.arange(steps)[None, :] < length[:, None]
    owners = torch.tensor([[1] * len(row[0]) + [0] * (width - len(row[0])) for row in rows])
    top_ids = stacked("top_ids", 0).long()
    return WheelsBatch(
        tokens=padded(0, pad_id),
        positions=padded(1, 0),
        owners=owners,
        learn=torch.zeros_like(owners, dtype=torch.bool),
        packs=(),
        branch=padded(2, -1),
        states=states,
        alive=alive,
        length=length,
        ended=torch.tensor([one.ended for one in found]),
        words=along([one.tokens for one in found], 0, torch.long),
        own=along([one.own for one in found], -1, torch.long),
        best=torch.where(alive, top_ids[..., 0], -1),
        acted=along([one.acted for one in found], NEITHER, torch.long),
        log_p=along([one.log_p.tolist() for one in found], 0.0, torch.float32),
        own_log_p=along([one.own_log_p.tolist() for one in found], 0.0, torch.float32),
        top_ids=top_ids,
        top_log_p=stacked("top_log_p", -1e4).float(),
        after_own=after_own,
        after_best=after_best,
        price=torch.tensor(list(prices), dtype=torch.float32),
        asks=torch.tensor([one.level is not None for one in found]),
        on_policy=torch.tensor([one.source == "student" for one in found]),
    )
