"""What a text costs when the teacher runs only where it is asked: one sentence at a time, caches kept, processor time.

A help reads what the teacher has not seen yet in one pass, which also gives its word; a speculative pass reads the
draft in one. Both leave the cache for the next time.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.wheels.measuring import LIMIT, Bench
from training.distill.models import head_of
from training.distill.wheels.prompts import Example, restricted
from training.distill.wheels.restrictions import Restriction


class Reader:
    """One model with its cache; counts its passes."""

    def __init__(self, model: Any, vocabulary: int) -> None:
        self._model, self._head, self._cache = model, head_of(model, vocabulary), DynamicCache()
        self.seen = self.passes = 0

    def read(self, tokens: Sequence[int]) -> Tensor:
        """(n, V) logits after each token."""
        with torch.inference_mode():
            out = self._model.base_model(
                input_ids=torch.tensor([list(tokens)]), past_key_values=self._cache, use_cache=True
            )
            self.seen += len(tokens)
            self.passes += 1
            return self._head.logits(out.last_hidden_state[0])

    def forget(self, length: int) -> None:
        """Keeps the first `length` tokens."""
        if length < self.seen:
            # A negative number takes off the end.
            self._cache.crop(length - self.seen)
            self.seen = length


def alone(bench: Bench, one: Example, limit: int, which: str) -> tuple[list[int], int]:
    reader = Reader(bench.teacher if which == "teacher" else bench.student, bench.vocabulary)
    text: list[int] = []
    logits = reader.read(one.prompt)[-1]
    while len(text) < limit:
        text.append(int(logits.argmax()))
        if text[-1] == 1:
            break
        logits = reader.read(text[-1:])[-1]
    return text, reader.passes if which == "teacher" else 0


def with_help(
    bench: Bench, one: Example, limit: int, restriction: Restriction | None, offset: float
) -> tuple[list[int], int]:
    assert bench.help_id is not None
    ours, theirs = Reader(bench.student, bench.help_id + 1), Reader(bench.teacher, bench.vocabulary)
    text: list[int] = []
    logits = ours.read(restricted(one, restriction, bench.config, bench.tokenizer))[-1]
    while len(text) < limit:
        best, word = logits[: bench.vocabulary].max(-1)
        if float(logits[bench.help_id] + offset) > float(best):
            unread = [*one.prompt, *text][theirs.seen :]
            word = theirs.read(unread)[-1].argmax()
        text.append(int(word))
        if text[-1] == 1:
            break
        logits = ours.read(text[-1:])[-1]
    return text, theirs.passes


def speculative_text(bench: Bench, one: Example, limit: int, drafted: int) -> tuple[list[int], int]:
    """The teacher's own greedy text, drafted by the student."""
    ours, theirs = Reader(bench.student, bench.vocabulary), Reader(bench.teacher, bench.vocabulary)
    text: list[int] = []
    while len(text) < limit and (not text or text[-1] != 1):
        whole = [*one.prompt, *text]
        logits, draft = ours.read(whole[ours.seen :])[-1], []
        for place in range(drafted):
            draft.append(int(logits.argmax()))
            if draft[-1] == 1 or place == drafted - 1:
                break
            logits = ours.read(draft[-1:])[-1]
        unread = [*whole[theirs.seen :], *draft]
        words = theirs.read(unread)[-len(draft) - 1 :].argmax(-1).tolist()
        kept = next((i for i, word in enumerate(draft) if word != words[i]), len(draft))
        text += [*draft[:kept], words[kept]]
        if 1 in text:
            text = text[: text.index(1) + 1]
        text = text[:limit]
        # Neither cache may hold what was not kept; the last word is read with the next pass.
        for reader in (ours, theirs):
            reader.forget(min(reader.seen, len(one.prompt) + len(text) - 1))
    return text, theirs.passes


def timed(bench: Bench, count: int, offsets: dict[str, float], shares: Sequence[float]) -> list[dict[str, Any]]:
    """Milliseconds of processor time and teacher passes per token, for each way of writing."""
    from training.distill.wheels.restrictions import TRAINED

    ways: dict[str, Callable[[Example, int], tuple[list[int], int]]] = {
        "student": lambda one, limit: alone(bench, one, limit, "student"),
        "teacher": lambda one, limit: alone(bench, one, limit, "teacher"),
    }
    for drafted in (2, 4):
        ways[f"speculative, {drafted} drafted"] = lambda one, limit, n=drafted: speculative_text(bench, one, limit, n)  # type: ignore[misc]
    for share in shares:
        offset = offsets.get(f"{share:g}", 0.0)
        ways[f"wheels {share:.0%}"] = lambda one, limit, s=share, o=offset: with_help(  # type: ignore[misc]
            bench, one, limit, Restriction(s, TRAINED[0]), o
        )
    found = []
    for name, way in ways.items():
        way(bench.test[0], 4)
        tokens = passes = 0
        began, wall = time.process_time(), time.perf_counter()
        for one in bench.test[:count]:
            text, asked = way(one, max(1, min(LIMIT, bench.context - len(one.prompt))))
            tokens += len(text)
            passes += asked
        found.append(
            {
                "way": name, "cpu_ms_per_token": 1e3 * (time.process_time() - began) / tokens,
                "wall_ms_per_token": 1e3 * (time.perf_counter() - wall) / tokens, "passes": passes / tokens,
                "tokens": tokens,
            }
        )  # fmt: skip
    return found
