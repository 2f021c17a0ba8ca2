"""From rows to tensors. Which token is learned, who sees whom, and in which order rows come.

The order depends on the seed and the step alone, so that a run that was stopped goes on with the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.distill.examples import Row

Pack = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens`, `positions` (B, T) within each example, `owners` (B, T): which example of its row a token belongs to,
    counted from 1, 0 for padding; `learn` (B, T): whether a token is to be predicted. `packs`: the rows themselves."""

    tokens: Tensor
    positions: Tensor
    owners: Tensor
    learn: Tensor
    packs: tuple[tuple[Row, ...], ...]

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            tokens=self.tokens.to(device),
            positions=self.positions.to(device),
            owners=self.owners.to(device),
            learn=self.learn.to(device),
        )

    @property
    def is_packed(self) -> bool:
        return any(len(pack) > 1 for pack in self.packs)

    def predicting(self) -> Tensor:
        """(B, T - 1): the places whose next token is to be predicted; states[:, :-1][batch.predicting()] predict
        batch.targets()."""
        return self.learn[:, 1:]

    def targets(self) -> Tensor:
        """(N,) the tokens to be predicted, row by row."""
        return self.tokens[:, 1:][self.learn[:, 1:]]

    def attention(self, implementation: str | None) -> Tensor:
        """(B, T) for rows of one example; (B, 1, T, T) where several lie in a row and none may see another."""
        if not self.is_packed:
            return (self.owners > 0).long()
        same = (self.owners[:, :, None] == self.owners[:, None, :]) & (self.owners > 0)[:, None, :]
        seen = same & torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril()
        # A padded place sees itself: a row of the mask with nothing in it would be a softmax of nothing.
        seen = seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)
        if implementation == "sdpa":
            return seen[:, None]
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def collate(packs: Sequence[Pack], pad_id: int, padding: str = "right") -> Batch:
    """Rows of equal length; `padding` on the right or on the left gives the same loss."""
    width = max(sum(len(row.tokens) for row in pack) for pack in packs)
    size = (len(packs), width)
    tokens = torch.full(size, pad_id, dtype=torch.long)
    positions, owners = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
    learn = torch.zeros(size, dtype=torch.bool)
    for index, pack in enumerate(packs):
        place = width - sum(len(row.tokens) for row in pack) if padding == "left" else 0
        for owner, row in enumerate(pack, 1):
            stop = place + len(row.tokens)
            tokens[index, place:stop] = torch.tensor(row.tokens)
            positions[index, place:stop] = torch.arange(len(row.tokens))
            owners[index, place:stop] = owner
            # The very first token has nothing before it to be predicted from.
            learn[index, place + max(1, row.answer_from) : stop] = True
            place = stop
    return Batch(tokens, positions, owners, learn, tuple(tuple(pack) for pack in packs))


class Course:
    """Which rows come when: epoch after epoch, each in an order of its own. `by_length`: rows of about one length come
    together, so that little of a batch is padding."""

    def __init__(
        self,
        packs: Sequence[Pack],
        *,
        rows: int,
        accumulate: int,
        seed: int,
        pad_id: int,
        padding: str,
        by_length: bool = False,
    ) -> None:
        self.packs = list(packs)
        self._by_length = by_length
        self._rows, self._accumulate, self._seed = rows, accumulate, seed
        self._pad_id, self._padding = pad_id, padding
        self._epoch = -1
        self._order: list[int] = []

    def steps(self, epochs: float, world: int) -> int:
        """How many steps make so many epochs, at least one."""
        return max(1, round(epochs * len(self.packs) / (self._rows * self._accumulate * world)))

    def batch(self, step: int, micro: int, rank: int, world: int) -> Batch:
        """The rows of one micro-batch on one device. The same rows make a step however many devices share it."""
        per_step = self._rows * self._accumulate * world
        start = step * per_step + (micro * world + rank) * self._rows
        return collate([self.at(start + i) for i in range(self._rows)], self._pad_id, self._padding)

    def at(self, place: int) -> Pack:
        """The pack that comes at `place`, counted from the first of the first epoch."""
        epoch, index = divmod(place, len(self.packs))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.packs), generator=generator).tolist()
            self._order = self._grouped(order, generator) if self._by_length else order
            self._epoch = epoch
        return self.packs[self._order[index]]

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """`order` with the rows of each long stretch sorted by length, and its batches in an order by chance: sorting
        everything would show the same rows together in every epoch."""
        stretch = 64 * self._rows
        found: list[int] = []
        for start in range(0, len(order), stretch):
            some = sorted(order[start : start + stretch], key=lambda at: sum(len(row.tokens) for row in self.packs[at]))
            whole = len(some) // self._rows
            for batch in torch.randperm(whole, generator=generator).tolist():
                found += some[batch * self._rows : (batch + 1) * self._rows]
            # What makes no whole batch comes last, so that the batches before it keep their places.
            found += some[whole * self._rows :]
        return found
