"""What a teacher call will cost, expected from the prompt: linear in hashed n-grams and features, in the logarithm.

Where the outcome table says what prefix caches held, those features (`policies.cached`) stand behind the prompt's.

Fitted by `training.cost_model`; numpy only, so that it can be asked in service.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from policies.estimators import Arrays
from policies.prompt_features import Floats, Ints

CLIP = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """Expected cost in the unit it was fitted on: USD or tokens."""

    idf: npt.NDArray[np.float32]
    """(NGRAMS,); 0 for n-grams that training saw too seldom."""
    ngrams: npt.NDArray[np.float32]
    """(NGRAMS,) weights of n-grams, `(1 + log count) * idf` and of length one."""
    mean: Floats
    """(F,) of the dense features; they are standardised and cut at 5 deviations."""
    std: Floats
    dense: Floats
    """(F,)"""
    constants: Floats
    """(3,): the mean logarithm; mean over median, which exp() of a mean logarithm leaves out; `most`."""

    @property
    def most(self) -> float:
        """Nearly all calls cost less than this many times what was expected."""
        return float(self.constants[2])

    def expected(self, dense: Floats, ngrams: Sequence[Ints]) -> Floats:
        """Features (B, F) and n-grams of B prompts -> (B,), above zero."""
        middle, smear, _ = self.constants
        standard = np.minimum(np.maximum((dense - self.mean) / self.std, -CLIP), CLIP)
        logs = standard @ self.dense + middle + np.array([self._of_ngrams(each) for each in ngrams])
        out: Floats = np.exp(logs) * smear
        return out

    def _of_ngrams(self, ngrams: Ints) -> float:
        index, counts = np.unique(ngrams, return_counts=True)
        values = (1.0 + np.log(counts)) * self.idf[index]
        length = float(np.sqrt(values @ values))
        return 0.0 if length == 0.0 else float(values @ self.ngrams[index]) / length

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(arrays[f"{prefix}.{field.name}"] for field in fields(cls)))  # type: ignore[arg-type]
