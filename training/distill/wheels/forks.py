"""Forks: what the teacher's word at one state brings the whole text.

The text up to a state where the two models differ is continued twice by the student alone, behind its own word and
behind the teacher's; what the teacher's word brings is how much more like the teacher's own text the second ends up.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.distill.wheels.mixing import Mixed
from training.distill.writing import written

LONGEST = 6


def likeness(text: str, of: str, beta: float = 2.0) -> float:
    """Character n-gram F-score of `text` against `of`, 0 to 1 (chrF, Popovic 2015): words and their order both count,
    and long words more than short ones."""
    text, of = "".join(text.split()), "".join(of.split())
    if text == of:
        return 1.0
    scores = []
    for n in range(1, LONGEST + 1):
        ours, theirs = (Counter(one[i : i + n] for i in range(len(one) - n + 1)) for one in (text, of))
        if not ours or not theirs:
            continue
        same = sum((ours & theirs).values())
        precision, recall = same / sum(ours.values()), same / sum(theirs.values())
        both = beta**2 * precision + recall
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return sum(scores) / len(scores) if scores else 0.0


@dataclass(frozen=True, slots=True)
class Fork:
    """`row`, `at`: which text, which state; `weight`: how many of the text's states it stands for."""

    row: int
    at: int
    weight: float


def chosen(texts: Sequence[Mixed], count: int, draw: random.Random) -> list[Fork]:
    """Up to `count` states of each text where the two models differ, by chance."""
    found = []
    for row, text in enumerate(texts):
        differ = [at for at, own in enumerate(text.own) if own != int(text.top_ids[at, 0])]
        some = draw.sample(differ, min(count, len(differ)))
        found += [Fork(row, at, len(differ) / len(some)) for at in some]
    return found


def worth(
    texts: Sequence[Mixed],
    prompts: Sequence[Sequence[int]],
    teachers: Sequence[Sequence[int]],
    forks: Sequence[Fork],
    student: Any,
    tokenizer: Any,
    *,
    limits: Sequence[int],
    eos: int | None,
    pad_id: int,
    vocabulary: int,
) -> list[tuple[Tensor, Tensor]]:
    """For each text (T,) what the teacher's word brings at each of its states, in likeness to the teacher's text, and
    (T,) how many states that stands for; weight 0 where it is not known."""
    found = [(torch.zeros(len(text.own)), torch.zeros(len(text.own))) for text in texts]
    both: list[list[int]] = []
    rows: list[int] = []
    for fork in forks:
        text = texts[fork.row]
        for word in (text.own[fork.at], int(text.top_ids[fork.at, 0])):
            both.append([*text.tokens[: fork.at], word])
            rows.append(fork.row)
    order = sorted(range(len(both)), key=lambda i: (len(prompts[rows[i]]) + len(both[i]), i))
    for start in range(0, len(order), 256):
        some = [i for i in order[start : start + 256] if both[i][-1] != eos]
        more = written(
            student, [[*prompts[rows[i]], *both[i]] for i in some],
            limits=[max(0, limits[rows[i]] - len(both[i])) for i in some], eos=eos, pad_id=pad_id,
            vocabulary=vocabulary, temperature=0.0, generator=torch.Generator(),
        )  # fmt: skip
        for i, tail in zip(some, more, strict=True):
            both[i] += tail
    said = [tokenizer.decode(one, skip_special_tokens=True) for one in both]
    for number, fork in enumerate(forks):
        of = tokenizer.decode(list(teachers[fork.row]), skip_special_tokens=True)
        gains, weights = found[fork.row]
        gains[fork.at] = likeness(said[2 * number + 1], of) - likeness(said[2 * number], of)
        weights[fork.at] = fork.weight
    return found
