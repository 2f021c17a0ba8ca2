"""Letting models write: batched sampling with a cache, the student alone or with the teacher looking on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.distill.config import WarmupConfig


class Decoder:
    """One model going through a batch of texts, token by token. Prefixes are padded on the left."""

    def __init__(self, model: Any, prefixes: Sequence[Sequence[int]], pad_id: int, vocabulary: int) -> None:
        self._model, self._vocabulary = model, vocabulary
        device = next(model.parameters()).device
        width = max(len(prefix) for prefix in prefixes)
        tokens = torch.full((len(prefixes), width), pad_id, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for index, prefix in enumerate(prefixes):
            tokens[index, width - len(prefix) :] = torch.tensor(prefix, dtype=torch.long)
            mask[index, width - len(prefix) :] = 1
        self._mask = mask.to(device)
        self._next = self._mask.sum(-1, keepdim=True)
        self._cache: Any = None
        positions = (self._mask.cumsum(-1) - 1).clamp_min(0)
        self.logits = self._run(tokens.to(device), positions)
        """(B, vocabulary) of the token to come, float32."""

    def _run(self, tokens: Tensor, positions: Tensor) -> Tensor:
        from training.distill.models import head_of

        with torch.no_grad():
            out = self._model.base_model(
                input_ids=tokens,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            )
            self._cache = out.past_key_values
            return head_of(self._model, self._vocabulary).logits(out.last_hidden_state[:, -1])

    def advance(self, tokens: Tensor) -> None:
        """(B,) the tokens that were written."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=-1)
        self.logits = self._run(tokens[:, None], self._next)
        self._next = self._next + 1

    def keep(self, rows: Tensor) -> None:
        """(n,) goes on with these rows alone."""
        self._cache.batch_select_indices(rows)
        self._mask, self._next, self.logits = self._mask[rows], self._next[rows], self.logits[rows]


def drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(B, V) -> (B,); temperature 0 takes the likeliest."""
    if temperature == 0.0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator).squeeze(-1)


def written(
    model: Any,
    prefixes: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    eos: int | None,
    pad_id: int,
    vocabulary: int,
    temperature: float,
    generator: torch.Generator,
) -> list[list[int]]:
    """What the model writes after each prefix, its end token included, at most `limits` tokens each."""
    answers: list[list[int]] = [[] for _ in prefixes]
    if not prefixes:
        return answers
    was = model.training
    model.eval()
    try:
        decoder = Decoder(model, prefixes, pad_id, vocabulary)
        open_rows = [limit > 0 for limit in limits]
        while any(open_rows):
            tokens = drawn(decoder.logits, temperature, generator)
            for index, token in enumerate(tokens.tolist()):
                if open_rows[index]:
                    answers[index].append(token)
                    open_rows[index] = token != eos and len(answers[index]) < limits[index]
            if any(open_rows):
                decoder.advance(tokens)
    finally:
        model.train(was)
    return answers


@dataclass(frozen=True, slots=True)
class Corrected:
    """`text` z; `first`: where the first correction is, None where nothing was corrected; `refused`: the student's own
    token there; `corrections`: how many in all; `judged`: how many of the student's tokens the teacher looked at."""

    text: list[int]
    first: int | None
    refused: int | None
    corrections: int
    judged: int


def corrected(
    student: Any,
    teacher: Any,
    prefixes: Sequence[Sequence[int]],
    config: WarmupConfig,
    *,
    limits: Sequence[int],
    eos: int | None,
    pad_id: int,
    vocabulary: int,
    generator: torch.Generator,
) -> list[Corrected]:
    """The student writes, the teacher replaces what it finds improbable (Warmup-Distill, 2502.11766)."""
    count = len(prefixes)
    texts: list[list[int]] = [[] for _ in range(count)]
    first: list[int | None] = [None] * count
    refused: list[int | None] = [None] * count
    corrections = [0] * count
    if not prefixes:
        return []
    was = student.training
    student.eval()
    try:
        ours = Decoder(student, prefixes, pad_id, vocabulary)
        theirs = Decoder(teacher, prefixes, pad_id, vocabulary)
        open_rows = [limit > 0 for limit in limits]
        while any(open_rows):
            own = drawn(ours.logits, config.temperature, generator)
            bad = improbable(theirs.logits, own, config)
            better = drawn(theirs.logits, 0.0 if config.replace == "greedy" else 1.0, generator)
            tokens = torch.where(bad, better, own)
            changed = (tokens != own).tolist()
            for index, token in enumerate(tokens.tolist()):
                if not open_rows[index]:
                    continue
                if changed[index]:
                    corrections[index] += 1
                    if first[index] is None:
                        first[index], refused[index] = len(texts[index]), int(own[index])
                texts[index].append(token)
                open_rows[index] = token != eos and len(texts[index]) < limits[index]
            if any(open_rows):
                ours.advance(tokens)
                theirs.advance(tokens)
    finally:
        student.train(was)
    return [Corrected(texts[i], first[i], refused[i], corrections[i], len(texts[i])) for i in range(count)]


def improbable(teacher_logits: Tensor, tokens: Tensor, config: WarmupConfig) -> Tensor:
    """(B, V), (B,) -> (B,) whether the teacher refuses the token: outside its top K, or below the threshold."""
    if config.threshold is not None:
        chance = torch.log_softmax(teacher_logits.float(), -1).gather(-1, tokens[:, None]).squeeze(-1)
        return chance < torch.log(torch.tensor(config.threshold))
    top = teacher_logits.topk(min(config.top_k, teacher_logits.shape[-1]), -1).indices
    return ~(top == tokens[:, None]).any(-1)
