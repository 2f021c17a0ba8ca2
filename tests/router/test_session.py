"""The life of a request, driven by hand and by Hypothesis."""

from hypothesis import given
from hypothesis import strategies as st

from router.record import Reason
from router.session import (
    Admit,
    Admitted,
    Answered,
    Call,
    Deliver,
    Drafted,
    Event,
    Failed,
    Judge,
    Judged,
    LedgerDown,
    Phase,
    Reject,
    Routed,
    Session,
    advance,
)


def drive(session: Session, *events: Event) -> tuple[Session, list[object]]:
    commands: list[object] = []
    for event in events:
        session, command = advance(session, event)
        commands.append(command)
    return session, commands


def test_a_kept_draft_reaches_the_client_without_the_ledger_reserving_anything() -> None:
    session, commands = drive(
        Session(),
        Routed("student", Reason.POLICY_STUDENT, hold_draft=True),
        Drafted(),
        Judged(False, Reason.POLICY_KEEP),
    )
    assert commands == [Call("student", hold=True), Judge(), Deliver("student")]
    assert session.reason is Reason.POLICY_KEEP


def test_an_escalation_is_admitted_before_the_teacher_is_called() -> None:
    session, commands = drive(
        Session(),
        Routed("student", Reason.POLICY_STUDENT, hold_draft=True),
        Drafted(),
        Judged(True, Reason.POLICY_ESCALATE),
        Admitted(True),
        Answered(),
    )
    assert commands == [Call("student", hold=True), Judge(), Admit(True), Call("teacher"), Deliver("teacher")]
    assert session.reason is Reason.POLICY_ESCALATE


def test_a_refused_escalation_delivers_the_draft_that_is_there() -> None:
    session, commands = drive(
        Session(),
        Routed("student", Reason.POLICY_STUDENT, hold_draft=True),
        Drafted(),
        Judged(True, Reason.POLICY_ESCALATE),
        Admitted(False),
    )
    assert commands[-1] == Deliver("student")
    assert session.reason is Reason.BUDGET_EXHAUSTED


def test_a_refused_request_is_rejected_where_the_operator_chose_so() -> None:
    session, commands = drive(
        Session(when_exhausted="reject"), Routed("teacher", Reason.POLICY_TEACHER), Admitted(False)
    )
    assert commands[-1] == Reject(exhausted=True)
    assert session.reason is Reason.BUDGET_EXHAUSTED


def test_the_student_answers_when_the_teacher_fails() -> None:
    session, commands = drive(Session(), Routed("teacher", Reason.POLICY_TEACHER), Admitted(True), Failed(), Answered())
    assert commands == [Admit(True), Call("teacher"), Call("student"), Deliver("student")]
    assert session.reason is Reason.TEACHER_FAILED


def test_a_failed_teacher_leaves_the_draft() -> None:
    _, commands = drive(
        Session(),
        Routed("student", Reason.POLICY_STUDENT, hold_draft=True),
        Drafted(),
        Judged(True, Reason.POLICY_ESCALATE),
        Admitted(True),
        Failed(),
    )
    assert commands[-1] == Deliver("student")


def test_the_teacher_rescues_a_failed_student_inside_the_budget() -> None:
    session, commands = drive(Session(), Routed("student", Reason.POLICY_STUDENT), Failed(), Admitted(True), Answered())
    assert commands == [Call("student"), Admit(True), Call("teacher"), Deliver("teacher")]
    assert session.reason is Reason.STUDENT_FAILED


def test_a_failed_student_is_reported_when_the_budget_has_no_room() -> None:
    _, commands = drive(Session(), Routed("student", Reason.POLICY_STUDENT), Failed(), Admitted(False))
    assert commands[-1] == Reject(exhausted=False)


def test_what_the_client_did_wrong_is_not_taken_to_the_teacher() -> None:
    _, commands = drive(Session(), Routed("student", Reason.POLICY_STUDENT), Failed(clients_fault=True))
    assert commands[-1] == Reject(exhausted=False)


def test_a_forced_student_never_becomes_a_teacher_call() -> None:
    _, commands = drive(Session(), Routed("student", Reason.FORCED_STUDENT, forced=True), Failed())
    assert commands[-1] == Reject(exhausted=False)


def test_a_ledger_that_is_down_means_the_student() -> None:
    session, commands = drive(Session(), Routed("teacher", Reason.POLICY_TEACHER), LedgerDown(), Answered())
    assert commands == [Admit(True), Call("student"), Deliver("student")]
    assert session.reason is Reason.LEDGER_UNAVAILABLE


def test_without_a_teacher_the_student_answers_and_says_so() -> None:
    session, commands = drive(Session(has_teacher=False), Routed("teacher", Reason.FORCED_TEACHER, forced=True))
    assert commands == [Call("student")]
    assert session.reason is Reason.NO_TEACHER


@given(st.data())
def test_every_life_ends_soon_and_calls_the_teacher_only_when_admitted(data: st.DataObject) -> None:
    has_teacher = data.draw(st.booleans())
    session = Session(
        when_exhausted=data.draw(st.sampled_from(["student", "reject", "queue"])), has_teacher=has_teacher
    )
    event: Event = Routed(
        data.draw(st.sampled_from(["student", "teacher"])),
        Reason.POLICY_STUDENT,
        hold_draft=data.draw(st.booleans()),
        forced=data.draw(st.booleans()),
    )
    calls: list[str] = []
    admitted = False
    for _ in range(12):
        session, command = advance(session, event)
        match command:
            case Admit():
                assert has_teacher
                event = data.draw(st.sampled_from([Admitted(True), Admitted(False), LedgerDown()]))
                admitted = event == Admitted(True)
            case Call(role, hold):
                assert role == "student" or admitted
                calls.append(role)
                good: Event = Drafted() if hold else Answered()
                event = data.draw(st.sampled_from([good, Failed(), Failed(clients_fault=True)]))
            case Judge():
                event = Judged(data.draw(st.booleans()), Reason.POLICY_KEEP)
            case Deliver() | Reject():
                break
    assert session.phase is Phase.DONE
    assert calls.count("teacher") <= 1
    assert calls.count("student") <= 1
