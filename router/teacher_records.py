"""What is written down where a gateway has several teachers. With one, records are as they are without this file."""

from dataclasses import dataclass, field

from policies.values import quickly_made
from router.record import DecisionRecord, StepRecord


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """What the policy said of one teacher."""

    score: float
    """log pi(this teacher) - log pi(student), before pacing."""
    gain: float
    """Expected, over the student."""
    usd: float | None
    """Expected bill of a call."""
    propensity: float | None
    """The probability with which it was asked; None for one that could not be asked just then."""


@quickly_made
@dataclass(frozen=True)
class TeachersStepRecord(StepRecord):
    """`propensity` is that of asking any teacher, or none."""

    teacher: str | None = None
    """Whom the policy wanted to ask; None: nobody."""
    teachers: dict[str, TeacherRecord] = field(default_factory=dict)
    """By the names that the policy knows them under. Empty where it knows one teacher."""


@quickly_made
@dataclass(frozen=True)
class TeachersDecisionRecord(DecisionRecord):
    teacher: str | None = None
    """Whom the gateway called last; None: nobody."""
    teachers_tried: tuple[str, ...] = ()
    """All that were asked for, in order: what refused or failed stands before the one that answered."""
