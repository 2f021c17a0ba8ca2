"""Watches what passes through a worker for what a person should look at: `router.alarms` decides, this says it.

Each worker watches what it answers itself, and the feedback that reaches it.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from policies.action import Action, Step
from router.alarms import Gain, Quality, Share, compared, counted, judged
from router.record import DecisionRecord
from server.telemetry import Metrics

log = logging.getLogger(__name__)

STUDENT_QUALITY, TEACHER_QUALITY = "student_quality_moved", "teacher_quality_moved"
ASKED_AND_GOT = "asked_and_got_parted"
TEACHER_NO_BETTER = "teacher_no_better"
KINDS = (STUDENT_QUALITY, TEACHER_QUALITY, ASKED_AND_GOT, TEACHER_NO_BETTER)

_MOST_TAGS = 256
"""Kinds of request that are told apart at one time."""
EVERYTHING = "all requests"
_NOBODY_CHOSE = ("forced_student", "forced_teacher", "rule_student", "rule_teacher", "no_teacher", "passed_through")


class Alarms:
    """One per worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.share = Share()
        self.quality = {"student": Quality(), "teacher": Quality()}
        self.gains: OrderedDict[str, Gain] = OrderedDict()
        for kind in KINDS:
            metrics.alarm(kind, stands=False)

    def request(self, record: DecisionRecord) -> None:
        """A finished request; a few microseconds, because every one comes by here."""
        # Only what a policy decided under a limit: elsewhere no share was aimed at.
        if not record.steps or record.budget_share >= 1.0:
            return
        before = self.share.parted
        self.share = share = counted(self.share, record.budget_share, teacher=record.teacher_calls > 0)
        if share.parted is not before:
            self._say(ASKED_AND_GOT, share.parted, self._asked_and_got(share))

    def feedback(self, row: Mapping[str, Any], quality: float, *, one_step: bool) -> None:
        """The first feedback on a decision; `row` is its record as the log has it.

        `one_step`: the policy that decided it is asked once per request.
        """
        route = str(row["route"])
        steps = row["steps"]
        self._metrics.judged(str(row["policy_version"]), str(row.get("policy_role", "serving")), quality)
        # A forced request says what the model can do as well, but its kind is somebody's choice.
        if route in self.quality and row["reason"] not in _NOBODY_CHOSE:
            before = self.quality[route]
            now = self.quality[route] = judged(before, quality)
            if now.moved is not before.moved:
                kind = STUDENT_QUALITY if route == "student" else TEACHER_QUALITY
                self._say(kind, now.moved, self._moved(route, now))
        chance = _chance_of_teacher(steps, route, one_step=one_step)
        if chance is not None:
            for kind_of_request in (EVERYTHING, *row["tags"]):
                self._compare(str(kind_of_request), quality, teacher=route == "teacher", chance=chance)

    def forget_qualities(self) -> None:
        """After a change of policy or budget other requests reach each model, and their level is learnt anew."""
        self.quality = {"student": Quality(), "teacher": Quality()}
        self._metrics.alarm(STUDENT_QUALITY, stands=False)
        self._metrics.alarm(TEACHER_QUALITY, stands=False)

    def standing(self, *, with_tags: bool = True) -> list[dict[str, Any]]:
        """What stands now, with its numbers. Tags are clients' words: only for those who may see them."""
        found: list[dict[str, Any]] = []
        for route, kind in (("student", STUDENT_QUALITY), ("teacher", TEACHER_QUALITY)):
            quality = self.quality[route]
            if quality.moved:
                found.append({"kind": kind, "was": round(quality.baseline, 4), "is": round(quality.now, 4)})
        if self.share.parted:
            asked, got = round(self.share.asked_share, 4), round(self.share.got_share, 4)
            found.append({"kind": ASKED_AND_GOT, "asked": asked, "got": got})
        for tag, gain in self.gains.items():
            if gain.waste:
                row: dict[str, Any] = {"kind": TEACHER_NO_BETTER, "gain": round(gain.gain or 0.0, 4)}
                found.append({**row, "of": tag} if with_tags or tag == EVERYTHING else row)
        return found

    def _compare(self, tag: str, quality: float, *, teacher: bool, chance: float) -> None:
        before = self.gains.get(tag) or Gain()
        now = self.gains[tag] = compared(before, quality, teacher=teacher, chance=chance)
        self.gains.move_to_end(tag)
        if len(self.gains) > _MOST_TAGS:
            # One that stands is kept until it is seen to be over.
            self._forget(next((each for each, gain in self.gains.items() if not gain.waste), tag))
        if now.waste is not before.waste:
            self._say(
                TEACHER_NO_BETTER,
                any(gain.waste for gain in self.gains.values()),
                lambda: f"of requests tagged {tag!r}: the teacher adds {now.gain or 0.0:+.3f} to the quality",
            )

    def _forget(self, tag: str) -> None:
        del self.gains[tag]

    def _say(self, kind: str, stands: bool, numbers: Callable[[], str] | str) -> None:
        self._metrics.alarm(kind, stands=stands)
        words = numbers if isinstance(numbers, str) else numbers()
        if stands:
            log.warning("alarm %s: %s", kind, words)
        else:
            log.warning("alarm %s is over: %s", kind, words)

    @staticmethod
    def _asked_and_got(share: Share) -> str:
        return f"{share.asked_share:.1%} of requests aimed at, {share.got_share:.1%} went to the teacher"

    @staticmethod
    def _moved(route: str, quality: Quality) -> str:
        return f"the {route}'s quality was {quality.baseline:.3f} and is {quality.now:.3f}"


def _chance_of_teacher(steps: Any, route: str, *, one_step: bool) -> float | None:
    """The probability with which the last step would have called the teacher; None where the two paths cannot be
    compared: nothing was scored, the ledger refused, or another step came between."""
    last = steps[-1] if steps else None
    if last is None or last["score"] is None or route not in ("student", "teacher"):
        return None
    asked = Action(last["action"]).calls_teacher
    if asked != (route == "teacher") or (last["step"] == Step.ROUTE and not one_step):
        return None
    propensity = float(last["propensity"])
    return propensity if asked else 1.0 - propensity
