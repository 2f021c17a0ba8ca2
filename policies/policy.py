"""The contract every policy keeps: look at an observation, say how much the teacher is worth. It never decides alone;
pacing shifts the score and the ledger has the last word."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from policies.action import Step
from policies.observation import Observation
from policies.values import quickly_made

Signals = Literal["prompt", "draft"]


@dataclass(frozen=True, slots=True)
class TeacherScore:
    """What a policy that knows several teachers says of one of them."""

    name: str
    """As the policy was trained for it."""
    score: float
    """log pi(this teacher) - log pi(student), at the observation's budget share."""
    gain: float
    """Expected, in quality, over the student."""
    usd: float | None = None
    """Expected bill of a call; None where nothing was known about bills."""
    most_usd: float | None = None
    """Nearly all calls cost less."""


@quickly_made
@dataclass(frozen=True)
class Scores:
    """`score` is log pi(teacher) - log pi(student) at the observation's budget share: above 0 speaks for the teacher.

    `details` are named numbers worth showing to a person (expected gain, expected cost); they decide nothing.
    """

    score: float
    details: dict[str, float] = field(default_factory=dict)
    teachers: tuple[TeacherScore, ...] = ()
    """Of a policy that knows several: each, in the order of its manifest; `score` is the best one's then."""


@runtime_checkable
class Policy(Protocol):
    """See `policies.conformance.check_policy` for the kit that every implementation passes."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """A hash of weights and manifest, written into every decision record."""
        ...

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps at which this policy wants to be asked, in order. With DEFER among them, drafts are held back."""
        ...

    def score(self, observation: Observation) -> Scores:
        """Pure and quick (well under a millisecond); raises nothing for any text; never NaN."""
        ...


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy to which many requests cost less together than one by one; the gateway gives it those it has at once."""

    def score_batch(self, observations: Sequence[Observation]) -> list[Scores]:
        """One or more observations -> what `score` says of each, in order."""
        ...


@runtime_checkable
class NeedsWarming(Policy, Protocol):
    """A policy that loads part of what it needs only when it is about to serve."""

    def warm(self) -> None:
        """Raises ArtifactError where that cannot be had."""
        ...
