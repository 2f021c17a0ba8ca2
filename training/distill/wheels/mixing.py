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

from training.distill.wheels.trajectories import ASK, GO, INSIDE, NEITHER
from training.distill.writing import Decoder, drawn


@dataclass(frozen=True, slots=True)
class Looks:
    """What there is to see at one state: logits (B, V) of both, `<help>`'s (B,) (None: the student has none), and the
    step."""

    student: Tensor
    teacher: Tensor
    help_logit: Tensor | None
    step: int

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
    """A text with, for each token, who wrote it (`acted`), the student's likeliest word and, with `top_k`, the
    teacher's log-probabilities."""

    tokens: list[int]
    acted: list[int]
    own: list[int]
    ended: bool
    log_p: Tensor
    own_log_p: Tensor
    top_ids: Tensor
    top_log_p: Tensor

    @property
    def teacher_tokens(self) -> int:
        return sum(action in (ASK, INSIDE) for action in self.acted)

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
    forced: Sequence[Sequence[int]] | None = None,
) -> list[Mixed]:
    """Writes one text per prompt; the teacher is always greedy, the student at `temperature`. `forced`: the texts are
    these, and what was done is GO or NEITHER."""
    count = len(prompts)
    if not count:
        return []
    was = student.training
    student.eval()
    rows = vocabulary if help_id is None else max(vocabulary, help_id + 1)
    kept: list[list[Tensor]] = [[], [], [], [], [], []]
    lengths, ended, inside = [0] * count, [False] * count, torch.zeros(count, dtype=torch.long)
    limits = list(limits) if forced is None else [len(text) for text in forced]
    open_rows = [limit > 0 for limit in limits]
    try:
        ours = Decoder(student, prompts, pad_id, rows)
        theirs = Decoder(teacher, teacher_prompts, pad_id, vocabulary)
        step = 0
        while any(open_rows):
            looks = Looks(
                ours.logits[:, :vocabulary],
                theirs.logits,
                None if help_id is None else ours.logits[:, help_id],
                step,
            )
            log_p = torch.log_softmax(looks.teacher, -1)
            top = log_p.topk(min(top_k, vocabulary), -1)
            own = _word(looks.student, temperature, generator)
            best = top.indices[:, 0]
            if forced is None:
                begins = ask(looks) & (inside == 0)
                acted = torch.where(inside > 0, INSIDE, torch.where(begins, ASK, GO))
                tokens = torch.where(acted == GO, own, best)
                inside = torch.where(begins, segment, inside)
                inside = (inside - 1).clamp_min(0)
            else:
                tokens = torch.tensor([text[step] if step < len(text) else pad_id for text in forced])
                tokens = tokens.to(own.device)
                acted = torch.where(tokens == own, GO, NEITHER)
            gathered = [log_p.gather(-1, word[:, None]).squeeze(-1) for word in (tokens, own)]
            for store, value in zip(
                kept, (tokens, acted, own, *gathered, torch.cat([top.indices.float(), top.values], -1)), strict=True
            ):
                store.append(value.cpu())
            for index, token in enumerate(tokens.tolist()):
                if open_rows[index]:
                    lengths[index] += 1
                    ended[index] = token == eos
                    open_rows[index] = not ended[index] and lengths[index] < limits[index]
            step += 1
            if any(open_rows):
                ours.advance(tokens)
                theirs.advance(tokens)
    finally:
        student.train(was)
    if not kept[0]:
        raise ValueError("no row has room for a token")
    tokens, acted, own, log_p, own_log_p, tops = (torch.stack(store, 1) for store in kept)
    half = tops.shape[-1] // 2
    return [
        Mixed(
            tokens[index, :length].tolist(),
            acted[index, :length].tolist(),
            own[index, :length].tolist(),
            ended[index],
            log_p[index, :length],
            own_log_p[index, :length],
            tops[index, :length, :half].long(),
            tops[index, :length, half:],
        )
        for index, length in enumerate(lengths)
    ]


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


def by_help(offset: Tensor | float = 0.0) -> Asker:
    """As the student was trained to: `<help>` above every word. `offset` is added to its logit (a logit bias)."""

    def ask(looks: Looks) -> Tensor:
        return looks.score + offset > 0

    return ask


def explored(noise: Tensor, generator: torch.Generator) -> Asker:
    """`by_help` with logistic noise of scale `noise` (B,) on the score, so that both actions are tried."""

    def ask(looks: Looks) -> Tensor:
        draw = torch.rand(len(looks.student), generator=generator, device=generator.device)
        logistic = torch.logit(draw.clamp(1e-6, 1 - 1e-6)).to(looks.student.device)
        return looks.score + noise.to(looks.student.device) * logistic > 0

    return ask
