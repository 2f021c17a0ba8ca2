from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

MADE_FROM: str
MADE_FOR: tuple[int, ...]
LINES: int
ANSWER: int
CHOICES: int
HEDGED: int
REFUSED: int

class Reader:
    def __init__(self, classes: Sequence[bytes], words: Mapping[bytes, Sequence[int]]) -> None: ...
    def prompt(
        self, raw: bytes, question: bool, rest: tuple[float, float, float, float]
    ) -> tuple[_Floats, _Ints, tuple[float, ...]]: ...
    def draft(
        self,
        raw: bytes,
        logprobs: Sequence[float],
        ended: tuple[bool, bool, bool],
        ascii: bool,
        prompt_characters: int,
        asked: int,
    ) -> tuple[_Floats, _Ints, int]: ...

class Stage:
    inputs: int
    outputs: int
    ngram_outputs: int
    def __init__(self, ngrams: object, linear: object, forest: object) -> None: ...

class Forward:
    def __init__(self, prompt: Stage, draft: Stage | None, net: object) -> None: ...
    def __call__(
        self,
        prompt: _Floats,
        prompt_ngrams: _Ints,
        draft: _Floats,
        draft_ngrams: _Ints,
        log_share: float,
        price: float,
    ) -> tuple[list[float], list[float], float]: ...
