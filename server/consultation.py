"""One request's dealings with policies: who decides, what a shadow would have done, and who steps in on a failure.

It is begun with the policy in service, and stays with that one whatever is promoted meanwhile.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.action import ACTIONS, Step
from policies.observation import Observation
from policies.policy import Scores
from policies.samples import SampleWish
from policies.values import quickly_made
from router.breaker import succeeded
from router.choosing import Choice, Offer, choose, remember
from router.pacing import Aim, Pacer, decide, step, worth
from router.record import DecisionRecord, Reason, ShadowRecord, StepRecord
from router.teacher_records import TeacherRecord, TeachersStepRecord
from server.in_service import InService, Role

if TYPE_CHECKING:
    from server.deciding import Decider

_REASONS = {
    (Step.ROUTE, False): Reason.POLICY_STUDENT,
    (Step.ROUTE, True): Reason.POLICY_TEACHER,
    (Step.DEFER, False): Reason.POLICY_KEEP,
    (Step.DEFER, True): Reason.POLICY_ESCALATE,
}


@quickly_made
@dataclass(frozen=True)
class Verdict:
    calls_teacher: bool
    reason: Reason
    record: StepRecord
    teachers: tuple[str, ...] = ()
    """Where the policy chose among several: the labels of whom to ask, and of whom in its place. Else empty."""


class NotANumber(ValueError):
    """A policy's score that pacing cannot rank."""


class Consultation:
    """Made by `Decider.begin`; `finish` it or `release` it in the end."""

    __slots__ = (
        "_chosen",
        "_decider",
        "_held",
        "_probing",
        "_scored",
        "_shadow",
        "decided_by",
        "failed",
        "policy",
        "role",
    )

    def __init__(self, decider: "Decider", policy: InService, role: Role, probing: InService | None = None) -> None:
        self._decider = decider
        self._probing = probing
        """A policy set aside, which is tried on what this request shows."""
        self._shadow = None if decider.shadow is None else Shadowing(decider, decider.shadow)
        self._scored: list[tuple[float, float | None]] = []
        """With what the call was expected to cost, where the budget weighs calls."""
        self._chosen: list[Choice] = []
        """Of a policy that chooses among teachers, in place of `_scored`."""
        self._held = True
        policy.held += 1
        self.policy = self.decided_by = policy
        self.role = role
        self.failed: str | None = None
        """The version that failed."""

    @property
    def asks_first(self) -> bool:
        """Whether anybody is to be asked before anything is generated."""
        return self.decided_by.asks_first

    @property
    def reads_drafts(self) -> bool:
        return self.decided_by.reads_drafts

    @property
    def samples(self) -> SampleWish | None:
        """What the policy in charge wants asked of the student beside its draft."""
        return None if self.failed is not None or self.policy.breaker.aside else self.policy.samples

    async def decide(self, observation: Observation, aimed: Aim) -> Verdict:
        if self._shadow is not None:
            self._shadow.ask(observation, aimed)
        if self._probing is not None:
            self._decider.probe(self._probing, observation)
        policy = self.policy
        if self.failed is None and not policy.breaker.aside:
            try:
                scores = await policy.scorer.score(observation)
                score = finite(scores)
            except Exception as error:
                self._decider.note_failure(policy, error)
            else:
                if policy.breaker.outcomes:
                    policy.breaker = succeeded(policy.breaker)
                if scores.teachers:
                    return self._choose(observation.step, scores, aimed)
                return self._paced(observation.step, score, scores.details, aimed)
        return self._fall_back(observation, aimed)

    def ask_shadow(self, observation: Callable[[], Observation], aimed: Aim) -> None:
        """For a step at which the policy in charge is not asked."""
        if self._shadow is not None and self._shadow.policy.asks_first:
            self._shadow.ask(observation(), aimed)

    def _paced(
        self, asked_at: Step, score: float, details: dict[str, float], aimed: Aim, reason: Reason | None = None
    ) -> Verdict:
        decider = self._decider
        score, weight = _weighed(score, details, aimed)
        choice = decide(
            score, self.decided_by.pacer, aimed, draw=decider.draw(), explore=decider.explore, weight=weight
        )
        stay, call = ACTIONS[asked_at]
        if reason is None:
            reason = Reason.EXPLORED if choice.explored else _REASONS[asked_at, choice.teacher]
        self._scored.append((score, weight))
        return Verdict(
            choice.teacher,
            reason,
            StepRecord(
                asked_at, call if choice.teacher else stay, score, choice.shift, choice.propensity, None, details
            ),
        )

    def _choose(self, asked_at: Step, scores: Scores, aimed: Aim) -> Verdict:
        """Among several teachers, as far as they can be asked now."""
        decider = self._decider
        found = choose_among(decider, scores, self.decided_by.pacer, aimed, explore=decider.explore)
        if found is None:
            kept = StepRecord(asked_at, ACTIONS[asked_at][0], None, 0.0, 1.0, None, scores.details)
            return Verdict(False, Reason.TEACHER_FAILED, kept)
        choice, labels = found
        self._chosen.append(choice)
        reason = Reason.EXPLORED if choice.explored else _REASONS[asked_at, choice.name is not None]
        names = () if choice.name is None else (choice.name, *choice.then)
        record = teachers_step(asked_at, scores, choice)
        return Verdict(choice.name is not None, reason, record, tuple(labels[name] for name in names))

    # When the policy fails

    def _fall_back(self, observation: Observation, aimed: Aim) -> Verdict:
        """The safe policy decides, and goes on deciding about this request."""
        if self.failed is None:
            self.failed = self.policy.version
            self.decided_by, self.role = self._decider.fallback, "fallback"
            self._scored.clear()
            self._chosen.clear()
            if self.policy.breaker.aside and self._probing is None:
                self._decider.probe(self.policy, observation)
        safe = self._decider.safe_policy
        asked_at = observation.step
        # One that looks at prompts can decide about a draft as well; one that looks at drafts must wait for it.
        if safe is not None and (asked_at is not Step.ROUTE or Step.ROUTE in safe.steps):
            scores = safe.score(observation)
            return self._paced(asked_at, scores.score, scores.details, aimed, Reason.POLICY_FAILED)
        return Verdict(
            False, Reason.POLICY_FAILED, StepRecord(asked_at, ACTIONS[asked_at][0], None, 0.0, 1.0)
        )  # fmt: skip

    # The end

    def shadow_record(self, decision_id: str) -> ShadowRecord | None:
        """What the shadow has said; what it says later goes into the log on a line of its own."""
        return None if self._shadow is None else self._shadow.record(decision_id)

    def finish(self, record: DecisionRecord, aimed: Aim) -> None:
        """What the finished request shows of the policy's scores, and of the policy."""
        if self._scored:
            by = self.decided_by
            score, weight = max(self._scored, key=_score)
            by.pacer = step(by.pacer, score, aimed, teacher=record.teacher_calls > 0, weight=weight)
        elif self._chosen:
            by, choice = self.decided_by, max(self._chosen, key=lambda each: each.score)
            by.pacer = remember(by.pacer, choice.seen, teacher=record.teacher_calls > 0)
        self._decider.metrics.decided(record)
        self.release()

    def release(self) -> None:
        if self._held:
            self._held = False
            self.policy.release()


class Shadowing:
    """What a second policy would have decided about one request. Nothing here is waited for by an answer."""

    __slots__ = (
        "_aimed", "_asked", "_chosen", "_decider", "_error", "_id", "_scored", "_steps", "_would_call", "policy",
    )  # fmt: skip

    def __init__(self, decider: "Decider", policy: InService) -> None:
        self._decider = decider
        self.policy = policy
        self._steps: list[StepRecord] = []
        self._scored: list[tuple[float, float | None]] = []
        self._chosen: list[Choice] = []
        self._asked = 0
        """Answers under way."""
        self._would_call = False
        self._error: str | None = None
        self._id: str | None = None
        """The decision, once its record is written without this."""
        self._aimed: Aim | None = None

    def ask(self, observation: Observation, aimed: Aim) -> None:
        # One that would have called the teacher has nothing more to decide.
        if self._would_call or self._error is not None or observation.step not in self.policy.steps:
            return
        decider, policy = self._decider, self.policy
        if policy.breaker.aside:
            decider.probe(policy, observation)
        elif decider.room_for_shadow():
            self._asked += 1
            self._aimed = aimed
            policy.held += 1
            decider.beside(self._hear(observation, aimed))

    async def _hear(self, observation: Observation, aimed: Aim) -> None:
        decider, policy = self._decider, self.policy
        asked_at = observation.step
        try:
            score = finite(scores := await policy.scorer.score(observation))
        except Exception as error:
            decider.note_failure(policy, error)
            self._error = f"{type(error).__name__}: {error}"[:200]
        else:
            policy.breaker = succeeded(policy.breaker)
            if scores.teachers:
                self._choose(asked_at, scores, aimed)
            else:
                self._decide(asked_at, score, scores.details, aimed)
        finally:
            policy.release()
            self._asked -= 1
        if self._id is not None and not self._asked:
            found = self._finished()
            if found is not None and decider.late_shadow is not None:
                decider.late_shadow(self._id, found)

    def _decide(self, asked_at: Step, score: float, details: dict[str, float], aimed: Aim) -> None:
        score, weight = _weighed(score, details, aimed)
        self._scored.append((score, weight))
        choice = decide(score, self.policy.pacer, aimed, draw=self._decider.draw(), explore=0.0, weight=weight)
        stay, call = ACTIONS[asked_at]
        self._would_call = self._would_call or choice.teacher
        self._steps.append(
            StepRecord(
                asked_at, call if choice.teacher else stay, score, choice.shift, choice.propensity, None, details
            )
        )

    def _choose(self, asked_at: Step, scores: Scores, aimed: Aim) -> None:
        found = choose_among(self._decider, scores, self.policy.pacer, aimed, explore=0.0)
        if found is not None:
            choice, _ = found
            self._chosen.append(choice)
            self._would_call = self._would_call or choice.name is not None
            self._steps.append(teachers_step(asked_at, scores, choice))

    def record(self, decision_id: str) -> ShadowRecord | None:
        if self._asked:
            self._id = decision_id
            return None
        return self._finished()

    def _finished(self) -> ShadowRecord | None:
        if not self._steps and self._error is None:
            return None
        policy = self.policy
        # Both answers may have been under way at once; after a call there is nothing to defer.
        self._steps.sort(key=lambda each: each.step == Step.DEFER)
        if self._would_call and self._steps[0].action == ACTIONS[Step.ROUTE][1]:
            del self._steps[1:]
        if self._steps and self._aimed is not None:
            if self._scored:
                score, weight = max(self._scored, key=_score)
                policy.pacer = step(policy.pacer, score, self._aimed, teacher=self._would_call, weight=weight)
            else:
                choice = max(self._chosen, key=lambda each: each.score)
                policy.pacer = remember(policy.pacer, choice.seen, teacher=self._would_call)
            self._decider.metrics.shadowed(policy.version, self._steps[-1], calls_teacher=self._would_call)
        return ShadowRecord(policy.name, policy.version, tuple(self._steps), self._error)


def choose_among(
    decider: "Decider", scores: Scores, pacer: Pacer, aimed: Aim, *, explore: float
) -> tuple[Choice, dict[str, str]] | None:
    """Whom of the teachers that a policy knows and that can be asked now, and each one's label here by the policy's
    name for it. None where none can."""
    offered = () if decider.teachers is None else decider.teachers.offered(scores.teachers)
    offers = [Offer(said.name, said.score, said.gain, said.usd) for said, _ in offered]
    if not offers:
        return None
    choice = choose(offers, pacer, aimed, draw=decider.draw(), explore=explore, known=len(scores.teachers))
    return choice, {said.name: teacher.label for said, teacher in offered}


def teachers_step(asked_at: Step, scores: Scores, choice: Choice) -> TeachersStepRecord:
    stay, call = ACTIONS[asked_at]
    chances = dict(zip(choice.offered, choice.chances, strict=True))
    said = {
        each.name: TeacherRecord(each.score, each.gain, each.usd, chances.get(each.name)) for each in scores.teachers
    }
    action = stay if choice.name is None else call
    return TeachersStepRecord(
        asked_at, action, choice.score, choice.shift, choice.propensity, None, scores.details, choice.name, said
    )


def _weighed(score: float, details: Mapping[str, float], aimed: Aim) -> tuple[float, float | None]:
    """Under a limit on money or tokens: what the teacher is expected to gain per unit, and the units it is expected to
    take. Without one, or without a policy that expects bills, the score as it is."""
    if aimed.weighed is None:
        return score, None
    gain, cost = details.get("expected_gain"), details.get(f"expected_teacher_{aimed.weighed.by}")
    if gain is None or not cost or not (math.isfinite(gain) and math.isfinite(cost)):
        return score, None
    return worth(gain, cost), cost


def _score(scored: tuple[float, float | None]) -> float:
    return scored[0]


def finite(scores: Scores) -> float:
    """The score. Raises NotANumber."""
    score = float(scores.score)
    if not math.isfinite(score):
        raise NotANumber(f"the score is {score}")
    return score
