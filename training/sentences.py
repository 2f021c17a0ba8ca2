"""Fits what is kept of a sentence encoder: the directions in which the training prompts differ most."""

from collections.abc import Callable, Sequence

import numpy as np

from policies.prompt_features import Floats
from policies.sentences import Encoder, Sentences
from training.dataset import Bools


def read_all(encoder: Encoder, texts: Sequence[str], *, tick: Callable[[int], None] = lambda _: None) -> Floats:
    """(N,) last user messages -> (N, D)"""
    encoder.warm()
    rows = []
    for text in texts:
        rows.append(encoder.read([text])[0])
        tick(1)
    return np.stack(rows)


def fit_sentences(encoder: Encoder, vectors: Floats, train: Bools, size: int) -> Sentences:
    """Principal components of the training rows of `vectors` (N, D), `size` of them or as many as there are."""
    known = vectors[train]
    mean = known.mean(axis=0)
    centred = known - mean
    spread, axes = np.linalg.eigh(centred.T @ centred / max(len(known), 1))
    kept = np.flatnonzero(spread > 1e-10)[::-1][:size]
    axes, spread = axes[:, kept], spread[kept]
    # A component's sign is the solver's whim; the same data must give the same numbers.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(kept))] < 0, -1.0, 1.0)
    return Sentences(encoder, mean.round(10), (axes / np.sqrt(spread)).round(8))
