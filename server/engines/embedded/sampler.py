"""The model as the scheduler sees it, and the choice of the next token. Numpy only.

Each sequence has its own random numbers, one draw per token, so a seeded request gives the same text whatever runs
beside it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.jobs import Sampling, Token

Logits = NDArray[np.float32]


class Runner(Protocol):
    """A model with a batch of running sequences, the rows 0..n-1. Not thread-safe."""

    vocab_size: int
    context: int
    """The most tokens one sequence may hold."""

    def join(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Reads the prompts and appends them as new rows. Returns (prompts, vocabulary): what follows each."""
        ...

    def step(self, tokens: Sequence[int]) -> Logits:
        """Gives every row one more token. Returns (rows, vocabulary)."""
        ...

    def leave(self, row: int) -> None:
        """Removes a row; the last row takes its number."""
        ...

    def clear(self) -> None:
        """Removes all rows and lets go of large memory."""
        ...


class Chooser:
    """Chooses the tokens of one sequence."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], choice: int, ends: frozenset[int]) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(None if sampling.seed is None else sampling.seed + choice))
        self._ends = np.array(sorted(ends | sampling.stop_token_ids), dtype=np.int64)
        self._counts: Counter[int] = Counter()
        self._prompt = np.unique(np.array(prompt, dtype=np.int64)) if sampling.repetition_penalty != 1 else None
        self._bias_ids = np.array(list(sampling.logit_bias), dtype=np.int64)
        self._biases = np.array(list(sampling.logit_bias.values()), dtype=np.float32)
        self._penalised = (
            sampling.presence_penalty != 0 or sampling.frequency_penalty != 0 or sampling.repetition_penalty != 1
        )
        self._chosen = 0
        self.plain = sampling.temperature == 0 and not self._penalised and not len(self._bias_ids)
        """Whether the likeliest token is always the one."""

    def choose(self, row: Logits, likeliest: int) -> Token:
        """`row`: (vocabulary,), is left as it is. `likeliest`: its argmax, which the batch has computed already."""
        forced_on = self._chosen < self._sampling.min_tokens
        token = likeliest if self.plain and not forced_on else self._pick(row, forced_on)
        self._chosen += 1
        if self._penalised:
            self._counts[token] += 1
        return token_with_logprobs(row, token, self._sampling.logprobs)

    def _pick(self, row: Logits, forced_on: bool) -> int:
        row = row.copy()
        if len(self._bias_ids):
            row[self._bias_ids] += self._biases
        if self._penalised:
            self._penalise(row)
        if forced_on and len(self._ends):
            row[self._ends] = -np.inf
        if self._sampling.temperature == 0:
            return int(row.argmax())
        return self._draw(row)

    def _penalise(self, row: Logits) -> None:
        sampling = self._sampling
        seen = np.fromiter(self._counts, dtype=np.int64, count=len(self._counts))
        if self._prompt is not None:
            both = np.union1d(self._prompt, seen)
            scores = row[both]
            penalty = sampling.repetition_penalty
            row[both] = np.where(scores > 0, scores / penalty, scores * penalty)
        if len(seen):
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(seen))
            row[seen] -= sampling.frequency_penalty * counts + sampling.presence_penalty

    def _draw(self, row: Logits) -> int:
        sampling = self._sampling
        if 0 < sampling.top_k < len(row):
            row[row < np.partition(row, -sampling.top_k)[-sampling.top_k]] = -np.inf
        weights = np.exp((row - row.max()).astype(np.float64) / sampling.temperature)
        if sampling.min_p > 0:
            weights[weights < sampling.min_p * weights.max()] = 0
        if sampling.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            mass = np.cumsum(weights[order])
            # The smallest set that reaches top_p of the mass; always at least one token.
            kept = int(np.searchsorted(mass, sampling.top_p * mass[-1])) + 1
            weights[order[kept:]] = 0
        mass = np.cumsum(weights)
        at = int(np.searchsorted(mass, self._random.random() * mass[-1], side="right"))
        return min(at, len(row) - 1)


def token_with_logprobs(row: Logits, token: int, top: int | None) -> Token:
    if top is None:
        return Token(token)
    shifted = row - row.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    if top == 0:
        return Token(token, float(logprobs[token]))
    count = min(top, len(row))
    best = np.argpartition(logprobs, -count)[-count:]
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return Token(token, float(logprobs[token]), tuple((int(i), float(logprobs[i])) for i in best))
