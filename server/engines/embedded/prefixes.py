"""Keys and values of texts that were read before, for prompts that begin the same way.

An answer that two models write comes back to each of them again and again, a few tokens longer each time: without this,
every return would read the whole text anew. Off unless the engine is told how much memory it may take, because keeping
costs a copy at the end of each answer and most answers are never come back to.
"""

from collections.abc import Sequence
from typing import NamedTuple

from server.engines.embedded.cache import Array


class Kept(NamedTuple):
    tokens: tuple[int, ...]
    layers: tuple[tuple[Array, Array], ...]
    """Keys and values of each layer: (heads, tokens, head size)."""

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class Prefixes:
    """The texts used last, up to `most_bytes`. Not thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[Kept] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def longest(self, prompt: Sequence[int]) -> tuple[int, Kept | None]:
        """(how many tokens at the prompt's beginning are known, where they are kept). The last token never counts: what
        follows it is what is asked for."""
        best, found = 0, None
        for kept in self._kept:
            length = _common(kept.tokens, prompt)
            if length > best:
                best, found = length, kept
        best = min(best, len(prompt) - 1)
        if found is None or best <= 0:
            return 0, None
        self._kept.sort(key=lambda each: each is found)  # the others stay in their order
        return best, found

    def keep(self, kept: Kept) -> None:
        """Instead of those that are beginnings of it; the ones not used for longest make room."""
        for old in [old for old in self._kept if _common(old.tokens, kept.tokens) == len(old.tokens)]:
            self._drop(old)
        if kept.nbytes > self._most_bytes:
            return
        while self._bytes + kept.nbytes > self._most_bytes:
            self._drop(self._kept[0])
        self._kept.append(kept)
        self._bytes += kept.nbytes

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _drop(self, kept: Kept) -> None:
        # By identity: arrays do not compare.
        at = next(i for i, each in enumerate(self._kept) if each is kept)
        del self._kept[at]
        self._bytes -= kept.nbytes


def _common(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens at the beginning of both."""
    most = min(len(kept), len(prompt))
    if tuple(kept[:most]) == tuple(prompt[:most]):
        return most
    return next(i for i in range(most) if kept[i] != prompt[i])
