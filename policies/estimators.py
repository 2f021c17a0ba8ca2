"""Quality estimators inside the observation: linear over hashed n-grams, linear over features, boosted trees; in numpy.

They are fitted in training (scikit-learn) and carried as plain arrays; a parity test holds both sides together.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from policies.prompt_features import Floats, Ints

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class NgramLinear:
    """Ridge regression over TF-IDF of hashed n-grams: `(1 + log count) * idf`, of length one."""

    idf: npt.NDArray[np.float32]
    """(NGRAMS,); 0 for n-grams that training saw too seldom."""
    weights: npt.NDArray[np.float32]
    """(NGRAMS, K)"""
    bias: Floats
    """(K,)"""

    def __call__(self, ngrams: Ints) -> Floats:
        """(any,) indices -> (K,)"""
        if not len(ngrams):
            return self.bias
        index, counts = np.unique(ngrams, return_counts=True)
        values = (1.0 + np.log(counts)) * self.idf.take(index)
        length = np.sqrt(values @ values)
        if length == 0.0:
            return self.bias
        out: Floats = (values / length) @ self.weights.take(index, axis=0) + self.bias
        return out

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


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Boosted regression trees of several targets, walked side by side: `depth` steps for all trees at once.

    A leaf is its own child, so short trees wait for the deep ones.
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
        """(F,) -> (K,)"""
        node = self.roots
        for _ in range(int(self.depth)):
            right = features.take(self.feature.take(node)) > self.threshold.take(node)
            node = self.children.take(2 * node + right)
        out: Floats = np.add.reduceat(self.value.take(node), self.starts) + self.base
        return out

    def batch(self, features: Floats) -> Floats:
        """(B, F) -> (B, K)"""
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        for _ in range(int(self.depth)):
            right = features[rows, self.feature[node]] > self.threshold[node]
            node = self.children[2 * node + right]
        out: Floats = np.add.reduceat(self.value[node], self.starts, axis=1) + self.base
        return out

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(arrays[f"{prefix}.{name}"] for name in cls.__slots__))  # type: ignore[arg-type]
