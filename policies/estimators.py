"""Quality estimators inside the observation: linear over hashed n-grams, linear over features, boosted trees; in numpy.

They are fitted in training (scikit-learn) and carried as plain arrays; a parity test holds both sides together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from policies.prompt_features import Floats, Ints

Arrays = dict[str, npt.NDArray[np.generic]]

_TRUE = np.array([True])
_MOST_LEAVES = 16
"""Of a tree that is read by bits."""
FEW = 64
"""Rows that are read by bits, and by both stages together (`policies.joint`); for more, the memory of all comparisons
at once costs more than it saves."""
_FIRST_LEFT = np.array([(~i & (i + 1)).bit_length() - 1 for i in range(1 << _MOST_LEAVES)], dtype=np.uint8)
"""Leaves ruled out, as bits -> the first that is not. As bytes, or the table would fall out of the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class NgramLinear:
    """Ridge regression over TF-IDF of hashed n-grams: `(1 + log count) * idf`, of length one."""

    idf: npt.NDArray[np.float32]
    """(NGRAMS,); 0 for n-grams that training saw too seldom."""
    weights: npt.NDArray[np.float32]
    """(NGRAMS, K)"""
    bias: Floats
    """(K,)"""

    def __call__(self, ngrams: Sequence[Ints]) -> Floats:
        """B texts of any number of indices -> (B, K)"""
        rows, outputs = len(ngrams), self.weights.shape[1]
        if rows == 1:
            return self._one(ngrams[0])
        indices = np.concatenate(ngrams)
        owners = np.repeat(np.arange(rows), [len(each) for each in ngrams])
        seen = self.idf.take(indices) > 0.0
        # Sorted, equal n-grams of a text stand side by side: each run is one n-gram with its count.
        ordered = np.sort(owners[seen] * len(self.idf) + indices[seen])
        if not len(ordered):
            return np.broadcast_to(self.bias, (rows, outputs))
        first = np.flatnonzero(np.concatenate([_TRUE, ordered[1:] != ordered[:-1], _TRUE]))
        owner, index = np.divmod(ordered.take(first[:-1]), len(self.idf))
        values = (1.0 + np.log(first[1:] - first[:-1])) * self.idf.take(index)
        weighted = values[:, None] * self.weights.take(index, axis=0)
        squares = np.bincount(owner, values * values, rows)
        sums = np.stack([np.bincount(owner, weighted[:, k], rows) for k in range(outputs)], axis=1)
        out: Floats = sums / np.sqrt(np.maximum(squares, 1e-300))[:, None] + self.bias
        return out

    def _one(self, indices: Ints) -> Floats:
        """The same of one text, (T,) -> (1, K), without the bookkeeping of whose n-gram is whose: a lone request would
        spend more on that than on the sums."""
        ordered = np.sort(indices[self.idf.take(indices) > 0.0])
        if not len(ordered):
            return self.bias[None, :]
        new = np.empty(len(ordered) + 1, np.bool_)
        new[0] = new[-1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=new[1:-1])
        first = np.flatnonzero(new)
        index = ordered.take(first[:-1])
        values = (1.0 + np.log(first[1:] - first[:-1])) * self.idf.take(index)
        sums: Floats = values @ self.weights.take(index, axis=0)
        return (sums / math.sqrt(max(values @ values, 1e-300)) + self.bias)[None, :]

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.idf": self.idf, f"{prefix}.weights": self.weights, f"{prefix}.bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(arrays[f"{prefix}.{name}"] for name in ("idf", "weights", "bias")))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class DenseLinear:
    """Ridge regression over standardised features, cut at 5 deviations."""

    mean: Floats
    """(F,)"""
    std: Floats
    weights: Floats
    """(F, K)"""
    bias: Floats
    """(K,)"""

    def __call__(self, features: Floats) -> Floats:
        """(..., F) -> (..., K)"""
        standard = np.minimum(np.maximum((features - self.mean) / self.std, -5.0), 5.0)
        out: Floats = standard @ self.weights + self.bias
        return out

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(arrays[f"{prefix}.{name}"] for name in cls.__slots__))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Forest:
    """Boosted regression trees of several targets.

    A leaf is its own child, so short trees wait for the deep ones where trees are walked. A few rows are read by bits
    instead, after QuickScorer (Lucchese et al., SIGIR 2015): every comparison is made at once, each that goes right
    rules out the leaves on its left, and the first leaf that is left over is the one a walk would end in.
    """

    feature: npt.NDArray[np.int32]
    """(N,) which feature a node compares."""
    threshold: Floats
    """(N,) to the left where feature <= threshold."""
    children: npt.NDArray[np.int32]
    """(2N,): left child of n at 2n, right at 2n+1."""
    value: Floats
    """(N,) what a leaf adds."""
    roots: npt.NDArray[np.int32]
    """(T,) in order of target."""
    starts: npt.NDArray[np.int32]
    """(K,) first tree of each target."""
    base: Floats
    """(K,) what is predicted before any tree."""
    depth: npt.NDArray[np.int32]
    """() steps from any root to the deepest leaf."""

    def __call__(self, features: Floats) -> Floats:
        """(B, F) -> (B, K)"""
        bits = self._bits if len(features) <= FEW else None
        if bits is None:
            return self._walk(features)
        right = features.take(bits.feature, axis=1) > bits.threshold
        ruled_out = np.bitwise_or.reduce(right * bits.ruled_out, axis=1)
        values = bits.value.take(_FIRST_LEFT.take(ruled_out) + bits.offset)
        out: Floats = np.add.reduceat(values, self.starts, axis=1) + self.base
        return out

    def _walk(self, features: Floats) -> Floats:
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(int(self.depth)):
            right = features[rows, self.feature[node]] > self.threshold[node]
            node = self.children[2 * node + right]
        out: Floats = np.add.reduceat(self.value[node], self.starts, axis=1) + self.base
        return out

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(arrays[f"{prefix}.{field.name}"] for field in fields(cls)))  # type: ignore[arg-type]

    @cached_property
    def _bits(self) -> "_Bits | None":
        """None where a tree has more leaves than bits."""
        trees = [self._tree(int(root)) for root in self.roots]
        if not trees or max(len(leaves) for _, leaves in trees) > _MOST_LEAVES:
            return None
        rows = max(1, *(len(nodes) for nodes, _ in trees))
        shape = (rows, len(trees))
        bits = _Bits(
            np.zeros(shape, np.intp),
            np.full(shape, np.inf),  # nothing is greater: a row that a tree does not fill rules nothing out
            np.zeros(shape, np.uint16),
            np.zeros(len(trees) * _MOST_LEAVES),
            np.arange(len(trees)) * _MOST_LEAVES,
        )
        for column, (nodes, leaves) in enumerate(trees):
            for row, (node, ruled_out) in enumerate(nodes):
                bits.feature[row, column] = self.feature[node]
                bits.threshold[row, column] = self.threshold[node]
                bits.ruled_out[row, column] = ruled_out
            first = column * _MOST_LEAVES
            bits.value[first : first + len(leaves)] = self.value[leaves]
        return bits

    def _tree(self, root: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Its comparisons, each with the leaves it rules out when it goes right, and its leaves from left to right."""
        nodes: list[tuple[int, int]] = []
        leaves: list[int] = []

        def visit(node: int) -> None:
            left, right = int(self.children[2 * node]), int(self.children[2 * node + 1])
            if left == node:
                leaves.append(node)
                return
            before = len(leaves)
            visit(left)
            nodes.append((node, (1 << len(leaves)) - (1 << before)))
            visit(right)

        visit(root)
        return nodes, leaves


@dataclass(frozen=True, slots=True, eq=False)
class _Bits:
    """A forest laid out for reading by bits: R comparisons a tree, T trees."""

    feature: npt.NDArray[np.intp]
    """(R, T)"""
    threshold: Floats
    """(R, T)"""
    ruled_out: npt.NDArray[np.uint16]
    """(R, T) leaves, as bits, that a comparison rules out where it goes right."""
    value: Floats
    """(T * 16,)"""
    offset: npt.NDArray[np.intp]
    """(T,) where a tree's leaves begin in `value`."""
