"""Texts and what the teacher says about each of their states: what path consistency learns from.

A text may be the data's, the teacher's, or the student's own with help; the action taken is no part of the loss, since
path consistency holds for every text and every action that it could have come from
(docs/distill/wheels-objective.md).
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
    without one; `log_p` (T,): the teacher's log-probability of the token; `top_ids`, `top_log_p` (T, K): the teacher's
    likeliest words; `acted` (T,): GO, ASK (a help segment begins), INSIDE (of one), NEITHER (not by the student);
    `ended`: the last token is the end; `served`: the student wrote it as it would when served; `worth`, `weight` (T,):
    what the teacher's word brings the whole text, and how many states that stands for (0: not known); None without
    forks."""

    number: int
    level: int | None
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    acted: tuple[int, ...]
    log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor
    ended: bool
    served: bool
    source: str
    worth: Tensor | None = None
    weight: Tensor | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def asked_tokens(self) -> int:
        return sum(action in (ASK, INSIDE) for action in self.acted)


_TENSORS = ("log_p", "top_ids", "top_log_p")
_PLAIN = ("number", "level", "prompt", "tokens", "acted", "ended", "served", "source")


def save_trajectories(path: Path, found: Sequence[Trajectory]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    none = torch.zeros(0)
    whole = {name: torch.cat([getattr(one, name) for one in found]) if found else torch.zeros(0) for name in _TENSORS}
    plain = [[getattr(one, name) for name in _PLAIN] for one in found]
    forked = [[none, none] if one.worth is None else [one.worth, one.weight] for one in found]
    torch.save({"tensors": whole, "plain": plain, "forked": forked}, beside)
    os.replace(beside, path)


def load_trajectories(path: Path) -> list[Trajectory]:
    raw = torch.load(path, weights_only=True)
    sizes = [len(plain[3]) for plain in raw["plain"]]
    parts = {name: torch.split(raw["tensors"][name], sizes) for name in _TENSORS}
    found = []
    for index, plain in enumerate(raw["plain"]):
        values: dict[str, Any] = dict(zip(_PLAIN, plain, strict=True))
        for name in ("prompt", "tokens", "acted"):
            values[name] = tuple(values[name])
        values |= {name: parts[name][index] for name in _TENSORS}
        if len(raw["forked"][index][0]):
            values["worth"], values["weight"] = raw["forked"][index]
        found.append(Trajectory(**values))
    return found


@dataclass(frozen=True, slots=True)
class WheelsBatch(Batch):
    """Rows of prompt and text. `states` (B, T + 1): columns of s_0..s_T; `alive` (B, T); the rest as in Trajectory,
    (B, T) or (B, T, K); `price` (B,): the multiplier; `share` (B,): how much may be asked for; `asks` (B,): whether any
    may."""

    states: Tensor
    alive: Tensor
    length: Tensor
    ended: Tensor
    words: Tensor
    best: Tensor
    acted: Tensor
    log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor
    price: Tensor
    share: Tensor
    asks: Tensor
    on_policy: Tensor
    worth: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> "WheelsBatch":
        names = [name for base in (Batch, WheelsBatch) for name in base.__slots__]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()}
        return WheelsBatch(**moved)


def collate_trajectories(
    found: Sequence[Trajectory], prices: Sequence[float], *, pad_id: int, levels: Sequence[float] = ()
) -> WheelsBatch:
    """`prices`: the multiplier of each row (0 without restriction); `levels`: what a row's level means."""
    steps = max(len(one.tokens) for one in found)
    width = max(one.length for one in found)
    k = max(one.top_ids.shape[1] for one in found)

    def along(values: Sequence[Sequence[int]], fill: int, size: int) -> Tensor:
        return torch.tensor([[*v, *[fill] * (size - len(v))] for v in values], dtype=torch.long)

    def stacked(name: str, fill: float) -> Tensor:
        parts = [torch.zeros(len(one.tokens)) if getattr(one, name) is None else getattr(one, name) for one in found]
        whole: Tensor = parts[0].new_full((len(found), steps, *((k,) if parts[0].ndim > 1 else ())), fill)
        for row, part in zip(whole, parts, strict=True):
            row[tuple(slice(n) for n in part.shape)] = part
        return whole

    length = torch.tensor([len(one.tokens) for one in found])
    start = torch.tensor([len(one.prompt) for one in found])
    alive = torch.arange(steps)[None, :] < length[:, None]
    column = torch.arange(steps + 1)[None, :]
    positions = torch.arange(width)[None, :].expand(len(found), width).contiguous()
    owners = (positions < (start + length)[:, None]).long()
    top_ids = stacked("top_ids", 0).long()
    return WheelsBatch(
        tokens=along([(*one.prompt, *one.tokens) for one in found], pad_id, width),
        positions=positions * owners,
        owners=owners,
        learn=torch.zeros_like(owners, dtype=torch.bool),
        packs=(),
        states=torch.where(column <= length[:, None], start[:, None] - 1 + column, 0),
        alive=alive,
        length=length,
        ended=torch.tensor([one.ended for one in found]),
        words=along([one.tokens for one in found], 0, steps),
        best=torch.where(alive, top_ids[..., 0], -1),
        acted=along([one.acted for one in found], NEITHER, steps),
        log_p=stacked("log_p", 0.0).float(),
        top_ids=top_ids,
        top_log_p=stacked("top_log_p", -1e4).float(),
        price=torch.tensor(list(prices), dtype=torch.float32),
        share=torch.tensor([1.0 if one.level is None or not levels else levels[one.level] for one in found]),
        asks=torch.tensor([one.level is not None for one in found]),
        on_policy=torch.tensor([one.source == "student" for one in found]),
        worth=stacked("worth", 0.0).float(),
        weight=stacked("weight", 0.0).float(),
    )
