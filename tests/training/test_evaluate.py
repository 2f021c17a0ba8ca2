"""What stands on the curve of an evaluation, by hand."""

import numpy as np
import pytest

from policies.baselines import AlwaysStudent
from training.evaluate import CannotEvaluate, curve, hindsight
from training.evaluation_run import evaluation_run
from training.plots import regret

STUDENT = np.array([0.0, 1.0, 0.0, 1.0])
TEACHER = np.array([1.0, 1.0, 1.0, 0.0])
SCORES = np.array([1.0, -0.7, -0.5, -2.0])


def test_hindsight_asks_no_more_than_pays() -> None:
    assert [hindsight(SCORES, STUDENT, TEACHER, share) for share in (0.0, 0.3, 0.5, 1.0)] == [0.5, 0.75, 1.0, 1.0]


def test_regret_is_what_the_own_threshold_lacks() -> None:
    points = {point["budget"]: point for point in curve(lambda _: SCORES, STUDENT, TEACHER)}
    assert points[0.5] == {
        "budget": 0.5,
        "share": 0.5,
        "quality": 1.0,
        "pgr": 2.0,
        "open_loop_share": 0.25,
        "open_loop_quality": 0.75,
        "capped_quality": 0.75,
        "regret": 0.25,
    }
    assert points[1.0]["quality"] == 0.75
    assert points[1.0]["regret"] == 0.25
    assert points[0.2]["capped_quality"] == 0.5
    assert points[0.2]["regret"] == 0.0


def test_a_policy_that_wants_too_much_loses_what_the_cap_refuses() -> None:
    points = {point["budget"]: point for point in curve(lambda _: SCORES + 0.6, STUDENT, TEACHER)}
    assert points[0.25]["open_loop_share"] == 0.5
    assert points[0.25]["capped_quality"] == pytest.approx(0.75)
    assert points[0.25]["regret"] == 0.0
    wanting_all = {point["budget"]: point for point in curve(lambda _: SCORES + 9.0, STUDENT, TEACHER)}
    assert wanting_all[0.25]["capped_quality"] == 0.5625
    assert wanting_all[0.25]["regret"] == 0.1875


def test_the_picture_of_regret_is_the_same_each_time() -> None:
    report = {"student_quality": 0.5, "teacher_quality": 0.75, "curve": curve(lambda _: SCORES, STUDENT, TEACHER)}
    assert regret(report)[:4] == b"\x89PNG"
    assert regret(report) == regret(report)


def test_pictures_for_one_teacher_are_refused_to_a_policy_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation_run.teachers_known", lambda _: ("a", "b"))
    with pytest.raises(CannotEvaluate, match="drawn for one teacher"):
        evaluation_run(AlwaysStudent(), [], regret=True)
