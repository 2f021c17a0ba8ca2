"""The life of one request as a table: (phase, event) -> (next phase, command). It does nothing itself: `server` runs
the commands and reports what happened as events.

    BEGIN --Routed--> ADMITTING --Admitted--> TEACHER | STUDENT
    DRAFTING --Drafted--> DEFERRING --Judged--> ADMITTING_ESCALATION --Admitted--> TEACHER | deliver the draft
    a model that fails before its first byte reached the client hands over to the other one, inside the budget
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, assert_never

from policies.values import quickly_made
from router.budget import WhenExhausted
from router.record import Reason

Role = Literal["student", "teacher"]


class Phase(Enum):
    BEGIN = auto()
    ADMITTING = auto()  # the teacher was wanted before anything was generated
    STUDENT = auto()  # the student's answer goes out as it comes
    DRAFTING = auto()  # the student's answer is held back
    DEFERRING = auto()  # the policy reads the draft
    ADMITTING_ESCALATION = auto()  # the teacher was wanted after the draft
    TEACHER = auto()
    ADMITTING_RESCUE = auto()  # the student failed and the teacher is asked for
    DONE = auto()


# Events: what happened.


@quickly_made
@dataclass(frozen=True)
class Routed:
    """The first decision is made."""

    to: Role
    reason: Reason
    hold_draft: bool = False
    """The policy wants to see the draft."""
    forced: bool = False
    """By the client or by a rule: the student's failure is then not the teacher's business."""


@quickly_made
@dataclass(frozen=True)
class Admitted:
    granted: bool
    nobody: bool = False
    """The ledger was not asked, because no teacher can be relied on."""


@dataclass(frozen=True, slots=True)
class LedgerDown:
    pass


@dataclass(frozen=True, slots=True)
class Drafted:
    pass


@quickly_made
@dataclass(frozen=True)
class Judged:
    """The policy has read the draft."""

    escalate: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Answered:
    """The model in charge has begun to answer (its first byte is there, and good)."""

    reason: Reason | None = None
    """Where another teacher answers than the one that was chosen; None: the reason stands."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model in charge failed before its first good byte."""

    clients_fault: bool = False
    """The upstream blames the request itself."""


Event = Routed | Admitted | LedgerDown | Drafted | Judged | Answered | Failed

# Commands: what to do next.


@dataclass(frozen=True, slots=True)
class Admit:
    wants_teacher: bool


@dataclass(frozen=True, slots=True)
class Call:
    role: Role
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Judge:
    """Let the policy read the draft."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send what the role has, or goes on to say, to the client."""

    role: Role


@dataclass(frozen=True, slots=True)
class Reject:
    """Tell the client that the budget is out (`exhausted`), or pass on the failure of the model in charge."""

    exhausted: bool


Command = Admit | Call | Judge | Deliver | Reject

_ADMIT, _JUDGE = Admit(wants_teacher=True), Judge()
_DELIVER: dict[Role, Deliver] = {"student": Deliver("student"), "teacher": Deliver("teacher")}
_CALL_TEACHER, _CALL_STUDENT, _DRAFT = Call("teacher"), Call("student"), Call("student", hold=True)


@quickly_made
@dataclass(frozen=True)
class Session:
    """`reason` is what the client and the record will be told."""

    phase: Phase = Phase.BEGIN
    reason: Reason = Reason.POLICY_STUDENT
    wish: Reason = Reason.POLICY_TEACHER
    """The reason that holds if the ledger grants what is being asked."""
    when_exhausted: WhenExhausted = "student"
    has_teacher: bool = True
    forced: bool = False
    has_draft: bool = False


def _to(
    session: Session,
    phase: Phase,
    *,
    reason: Reason | None = None,
    wish: Reason | None = None,
    forced: bool | None = None,
    has_draft: bool | None = None,
) -> Session:
    """The session in its next phase. Written out because `dataclasses.replace` costs as much as the whole table."""
    return Session(
        phase,
        session.reason if reason is None else reason,
        session.wish if wish is None else wish,
        session.when_exhausted,
        session.has_teacher,
        session.forced if forced is None else forced,
        session.has_draft if has_draft is None else has_draft,
    )


def advance(session: Session, event: Event) -> tuple[Session, Command]:
    """The table. An event that cannot come in a phase is a fault of the caller (AssertionError)."""
    phase = session.phase
    match event:
        case Routed():
            assert phase is Phase.BEGIN
            return _routed(session, event)
        case Admitted():
            if event.nobody:
                return _stay(session, Reason.TEACHER_FAILED)
            return _admitted(session, event)
        case LedgerDown():
            return _stay(session, Reason.LEDGER_UNAVAILABLE)
        case Drafted():
            assert phase is Phase.DRAFTING
            return _to(session, Phase.DEFERRING, has_draft=True), _JUDGE
        case Judged():
            assert phase is Phase.DEFERRING
            if not event.escalate:
                return _to(session, Phase.DONE, reason=event.reason), _DELIVER["student"]
            return _to(session, Phase.ADMITTING_ESCALATION, wish=event.reason), _ADMIT
        case Answered():
            assert phase in (Phase.STUDENT, Phase.TEACHER)
            role: Role = "teacher" if phase is Phase.TEACHER else "student"
            return _to(session, Phase.DONE, reason=event.reason), _DELIVER[role]
        case Failed():
            return _failed(session, event)
        case _:
            assert_never(event)


def _routed(session: Session, event: Routed) -> tuple[Session, Command]:
    if event.to == "teacher":
        if not session.has_teacher:
            return _to(session, Phase.STUDENT, reason=Reason.NO_TEACHER), _CALL_STUDENT
        return _to(session, Phase.ADMITTING, wish=event.reason, forced=event.forced), _ADMIT
    hold = event.hold_draft and session.has_teacher
    phase = Phase.DRAFTING if hold else Phase.STUDENT
    return _to(session, phase, reason=event.reason, forced=event.forced), _DRAFT if hold else _CALL_STUDENT


def _admitted(session: Session, event: Admitted) -> tuple[Session, Command]:
    assert session.phase in (Phase.ADMITTING, Phase.ADMITTING_ESCALATION, Phase.ADMITTING_RESCUE)
    if event.granted:
        return _to(session, Phase.TEACHER, reason=session.wish), _CALL_TEACHER
    if session.phase is Phase.ADMITTING_RESCUE:
        # The client hears of the student's failure; that the budget could not save it is in the record.
        return _to(session, Phase.DONE, reason=Reason.BUDGET_EXHAUSTED), Reject(exhausted=False)
    if session.when_exhausted == "reject":
        return _to(session, Phase.DONE, reason=Reason.BUDGET_EXHAUSTED), Reject(exhausted=True)
    return _stay(session, Reason.BUDGET_EXHAUSTED)


def _failed(session: Session, event: Failed) -> tuple[Session, Command]:
    if session.phase is Phase.TEACHER:
        if session.reason is Reason.STUDENT_FAILED:  # both have failed now
            return _to(session, Phase.DONE), Reject(exhausted=False)
        if session.forced and event.clients_fault:
            return _to(session, Phase.DONE), Reject(exhausted=False)
        return _stay(session, Reason.TEACHER_FAILED)
    assert session.phase in (Phase.STUDENT, Phase.DRAFTING)
    tried_teacher = session.reason in (Reason.TEACHER_FAILED, Reason.LEDGER_UNAVAILABLE, Reason.BUDGET_EXHAUSTED)
    if event.clients_fault or session.forced or tried_teacher or not session.has_teacher:
        return _to(session, Phase.DONE), Reject(exhausted=False)
    return _to(session, Phase.ADMITTING_RESCUE, wish=Reason.STUDENT_FAILED), _ADMIT


def _stay(session: Session, reason: Reason) -> tuple[Session, Command]:
    """The teacher is out of reach: the student's draft if there is one, else the student."""
    if session.phase is Phase.ADMITTING_RESCUE:
        return _to(session, Phase.DONE, reason=reason), Reject(exhausted=False)
    if session.has_draft:
        return _to(session, Phase.DONE, reason=reason), _DELIVER["student"]
    return _to(session, Phase.STUDENT, reason=reason), _CALL_STUDENT
