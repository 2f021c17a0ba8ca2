"""What the two models hold of a conversation in their prefix caches, as a policy reads it.

A turn whose beginning a model has just worked on is quicker for that model, and with many APIs cheaper. An option of
training: a policy has these features where its outcome table has the columns `student_cached_tokens` and
`teacher_cached_tokens`; without them it is what it was. The same numbers are made from those columns and from what the
gateway remembers of a conversation.
"""

import math

import numpy as np

from policies.observation import Prompt
from policies.prompt_features import Floats

CACHE_FEATURES: tuple[str, ...] = tuple(
    name
    for side in ("student", "teacher")
    for name in (f"{side}_cached_known", f"log_{side}_cached_tokens", f"{side}_cached_part")
)
"""`_cached_known`: 0 where nothing is known, and then the others are 0 as well. `_cached_part`: of the prompt, at four
characters a token, at most 1."""

_CHARACTERS = 4.0
"""Of a token, roughly: no tokenizer is asked before a decision."""


def read_cached(prompt: Prompt) -> Floats:
    """(len(CACHE_FEATURES),), finite."""
    tokens_in_all = max(len(prompt.text) / _CHARACTERS, 1.0)
    values: list[float] = []
    for tokens in (prompt.student_cached_tokens, prompt.teacher_cached_tokens):
        if tokens is None:
            values += (0.0, 0.0, 0.0)
        else:
            values += (1.0, math.log1p(tokens), min(1.0, tokens / tokens_in_all))
    return np.array(values)
