"""Which path a request took, with what probability, and that weights over these paths are unbiased."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.record import Reason
from tests.training.decisions import feedback, record, step
from training.decision_rows import LogError, join
from training.recorded_traffic import COIN_KEEP, ESCALATE, KEEP, TEACHER, Recorded, record_traffic
from training.replay_paths import Paths
from training.what_if import weigh


def read(*rows) -> Recorded:
    return record_traffic(
        join((f"row {i}", row if isinstance(row, dict) else row.as_dict()) for i, row in enumerate(rows)).rows
    )


def test_requests_of_one_decision():
    found = read(
        record(0, step("student", 0.9)),
        record(1, step("teacher", 0.1)),
        record(2, step("keep", 0.8, at="defer")),
        record(3, step("escalate", 0.3, at="defer")),
    )
    assert found.path.tolist() == [KEEP, TEACHER, KEEP, TEACHER]
    assert found.chance.tolist() == [0.9, 0.1, 0.8, 0.3]
    assert found.routed.all()
    assert not found.two_steps.any()


def test_requests_of_two_decisions_and_the_coin_between_them():
    found = read(
        record(0, step("teacher", 0.95)),
        record(1, step("student", 0.95), step("keep", 0.95, at="defer")),
        record(2, step("student", 0.85), step("escalate", 0.4, at="defer")),
        record(3, step("student", 0.65), reason=Reason.EXPLORED),
    )
    assert found.path.tolist() == [TEACHER, KEEP, ESCALATE, COIN_KEEP]
    # A tenth is explored, so half a tenth of all are students by coin, who are not asked again.
    assert found.chance == pytest.approx([0.95, 0.90 * 0.95, 0.80 * 0.4, 0.05])
    assert found.reach == pytest.approx([np.nan, 0.90, 0.80, np.nan], nan_ok=True)


def test_requests_that_no_policy_decided_are_fixed_and_errors_are_left_out():
    found = read(
        record(0, step()),
        record(1, reason=Reason.FORCED_TEACHER, teacher_calls=1, route="teacher"),
        record(2, reason=Reason.RULE_STUDENT),
        record(3, step(score=None, propensity=1.0), reason=Reason.POLICY_FAILED),
        record(4, reason=Reason.STUDENT_FAILED),
        record(5, step(), status=502),
        record(6, reason=Reason.PASSED_THROUGH),
        record(7, step("student"), status=499),
        record(8, step("student"), step("help", at="help")),
    )
    assert [row.id for row in found.rows] == ["dec_0", "dec_1", "dec_2", "dec_3", "dec_4", "dec_7"]
    assert found.routed.tolist() == [True, False, False, False, False, True]
    assert found.chance[1:5].tolist() == [1.0] * 4
    assert found.path[1:5].tolist() == [TEACHER, KEEP, KEEP, KEEP]
    assert found.fixed_because == {
        "the client asked for the teacher by name": 1,
        "a rule of the budget sent it to the student": 1,
        "the policy failed": 1,
        "no decision was made": 1,
    }
    assert found.left_out_because == {
        "an error instead of an answer": 1,
        "the endpoint is not routed": 1,
        "help was given inside the answer": 1,
    }


def test_a_refused_call_says_nothing_of_the_teacher_and_a_failed_one_does():
    found = read(
        record(0, step("teacher", 0.5, admitted=False), reason=Reason.BUDGET_EXHAUSTED, teacher_calls=0),
        record(1, step("teacher", 0.5), reason=Reason.TEACHER_FAILED, route="student"),
        record(2, step("teacher", 0.5, admitted=False), reason=Reason.BUDGET_EXHAUSTED, status=429),
        feedback(0, 0.25),
        feedback(1, 0.75),
    )
    assert found.asks.all()
    assert found.refused.tolist() == [True, False, True]
    assert np.nan_to_num(found.quality, nan=-1).tolist() == [-1, 0.75, -1]
    assert np.nan_to_num(found.delivered_quality, nan=-1).tolist() == [0.25, 0.75, -1]


def test_the_last_feedback_counts_whenever_it_is_read():
    found = join(
        ("", row)
        for row in [feedback(0, 0.2, at=30.0), record(0, step()).as_dict(), feedback(0, 0.9, at=20.0), feedback(7, 1.0)]
    )
    assert found.rows[0].quality == 0.2
    assert found.lost_feedback == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "record version 2, and this program knows versions up to 1"),
        ({"reason": "whim"}, "not a decision record"),
        ({"steps": None}, "not a decision record"),
        ({"steps": [{"step": "route"}]}, "no 'propensity'"),
        ({"steps": [{"step": "route", "propensity": 0.0}]}, "a propensity of 0"),
    ],
)
def test_a_line_that_is_no_record_is_named(change, said):
    row = {**record(0, step()).as_dict(), **change}
    with pytest.raises(LogError, match="line 3: ") as error:
        join([("log, line 3", row)])
    assert said in str(error.value)


@pytest.mark.parametrize("row", [{"feedback_on": "dec_0", "quality": 2, "at": 1}, {"feedback_on": "dec_0"}])
def test_a_line_that_is_no_feedback_is_named(row):
    with pytest.raises(LogError, match="line 3: "):
        join([("log, line 3", row)])


unit = st.floats(0.0, 1.0)
inner = st.floats(0.05, 0.95)


@settings(max_examples=40, deadline=None)
@given(
    coin=st.floats(0.02, 0.3), route=inner, defers=st.tuples(inner, inner), wanted=unit, later=st.tuples(unit, unit),
    quality=st.tuples(unit, unit, unit, unit), model=st.tuples(unit, unit),
)  # fmt: skip
def test_weights_over_two_decisions_are_unbiased_whatever_the_model(coin, route, defers, wanted, later, quality, model):
    """One request, two equally likely drafts; every path that the log could hold, with its probability."""
    half = coin / 2
    at_once = half + (1 - coin) * route
    worth = {"student": quality[:2], "teacher": quality[2:]}
    # As the candidate: (teacher at once, escalated, kept) for each draft.
    joint = [(wanted, (1 - wanted) * ask, (1 - wanted) * (1 - ask)) for ask in later]
    truth = sum(0.5 * ((p[0] + p[1]) * worth["teacher"][d] + p[2] * worth["student"][d]) for d, p in enumerate(joint))
    sure = record(9, step("student", 1 - half), step("keep", 1 - half, at="defer"))  # shows the coin
    ips = dr = 0.0
    for d in (0, 1):
        escalates = half + (1 - coin) * defers[d]
        on = (1 - coin) * (1 - route)
        cases = [
            (at_once, "teacher", (step("teacher", at_once),)),
            (half, "student", (step("student", 1 - at_once),)),
            (on * escalates, "teacher", (step("student", 1 - at_once), step("escalate", escalates, at="defer"))),
            (on * (1 - escalates), "student", (step("student", 1 - at_once), step("keep", 1 - escalates, at="defer"))),
        ]
        assert sum(each for each, _, _ in cases) == pytest.approx(1.0)
        for probability, side, steps in cases:
            found = read(record(0, *steps), sure)
            paths = Paths(np.array([joint[d], joint[d]]), 0.0, 0.0, 0)
            weighed = weigh(found, paths, np.array([model, model]))
            ips += 0.5 * probability * weighed.weight[0] * worth[side][d]
            left = weighed.weight[0] * (worth[side][d] - weighed.taken[0])
            dr += 0.5 * probability * (weighed.baseline[0] + left)
    assert ips == pytest.approx(truth, abs=1e-6)
    assert dr == pytest.approx(truth, abs=1e-6)


def test_what_the_log_could_not_have_done_is_told():
    found = read(record(0, step("student", 1.0)), record(1, step("teacher", 1.0)), record(2, step("student", 0.9)))
    joint = np.array([[0.25, 0.0, 0.75], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    weighed = weigh(found, Paths(joint, 0.0, 0.0, 0), np.full((3, 2), [0.4, 0.8]))
    assert weighed.unsupported.tolist() == [0.25, 0.0, 0.0]
    assert weighed.unsupported_worth == pytest.approx([0.2, 0.0, 0.0])


def test_of_two_sure_decisions_nothing_else_is_known():
    found = read(
        record(0, step("teacher", 1.0)),
        record(1, step("student", 1.0), step("keep", 1.0, at="defer")),
        record(2, step("student", 1.0), step("escalate", 1.0, at="defer")),
    )
    joint = np.array([[0.5, 0.2, 0.3]] * 3)
    weighed = weigh(found, Paths(joint, 0.0, 0.0, 0), np.full((3, 2), [0.4, 0.8]))
    assert weighed.unsupported == pytest.approx([0.5, 0.7, 0.8])
    assert weighed.unsupported_worth == pytest.approx([0.3 * 0.4 + 0.2 * 0.8, 0.7 * 0.8, 0.5 * 0.8 + 0.3 * 0.4])
