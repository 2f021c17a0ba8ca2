"""Masked diffusion models: answers that are revealed in any order, a few places at each step.

    prompt MASK MASK MASK MASK   ->   prompt It MASK five MASK   ->   prompt It is five .

In which step a place is revealed is settled before the model runs, so its head runs at these only: by chance
(ancestral: MDLM, 2406.07524), or so that places of one step lie far apart and each step falls between those before it
(dilated: 2506.19037). What is told is the revealed beginning of an answer, so a stream grows by blocks; each token's
log-probability is that of the moment when it was revealed. Numpy only: the model itself lies behind `Denoiser`.
"""

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.jobs import Delivery, Token
from server.engines.embedded.sampler import Logits, token_with_logprobs
from server.engines.embedded.scheduler import Scheduler
from server.engines.embedded.sequence import Sequence

MARK = "masked_diffusion"
"""Under this name config.json says how the weights are to be read: mask_token_id, length, steps, order (ancestral where
it says none), and where there is one begin_token_id, which stands before every text and does not count."""
ORDERS = ("ancestral", "dilated")

Ids = NDArray[np.int64]


@runtime_checkable
class Denoiser(Protocol):
    """A model that reads texts with holes. Not thread-safe."""

    vocab_size: int
    context: int
    """The length of the texts that it was trained on; the most that one may hold."""
    mask_id: int
    steps: int
    """How many steps a text of that length was trained to take."""
    order: str
    """One of ORDERS."""

    def scores(self, texts: Many[Ids], places: Many[Ids]) -> list[Logits]:
        """For each text, its MASKs included, the (places, vocabulary) logits at its places, MASK's own -inf."""
        ...


def revealed_at(width: int, steps: int, order: str, random: np.random.Generator) -> Ids:
    """(width,): the step, from 0 on, in which each place is revealed; as training.distill.diffusion.sampler has it."""
    if order == "ancestral":
        return random.integers(steps, size=width)
    bits = max(1, (steps - 1).bit_length())
    backwards = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(steps)]
    turns = np.argsort(np.argsort(backwards))
    found: Ids = turns[(np.arange(width) + random.integers(steps)) % steps]
    return found


class Canvas:
    """One answer in the making."""

    def __init__(self, sequence: Sequence, model: Denoiser) -> None:
        width = sequence.most
        self.sequence = sequence
        self._begin = self._told = len(sequence.prompt)
        self.ids: Ids = np.full(self._begin + width, model.mask_id, dtype=np.int64)
        self.ids[: self._begin] = sequence.prompt
        self._tokens: dict[int, Token] = {}
        self._step = 0
        if model.order == "ancestral":
            # As many places in a step as in training.
            self._steps = max(1, math.ceil(model.steps * width / model.context))
        else:
            # Places of a step as far apart as in training, which is what tells how well they fit each other.
            self._steps = max(1, min(model.steps, width))
        seed = sequence.job.sampling.seed
        random = np.random.Generator(np.random.PCG64(None if seed is None else [seed, sequence.choice, 1]))
        self._at = revealed_at(width, self._steps, model.order, random)

    def places(self) -> Ids:
        """Which places this step reveals; there may be none."""
        found: Ids = self._begin + np.flatnonzero(self._at == self._step)
        self._step += 1
        return found

    def reveal(self, places: Ids, rows: Logits) -> None:
        """`rows` (places, vocabulary): logits. The last step takes the likeliest tokens, as in training's sampler."""
        sampling, chooser = self.sequence.job.sampling, self.sequence.chooser
        for place, row in zip(places.tolist(), rows, strict=True):
            if place - self._begin < sampling.min_tokens:
                row[list(self.sequence.ends)] = -np.inf
            likeliest = int(row.argmax())
            if self._step >= self._steps:
                token = token_with_logprobs(row, likeliest, sampling.logprobs)
            else:
                token = chooser.choose(row, likeliest)
            self.ids[place] = token.id
            self._tokens[place] = token

    def tell(self, deliveries: list[Delivery]) -> None:
        """Hands on what is now revealed without a gap."""
        while self._told in self._tokens and self.sequence.finish_reason is None:
            piece = self.sequence.accept(self._tokens.pop(self._told))
            self._told += 1
            if piece is not None:
                deliveries.append((self.sequence.job, piece))


class MaskedScheduler(Scheduler):
    """The same thread, queue and events as its parent's; a turn is one step of every canvas, and each canvas counts its
    own steps, so answers join and leave at any time."""

    def __init__(
        self,
        model: Denoiser,
        decode: Callable[[Many[int], bool], str],
        eos: frozenset[int],
        deliver: Callable[[list[Delivery]], None],
        max_batch: int = 16,
        max_waiting: int = 1024,
    ) -> None:
        super().__init__(_NoRows(model), decode, eos, deliver, max_batch, max_waiting)
        self._model = model
        self._canvases: dict[Sequence, Canvas] = {}

    def _turn(self) -> None:
        self._drop_cancelled()
        joining = self._take_joining()
        self._running += joining
        self._canvases = {
            sequence: self._canvases.get(sequence) or Canvas(sequence, self._model) for sequence in self._running
        }
        chosen = [(canvas, canvas.places()) for canvas in self._canvases.values()]
        chosen = [(canvas, places) for canvas, places in chosen if len(places)]
        if not chosen:
            return
        deliveries: list[Delivery] = []
        texts, places = [canvas.ids for canvas, _ in chosen], [some for _, some in chosen]
        found = self._timed(lambda: self._model.scores(texts, places))
        for (canvas, some), rows in zip(chosen, found, strict=True):
            canvas.reveal(some, rows)
            canvas.tell(deliveries)
        for row in range(len(self._running) - 1, -1, -1):
            if self._running[row].finish_reason is not None:
                self._remove(row)
        if deliveries:
            self._deliver(deliveries)


class _NoRows:
    """What the parent asks of a runner: sizes. There is no cache whose rows could be joined or left."""

    def __init__(self, model: Denoiser) -> None:
        self.vocab_size, self.context = model.vocab_size, model.context

    def join(self, prompts: Many[Many[int]]) -> Logits:
        raise NotImplementedError

    def step(self, tokens: Many[int]) -> Logits:
        raise NotImplementedError

    def leave(self, row: int) -> None:
        pass

    def clear(self) -> None:
        pass
