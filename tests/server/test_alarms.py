"""What a worker makes of records and feedback: alarms by kind of request, with their numbers, and who may see them."""

import logging
import random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.record import DecisionRecord, Reason, StepRecord
from server.alarms import ASKED_AND_GOT, EVERYTHING, TEACHER_NO_BETTER, Alarms
from server.telemetry import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def alarms(metrics: Metrics) -> Alarms:
    return Alarms(metrics)


def record(*, teacher: bool, share: float = 0.2, steps: bool = True) -> DecisionRecord:
    step = StepRecord("defer", "escalate" if teacher else "keep", 1.0, 0.0, 0.5)
    return DecisionRecord(
        id="dec_1", at=0.0, endpoint="chat", model="auto", route="teacher" if teacher else "student",
        reason=Reason.POLICY_KEEP, steps=(step,) if steps else (), policy="p", policy_version="v", budget_version=1,
        budget_share=share, refused_by=None, status=200, error=None, key_id="", user="", tenant="", conversation="",
        tags=(), latency_ms=1.0, first_byte_ms=None, student_tokens=1, teacher_tokens=0, teacher_usd=0.0,
        teacher_calls=int(teacher),
    )  # fmt: skip


def row(*, teacher: bool, chance: float = 0.5, step: str = "defer", **changes: Any) -> dict[str, Any]:
    action = {("defer", True): "escalate", ("defer", False): "keep", ("route", True): "teacher"}.get(
        (step, teacher), "student"
    )
    propensity = chance if teacher else 1.0 - chance
    return {
        "route": "teacher" if teacher else "student", "reason": "explored", "policy_version": "v", "tags": [],
        "steps": [{"step": step, "action": action, "score": 0.0, "propensity": propensity}],
    } | changes  # fmt: skip


def value(metrics: Metrics, kind: str) -> float:
    line = next(line for line in metrics.page().decode().splitlines() if line.startswith(f'tw_alarm{{kind="{kind}"}}'))
    return float(line.split()[-1])


def test_a_share_that_is_not_got_is_said_once_and_its_end_too(
    alarms: Alarms, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(200):
        alarms.request(record(teacher=False))
    (alarm,) = alarms.standing()
    assert alarm == {"kind": ASKED_AND_GOT, "asked": 0.2, "got": 0.0}
    assert value(metrics, ASKED_AND_GOT) == 1.0
    for number in range(2500):
        alarms.request(record(teacher=number % 5 == 0))
    assert alarms.standing() == []
    assert value(metrics, ASKED_AND_GOT) == 0.0
    assert [line.message.split(":")[0] for line in caplog.records] == [
        f"alarm {ASKED_AND_GOT}", f"alarm {ASKED_AND_GOT} is over",
    ]  # fmt: skip


def test_requests_that_no_policy_decided_or_nothing_limits_say_nothing_of_the_share(alarms: Alarms) -> None:
    for _ in range(500):
        alarms.request(record(teacher=False, steps=False))
        alarms.request(record(teacher=False, share=1.0))
    assert alarms.standing() == []


def test_a_teacher_that_is_no_better_on_one_tag_is_named_by_it(alarms: Alarms, metrics: Metrics) -> None:
    rng = random.Random(5)
    for _ in range(2500):
        teacher, sums = rng.random() < 0.5, rng.random() < 0.5
        gain = -0.3 if sums else 0.4
        quality = float(rng.random() < 0.5 + gain * teacher)
        alarms.feedback(row(teacher=teacher, tags=["sums" if sums else "letters"]), quality, one_step=False)
    (alarm,) = [each for each in alarms.standing() if each["kind"] == TEACHER_NO_BETTER]
    assert (alarm["of"], alarm["gain"]) == ("sums", pytest.approx(-0.3, abs=0.06))
    assert "of" not in next(each for each in alarms.standing(with_tags=False) if each["kind"] == TEACHER_NO_BETTER)
    assert value(metrics, TEACHER_NO_BETTER) == 1.0


@pytest.mark.parametrize(
    "feedback",
    [
        row(teacher=True, steps=[]),
        row(teacher=True, steps=[{"step": "defer", "action": "escalate", "score": None, "propensity": 1.0}]),
        row(teacher=True, route="student"),  # refused by the ledger, or the teacher failed
        row(teacher=True, step="route"),  # a policy that would have looked at the draft as well
        row(teacher=True, route="mixed"),
    ],
)
def test_what_chance_did_not_decide_between_is_not_compared(alarms: Alarms, feedback: dict[str, Any]) -> None:
    alarms.feedback(feedback, 0.0, one_step=False)
    assert alarms.gains == {}


def test_a_policy_asked_once_is_compared_where_it_routes(alarms: Alarms) -> None:
    alarms.feedback(row(teacher=True, step="route", chance=0.25), 1.0, one_step=True)
    assert alarms.gains[EVERYTHING].weights == pytest.approx(0.25 * 0.75)


def test_answers_that_somebody_forced_say_nothing_of_where_a_model_stands(alarms: Alarms) -> None:
    alarms.feedback(row(teacher=True, reason="forced_teacher", steps=[]), 0.0, one_step=False)
    assert alarms.quality["teacher"].seen == 0


def test_tags_cost_bounded_memory(alarms: Alarms) -> None:
    for number in range(2000):
        alarms.feedback(row(teacher=True, tags=[f"t{number}"]), 1.0, one_step=False)
    assert len(alarms.gains) <= 256
    assert alarms.gains[EVERYTHING].seen == 2000
