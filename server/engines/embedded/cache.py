"""Keys and values of all running sequences, in one block of memory per layer.

Row r of the block belongs to sequence r and column c to its c-th token, so a sequence's tokens stand at its left edge
and nothing has to move when a longer one joins (the usual left padding would shift everybody). Rows 0..n-1 are the
running ones: whoever leaves is replaced by the last row. What stands right of a row's length is rubbish, always masked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_FIRST_COLUMNS = 128
_KEEP_BYTES = 64 << 20


class KeyValues:
    """`begin_join` or `begin_step`, then one `write` per layer. Arrays are (rows, heads, columns, head size)."""

    def __init__(self, layers: int, context: int) -> None:
        self.lengths: list[int] = []
        self._context = context
        self._keys: list[Array | None] = [None] * layers
        self._values: list[Array | None] = [None] * layers
        self._rows = 0
        self._columns = 0
        self._joining: slice | None = None
        self._known = 0
        """Columns of the joining sequence that need not be read."""
        self._row_numbers: NDArray[np.int64] = np.arange(0)
        self.positions: NDArray[np.int64] = np.arange(0)
        """(rows,) where this step's token goes, in `begin_step`."""
        self.width = 0
        """The columns that attention sees."""

    def begin_join(self, lengths: Sequence[int]) -> None:
        first = len(self.lengths)
        self.lengths += lengths
        self.width = max(lengths)
        self._reserve(len(self.lengths), self.width)
        self._joining = slice(first, len(self.lengths))
        self._known = 0

    def begin_join_after(self, length: int, known: Sequence[tuple[Array, Array]], columns: int) -> None:
        """One sequence of `length` tokens joins, of which the first `columns` have been read before: `known` holds, for
        each layer, keys and values of at least those, (heads, tokens, head size)."""
        self.begin_join([length])
        self._known = columns
        row = len(self.lengths) - 1
        for layer, (keys, values) in enumerate(known):
            for blocks, array in ((self._keys, keys), (self._values, values)):
                block = blocks[layer]
                if block is None:
                    block = blocks[layer] = self._block(array[None])
                block[row, :, :columns] = array[:, :columns]

    def copy(self, row: int) -> tuple[tuple[Array, Array], ...]:
        """Keys and values of one sequence, layer by layer: (heads, tokens, head size)."""
        length = self.lengths[row]
        return tuple(
            (keys[row, :, :length].copy(), values[row, :, :length].copy())
            for keys, values in zip(self._keys, self._values, strict=True)
            if keys is not None and values is not None
        )

    def begin_step(self) -> None:
        rows = len(self.lengths)
        self.width = max(self.lengths) + 1
        self._reserve(rows, self.width)
        self._joining = None
        self.positions = np.array(self.lengths)
        if len(self._row_numbers) != rows:
            self._row_numbers = np.arange(rows)
        self.lengths = [length + 1 for length in self.lengths]

    @property
    def seen(self) -> int:
        """How many columns were there before this pass."""
        return 0 if self._joining is not None else self.width - 1

    def write(self, layer: int, keys: Array, values: Array) -> tuple[Array, Array]:
        """`keys`, `values`: (rows, heads, new tokens, head size). Returns what this pass attends to."""
        all_keys, all_values = self._keys[layer], self._values[layer]
        if all_keys is None or all_values is None:
            all_keys = self._keys[layer] = self._block(keys)
            all_values = self._values[layer] = self._block(values)
        if self._joining is not None and self._known:
            row, end = self._joining, self._known + keys.shape[2]
            all_keys[row, :, self._known : end] = keys
            all_values[row, :, self._known : end] = values
            return all_keys[row, :, :end], all_values[row, :, :end]
        if self._joining is not None:  # nothing came before, so the new tokens are all there is to see
            all_keys[self._joining, :, : keys.shape[2]] = keys
            all_values[self._joining, :, : values.shape[2]] = values
            return keys, values
        rows = self._row_numbers
        all_keys[rows, :, self.positions] = keys[:, :, 0]
        all_values[rows, :, self.positions] = values[:, :, 0]
        return all_keys[: len(rows), :, : self.width], all_values[: len(rows), :, : self.width]

    def leave(self, row: int) -> None:
        length = self.lengths.pop()
        last = len(self.lengths)
        if row == last:
            return
        self.lengths[row] = length
        for block in (*self._keys, *self._values):
            if block is not None:
                block[row, :, :length] = block[last, :, :length]

    def clear(self) -> None:
        self.lengths = []
        if sum(block.nbytes for block in (*self._keys, *self._values) if block is not None) > _KEEP_BYTES:
            self._keys = [None] * len(self._keys)
            self._values = [None] * len(self._values)
            self._rows = self._columns = 0

    def _block(self, like: Array) -> Array:
        return np.zeros((self._rows, like.shape[1], self._columns, like.shape[3]), like.dtype)

    def _reserve(self, rows: int, columns: int) -> None:
        if rows <= self._rows and columns <= self._columns:
            return
        while self._rows < rows:
            self._rows = max(1, 2 * self._rows)
        while self._columns < columns:
            self._columns = min(max(_FIRST_COLUMNS, 2 * self._columns), max(self._context, columns))
        for blocks in (self._keys, self._values):
            for i, old in enumerate(blocks):
                if old is not None:
                    new = blocks[i] = self._block(old)
                    new[: old.shape[0], :, : old.shape[2]] = old
