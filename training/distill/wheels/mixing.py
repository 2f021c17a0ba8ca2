"""One text written by two models: the student, and wherever it asks, the teacher for the next k tokens.

Both models go over the whole text in lock-step, so that a batch needs no bookkeeping per row and every state has both
distributions; what was asked for is counted, and what that costs when the teacher runs only where it is asked is
measured elsewhere (benchmarks/wheels).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.distill.batches import collate
from training.distill.examples import Row
from training.distill.models import head_of, states
from training.distill.wheels.trajectories import ASK, GO, INSIDE
from training.distill.writing import Decoder, drawn


@dataclass(frozen=True, slots=True)
class Looks:
    """What there is to see at one state of each text that is not finished: logits (B, V) of both, `<help>`'s (B,)
    (None: the student has none), and which texts these are (B,)."""

    student: Tensor
    teacher: Tensor
    help_logit: Tensor | None
    rows: Tensor

    @property
    def score(self) -> Tensor:
        """(B,) how far `<help>` lies above the likeliest word; greedy decoding asks where it is above 0."""
        if self.help_logit is None:
            raise ValueError("the student has no help token")
        return self.help_logit - self.student.max(-1).values


Asker = Callable[[Looks], Tensor]
"""(B,) bool: which rows ask here."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A text with, for each token, who wrote it (`acted`), the student's likeliest word, the score of `<help>` (0
    without one) and, with `top_k`, the teacher's log-probabilities."""

    tokens: list[int]
    acted: list[int]
    own: list[int]
    ended: bool
    log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor
    score: Tensor

    @property
    def teacher_tokens(self) -> int:
        return sum(action in (ASK, INSIDE) for action in self.acted)

    @property
    def decisions(self) -> Tensor:
        """(T,) where the student could ask: everywhere but inside what the teacher goes on with."""
        return torch.tensor([action != INSIDE for action in self.acted], dtype=torch.bool, device=self.score.device)

    @property
    def regrets(self) -> Tensor:
        """Nats that each of the student's own words lies below the teacher's likeliest: what asking can save."""
        mine = torch.tensor([action == GO for action in self.acted], dtype=torch.bool, device=self.log_p.device)
        return (self.top_log_p[:, 0] - self.log_p)[mine]

    @property
    def segments(self) -> int:
        return sum(action == ASK for action in self.acted)


def mixed(
    student: Any,
    teacher: Any,
    prompts: Sequence[Sequence[int]],
    teacher_prompts: Sequence[Sequence[int]],
    ask: Asker,
    *,
    limits: Sequence[int],
    eos: int | None,
    pad_id: int,
    vocabulary: int,
    help_id: int | None,
    segment: int = 1,
    top_k: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[Mixed]:
    """Writes one text per prompt; the teacher is always greedy, the student at `temperature`."""
    count, longest = len(prompts), max(limits, default=0)
    if not count:
        return []
    if longest < 1:
        raise ValueError("no row has room for a token")
    was = student.training
    student.eval()
    words = vocabulary if help_id is None else max(vocabulary, help_id + 1)
    k = min(top_k, vocabulary)
    tokens, acted, own = (torch.zeros(count, longest, dtype=torch.long) for _ in range(3))
    log_p, score = torch.zeros(count, longest), torch.zeros(count, longest)
    top_ids, top_log_p = torch.zeros(count, longest, k, dtype=torch.long), torch.zeros(count, longest, k)
    lengths, ended = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
    most = torch.tensor(list(limits))
    inside = torch.zeros(count, dtype=torch.long)
    try:
        ours = Decoder(student, prompts, pad_id, words)
        theirs = Decoder(teacher, teacher_prompts, pad_id, vocabulary)
        rows = torch.arange(count)
        for step in range(longest):
            open_rows = (most[rows] > step) & ~ended[rows]
            if not open_rows.any():
                break
            # Finished texts leave the batch, now and then: moving a cache costs as well.
            if int(open_rows.sum()) <= 0.8 * len(rows):
                staying = open_rows.nonzero().squeeze(-1)
                rows = rows[staying]
                for decoder in (ours, theirs):
                    decoder.keep(staying.to(decoder.logits.device))
                open_rows = open_rows[staying]
            looks = Looks(
                ours.logits[:, :vocabulary], theirs.logits, None if help_id is None else ours.logits[:, help_id], rows
            )
            log_of = torch.log_softmax(looks.teacher, -1)
            top = log_of.topk(k, -1)
            mine = _word(looks.student, temperature, generator)
            begins = ask(looks).cpu() & (inside[rows] == 0)
            action = torch.where(inside[rows] > 0, INSIDE, torch.where(begins, ASK, GO))
            written = torch.where(action.to(mine.device) == GO, mine, top.indices[:, 0])
            inside[rows] = (torch.where(begins, segment, inside[rows]) - 1).clamp_min(0)
            at = rows[open_rows]
            now = open_rows.to(mine.device)
            tokens[at, step], own[at, step], acted[at, step] = written[now].cpu(), mine[now].cpu(), action[open_rows]
            log_p[at, step] = log_of.gather(-1, written[:, None]).squeeze(-1)[now].cpu()
            top_ids[at, step], top_log_p[at, step] = top.indices[now].cpu(), top.values[now].cpu()
            if help_id is not None:
                score[at, step] = looks.score[now].cpu()
            lengths[at] = step + 1
            if eos is not None:
                ended[at] = tokens[at, step] == eos
            if bool(((most[rows] > step + 1) & ~ended[rows]).any()):
                ours.advance(written)
                theirs.advance(written)
    finally:
        student.train(was)
    return [
        Mixed(
            tokens[i, :n].tolist(), acted[i, :n].tolist(), own[i, :n].tolist(), bool(ended[i]), log_p[i, :n],
            top_ids[i, :n], top_log_p[i, :n], score[i, :n],
        )
        for i, n in enumerate(lengths.tolist())
    ]  # fmt: skip


def looked_at(
    teacher: Any,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    vocabulary: int,
    top_k: int,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the teacher says of texts that are there: for each its log-probabilities (T,), and the likeliest words
    (T, K) with theirs, in one pass."""
    rows = [Row((*prompt, *text), len(prompt), 0) for prompt, text in zip(prompts, texts, strict=True)]
    batch = collate([(row,) for row in rows], pad_id).to(next(teacher.parameters()).device)
    with torch.no_grad():
        last = states(teacher, batch).last[:, :-1][batch.predicting()]
        log_p = torch.log_softmax(head_of(teacher, vocabulary).logits(last), -1)
    top = log_p.topk(min(top_k, vocabulary), -1)
    of_words = log_p.gather(-1, batch.targets()[:, None]).squeeze(-1)
    sizes = [len(text) for text in texts]
    parts = [torch.split(one.cpu(), sizes) for one in (of_words, top.indices, top.values)]
    return list(zip(*parts, strict=True))


def _word(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    return logits.argmax(-1) if temperature == 0.0 or generator is None else drawn(logits, temperature, generator)


# --- who asks --------------------------------------------------------------------------------------------------------


def never(looks: Looks) -> Tensor:
    return torch.zeros(len(looks.student), dtype=torch.bool, device=looks.student.device)


def always(looks: Looks) -> Tensor:
    return torch.ones(len(looks.student), dtype=torch.bool, device=looks.student.device)


def at_random(share: float, generator: torch.Generator) -> Asker:
    def ask(looks: Looks) -> Tensor:
        draw = torch.rand(len(looks.student), generator=generator, device=generator.device)
        return (draw < share).to(looks.student.device)

    return ask


def by_entropy(threshold: float) -> Asker:
    """Where the student's entropy is above `threshold` nats."""

    def ask(looks: Looks) -> Tensor:
        log_q = torch.log_softmax(looks.student, -1)
        return -(log_q.exp() * log_q).sum(-1) > threshold

    return ask


def by_largest_probability(threshold: float) -> Asker:
    """Where the student's likeliest word has less than `threshold`."""

    def ask(looks: Looks) -> Tensor:
        return torch.log_softmax(looks.student, -1).max(-1).values.exp() < threshold

    return ask


def by_disagreement(margin: float = 0.0) -> Asker:
    """Where the teacher would write another word, by more than `margin` nats: needs the teacher everywhere."""

    def ask(looks: Looks) -> Tensor:
        log_p = torch.log_softmax(looks.teacher, -1)
        own = log_p.gather(-1, looks.student.argmax(-1, keepdim=True)).squeeze(-1)
        return log_p.max(-1).values - own > margin

    return ask


def by_help(offset: float = 0.0) -> Asker:
    """As the student was trained to: `<help>` above every word. `offset` is added to its logit (a logit bias)."""

    def ask(looks: Looks) -> Tensor:
        return looks.score + offset > 0

    return ask


def explored(noise: Tensor, generator: torch.Generator) -> Asker:
    """`by_help` with logistic noise of scale `noise` (one for each text) on the score, so that both are tried."""

    def ask(looks: Looks) -> Tensor:
        draw = torch.rand(len(looks.student), generator=generator, device=generator.device)
        logistic = torch.logit(draw.clamp(1e-6, 1 - 1e-6)).to(looks.student.device)
        return looks.score + noise[looks.rows].to(looks.student.device) * logistic > 0

    return ask
