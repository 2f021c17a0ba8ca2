"""Several short samples of the student beside its draft: where they agree, the draft is more likely right.

Self-consistency (Wang et al. 2022, arXiv 2203.11171) read as a signal, not as a vote: the draft stays the answer. An
option of training, off unless asked for; the same numbers are made from the column `student_samples` of an outcome
table and from what the gateway asks the student for.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from policies.observation import Draft
from policies.prompt_features import Floats, PromptView, encode, shorten, to_number, tokenise

SAMPLE_FEATURES: tuple[str, ...] = (
    "samples_here",
    "log_samples",
    "samples_with_answer",
    "samples_agree_with_draft",
    "samples_agree_with_each_other",
    "samples_largest_share",
    "samples_kinds",
    "draft_is_most_frequent",
    "samples_share_words",
)
"""`samples_with_answer`: a number or a choice was found. Answers agree where they are equal as numbers, as choices, or
else as last lines. All are zero where no sample is known."""

TEMPERATURE = 0.8
"""At which samples are drawn, in training as in service; at zero they would all be the draft."""
TOKENS = 64
"""Of a sample, unless told otherwise."""
MOST = 16
_NOT_SAMPLED = frozenset((
    "stream", "stream_options", "logprobs", "top_logprobs", "prompt_logprobs", "n", "best_of", "seed", "echo",
    "temperature", "max_tokens", "max_completion_tokens", "min_tokens",
))  # fmt: skip
"""Fields of a request that its samples do not take over: with a seed they would all be the same."""

_LETTER = re.compile(r"[Aa]nswer(?:\s+is)?:?\s*\**\(?([A-P])\b(?![a-z'])|^\s*\(?([A-P])[).:]?\s*$", re.MULTILINE)
_MARK = re.compile(r"answer\s+is|answer:|####|final answer|\\boxed\{", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?[$£€]?[0-9][0-9,]*(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class SampleWish:
    """What a policy wants asked beside the draft."""

    count: int
    max_tokens: int = TOKENS

    def describe(self) -> dict[str, int]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """Raises ValueError for what makes no sense, TypeError for what is no wish."""
        wish = cls(**described)
        if not (1 <= wish.count <= MOST and wish.max_tokens >= 1):
            raise ValueError(f"{wish.count} samples of {wish.max_tokens} tokens; 1 to {MOST} of at least 1 are known")
        return wish


def final_answer(text: str, options: Mapping[str, str]) -> tuple[str, bool]:
    """What a text answers in the end, and whether that is a choice or a number rather than a last line."""
    if options:
        letters = [first or second for first, second in _LETTER.findall(text)]
        if letters:
            return letters[-1], True
    marks = list(_MARK.finditer(text))
    found = _NUMBER.findall(text[marks[-1].end() :])[:1] if marks else []
    found = found or _NUMBER.findall(text[-400:])[-1:]
    if found:
        sign = -1.0 if found[0].startswith("-") else 1.0
        return f"{sign * to_number(found[0].lstrip('-$£€')):.6g}", True
    lines = text.strip().lower().splitlines() or [""]
    return " ".join(lines[-1].split()).strip(" .!*")[:200], False


def ask_for(body: Mapping[str, Any], wish: SampleWish, count: int) -> dict[str, Any]:
    """The body that asks a student for `count` samples of what `body` asks of it (chat or plain completion)."""
    asked = {name: value for name, value in body.items() if name not in _NOT_SAMPLED}
    asked |= {"temperature": TEMPERATURE, "max_tokens": wish.max_tokens}
    return asked | ({"n": count} if count > 1 else {})


def texts_in(data: Mapping[str, Any]) -> list[str]:
    """The texts of an answer's choices; foreign shapes are passed over."""
    texts = []
    for choice in data.get("choices") or ():
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else choice.get("text") if message is None else None
        texts.append(text if isinstance(text, str) else "")
    return texts


def read_samples(draft: Draft, wish: SampleWish, view: PromptView) -> Floats:
    """(len(SAMPLE_FEATURES),); raises nothing for any text."""
    samples = [shorten(text) for text in draft.samples[: wish.count]]
    if not samples:
        return np.zeros(len(SAMPLE_FEATURES))
    options = view.options
    mine, _ = final_answer(shorten(draft.text), options)
    answers = [final_answer(text, options) for text in samples]
    # One that was cut before it said anything agrees with nobody.
    said = Counter(answer for answer, _ in answers if answer)
    count = len(samples)
    largest = max(said.values(), default=0)
    pairs = count * (count - 1)
    words = set(tokenise(encode(draft.text[:4000]).lower()))
    return np.array(
        [
            1.0,
            math.log1p(count),
            sum(certain for _, certain in answers) / count,
            said[mine] / count if mine else 0.0,
            sum(n * (n - 1) for n in said.values()) / pairs if pairs else 0.0,
            largest / count,
            (len(said) + count - said.total()) / count,
            float(bool(mine) and said[mine] == largest and largest > 0),
            sum(_overlap(words, text) for text in samples) / count,
        ]
    )


def _overlap(words: set[bytes], text: str) -> float:
    """Of two sets of words, the part of both that is common."""
    others = set(tokenise(encode(text[:4000]).lower()))
    return len(words & others) / max(len(words | others), 1)
