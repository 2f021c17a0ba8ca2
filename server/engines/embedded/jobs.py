"""What the HTTP side hands to the generation side, and what comes back. Plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to end. Names and meanings are vLLM's."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    """0: greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    include_stop: bool = False
    """Whether the text keeps the stop string or stop token that ended it."""
    skip_special_tokens: bool = True
    logprobs: int | None = None
    """How many of the likeliest tokens are told beside the chosen one; None: no log-probabilities at all."""


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    logprob: float | None = None
    """Natural log of the model's own probability: before temperature, penalties and bias, as vLLM reports it."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability), likeliest first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice of a job has gained since its last piece."""

    choice: int
    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop token's id or the stop string; None for the model's own end."""


@dataclass(eq=False, slots=True)
class Job:
    """One request: some choices, each with its prompt. Compared by identity."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids, one prompt per choice."""
    sampling: Sampling
    stream: bool
    """False: one piece per choice, at its end."""
    cancelled: bool = False
    """Set by the HTTP side when the client has gone; the generation side lets the choices go before its next step."""


Delivery = tuple[Job, "Piece | Exception"]
