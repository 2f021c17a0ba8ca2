"""What a policy may look at. Plain values: the gateway and the training programs build the same ones."""

from dataclasses import dataclass, field

from policies.action import Step
from policies.values import quickly_made


@quickly_made
@dataclass(frozen=True)
class Prompt:
    """The request as text.

    `text` is the whole conversation joined by newlines (what length and language are read from);
    `last_user` is the last user message, which for a single-turn request is the same.
    """

    text: str
    last_user: str
    turn: int = 1
    """How many user messages the conversation holds, from 1."""
    last_route: str | None = None
    """`student` or `teacher`: who answered the turn before, where that is known."""
    student_cached_tokens: int | None = None
    """How many tokens of this prompt the student is believed to hold in its prefix cache; None where unknown, as at the
    first turn."""
    teacher_cached_tokens: int | None = None
    """The same of the teacher; of several teachers it is not known."""


@quickly_made
@dataclass(frozen=True)
class Draft:
    """What the student has written so far."""

    text: str
    logprobs: tuple[float, ...] = ()
    """One natural-log probability per generated token; empty where the upstream gives none."""
    entropies: tuple[float, ...] = ()
    """In nats, from the top log-probabilities, one per token; empty where unknown."""
    finish_reason: str | None = None
    complete: bool = True
    """False where only the first tokens are known (a held-back stream)."""
    samples: tuple[str, ...] = ()
    """Short samples of the same student for the same prompt; empty where none were asked for or none came."""


@quickly_made
@dataclass(frozen=True)
class BudgetState:
    """What the budget allows at this moment."""

    share: float = 1.0
    """The share of requests, 0..1, that pacing aims at now; 1.0 where nothing limits."""
    left: float = 1.0
    """The fraction, 0..1, that is left in the tightest window."""


@quickly_made
@dataclass(frozen=True)
class Observation:
    """One look at one request at one step."""

    step: Step
    prompt: Prompt
    draft: Draft | None = None
    budget: BudgetState = field(default_factory=BudgetState)
