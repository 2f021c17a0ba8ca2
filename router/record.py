"""DecisionRecord: what the gateway writes down about every request, and all that training reads of it (contract 1).

Version history: 1, the first.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from policies.values import quickly_made

RECORD_VERSION = 1


class Reason(StrEnum):
    """Why a request went where it went: the closed set behind `x-tw-reason`."""

    POLICY_STUDENT = "policy_student"  # the policy kept it at the route step
    POLICY_TEACHER = "policy_teacher"  # the policy sent it at the route step
    POLICY_KEEP = "policy_keep"  # the policy saw the draft and kept it
    POLICY_ESCALATE = "policy_escalate"  # the policy saw the draft and asked the teacher
    EXPLORED = "explored"  # a coin decided, so that later estimates stay honest
    FORCED_STUDENT = "forced_student"  # the client asked for the student by name
    FORCED_TEACHER = "forced_teacher"  # the client asked for the teacher by name
    RULE_STUDENT = "rule_student"  # a rule of the budget said so
    RULE_TEACHER = "rule_teacher"
    BUDGET_EXHAUSTED = "budget_exhausted"  # the teacher was wanted and no limit had room
    TEACHER_FAILED = "teacher_failed"  # the teacher was asked and failed; the student answered
    OTHER_TEACHER = "other_teacher"  # the teacher chosen failed or cost too much; another one answered
    STUDENT_FAILED = "student_failed"  # the student failed; the teacher answered, inside the budget
    LEDGER_UNAVAILABLE = "ledger_unavailable"  # the ledger did not answer in time; the student answered
    POLICY_FAILED = "policy_failed"  # the policy raised, was late or returned no number; a safe policy decided
    HELP_ON = "help_on"  # a stream of the student that the teacher may write parts of; the record says whether it did
    HELPED = "helped"  # the teacher wrote parts of the student's answer
    NO_TEACHER = "no_teacher"  # none is configured
    PASSED_THROUGH = "passed_through"  # an endpoint that is not routed


SENTENCES: dict[Reason, str] = {
    Reason.POLICY_STUDENT: "The policy expected the student to do well enough and did not ask the teacher.",
    Reason.POLICY_TEACHER: "The policy expected the teacher to be worth its cost and asked it at once.",
    Reason.POLICY_KEEP: "The policy read the student's draft and kept it.",
    Reason.POLICY_ESCALATE: "The policy read the student's draft, doubted it, and asked the teacher.",
    Reason.EXPLORED: "A coin decided this one, so that what-if estimates stay honest.",
    Reason.FORCED_STUDENT: "The client asked for the student by name.",
    Reason.FORCED_TEACHER: "The client asked for the teacher by name, and the budget had room.",
    Reason.RULE_STUDENT: "A rule of the budget sends such requests to the student.",
    Reason.RULE_TEACHER: "A rule of the budget sends such requests to the teacher, and the budget had room.",
    Reason.BUDGET_EXHAUSTED: "The teacher was wanted, but a limit of the budget had no room left.",
    Reason.TEACHER_FAILED: "The teacher was asked and failed, so the student answered.",
    Reason.OTHER_TEACHER: "The teacher chosen failed or was too dear, so another one answered inside the budget.",
    Reason.STUDENT_FAILED: "The student failed, so the teacher answered inside the budget.",
    Reason.LEDGER_UNAVAILABLE: "The ledger did not answer in time, so the student answered.",
    Reason.POLICY_FAILED: "The policy failed, so the safe policy decided.",
    Reason.HELP_ON: "The student answers and the teacher may write parts of it.",
    Reason.HELPED: "The student answered, and the teacher wrote parts of the answer.",
    Reason.NO_TEACHER: "No teacher is configured.",
    Reason.PASSED_THROUGH: "This endpoint is not routed; the request was passed on.",
}


@quickly_made
@dataclass(frozen=True)
class StepRecord:
    """One decision inside a request."""

    step: str
    action: str
    score: float | None
    """log pi(teacher) - log pi(student), before pacing; under a limit on money, where the policy expects bills, the
    expected gain per USD."""
    shift: float
    """What pacing added to the score."""
    propensity: float
    """Probability, given the observation, with which the action taken was taken; exploration included."""
    admitted: bool | None = None
    """The ledger's answer where the action asked for the teacher."""
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """What a policy that does not act would have decided about the same observations, at the same budget."""

    policy: str
    policy_version: str
    steps: tuple[StepRecord, ...]
    """As far as it could be asked: without a draft there is no *defer*. The last one's action is what it wanted."""
    error: str | None = None
    """Why it said nothing more, where it failed."""


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A stretch of an answer that one model wrote, or a help that came to nothing."""

    by: str
    """student or teacher"""
    tokens: int
    """Of the answer, written here."""
    reason: str
    """begin, asked (the student's own token), doubted (the policy), or handed_back"""
    ended: str
    """help, stop, length, left (the client); of a help that came to nothing: refused, failed, empty, repeated"""
    billed_tokens: int = 0
    """By the teacher, prompt included."""
    usd: float = 0.0
    latency_ms: float = 0.0
    score: float | None = None
    """Where the policy asked: before pacing."""
    propensity: float | None = None


@quickly_made
@dataclass(frozen=True)
class CachedRecord:
    """Tokens of the prompt in the prefix caches of the two models; None where unknown."""

    student_tokens: int | None = None
    """As it was believed before the decision: what a policy was shown."""
    teacher_tokens: int | None = None
    student_hits: int | None = None
    """As the upstream said afterwards (`prompt_tokens_details.cached_tokens`)."""
    teacher_hits: int | None = None


@quickly_made
@dataclass(frozen=True)
class DecisionRecord:
    id: str
    at: float
    """Seconds since the epoch when the request came."""
    endpoint: str
    model: str
    """As the client asked for it."""
    route: str
    """student, teacher or mixed"""
    reason: Reason
    steps: tuple[StepRecord, ...]
    policy: str
    """Who decided: the safe policy's name where the one in service failed."""
    policy_version: str
    budget_version: int
    budget_share: float
    """The share pacing aimed at."""
    refused_by: str | None
    """Canonical words of the limit that refused."""
    status: int
    error: str | None
    key_id: str
    user: str
    tenant: str
    conversation: str
    tags: tuple[str, ...]
    latency_ms: float
    first_byte_ms: float | None
    student_tokens: int
    teacher_tokens: int
    teacher_usd: float
    teacher_calls: int
    disconnected: bool = False
    prompt: str | None = None
    """Only where the operator switched `log_text` on."""
    student_response: str | None = None
    teacher_response: str | None = None
    student_logprobs: tuple[float, ...] | None = None
    version: int = RECORD_VERSION
    policy_role: str = "serving"
    """serving, canary, or fallback"""
    failed_policy: str | None = None
    """The version that should have decided and failed."""
    shadow: ShadowRecord | None = None
    """None also where its answer came after this was written; then a line `{"shadow_on": id, ...}` follows."""

    segments: tuple[SegmentRecord, ...] = ()
    """Who wrote what, in order, of an answer that was open to help."""
    mixed_response: str | None = None
    """An answer that both wrote, where `log_text` is on; it is then nobody's `student_response`."""
    help_off: str | None = None
    """Where help is switched on: why this request could not have any."""
    sample_tokens: int = 0
    """That the student wrote beside its draft, for a policy that looks at samples."""
    cached: CachedRecord | None = None
    """None where nothing is known of prefix caches."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
