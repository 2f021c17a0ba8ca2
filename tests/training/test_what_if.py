"""What a budget or a policy would have done: against truth, and what is said where the log cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

from policies.action import Step
from policies.observation import Observation
from policies.policy import Scores
from router.language import parse
from router.record import Reason
from tests.training.decisions import Traffic, feedback, record, step, traffic
from training.candidates import CannotScore, as_logged, with_policy
from training.decision_rows import DecisionRows, LogError, join
from training.outcome_model import expected_outcomes
from training.recorded_traffic import record_traffic
from training.replay_paths import at_share, replay
from training.what_if import gather, same_share
from training.what_if_report import share_told, what_if_report


def read(rows) -> DecisionRows:
    return join((f"row {i}", row if isinstance(row, dict) else row.as_dict()) for i, row in enumerate(rows))


def report(rows, text="Aim for 30% of requests.", **how):
    log = read(rows)
    budget = parse(text).budget
    return what_if_report(gather(log, share=share_told(budget), **how), budget, log=log, text=text)


def codes(found) -> set[str]:
    return {warning["code"] for warning in found["warnings"]}


def holds(interval, value) -> bool:
    return interval[0] <= value <= interval[1]


@pytest.fixture(scope="module")
def explored() -> Traffic:
    return traffic(2500)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_another_share_is_valued_at_what_it_would_have_got(explored, share):
    found = report(explored.rows, f"Aim for {share:.0%} of requests.")
    assert found["answerable"]
    assert found["warnings"] == []
    assert found["share"] == pytest.approx(share, abs=0.01)
    truth = explored.best(share)
    assert abs(found["quality"] - truth) < 0.02
    for estimate in (found, *found["estimators"].values()):
        assert holds(estimate["quality_ci95"], truth)
    low, high = found["quality_ci95"]
    assert high - low < 0.12
    assert found["usd_per_request"] == pytest.approx(0.001 * share, abs=1e-5)


def test_half_of_the_qualities_unknown_widens_the_interval_and_says_what_is_assumed():
    whole, half = traffic(2500), traffic(2500, told=0.5)
    one, other = report(whole.rows), report(half.rows)
    assert holds(other["quality_ci95"], half.best(0.3))
    assert np.diff(one["quality_ci95"]) < np.diff(other["quality_ci95"])
    assert any("missing at random" in note for note in other["notes"])
    assert other["logged"]["quality_known"] == pytest.approx(0.5, abs=0.03)


def test_references_and_curve(explored):
    found = report(explored.rows)
    assert holds(found["references"]["student_only"]["quality_ci95"], np.mean(explored.student))
    assert holds(found["references"]["teacher_only"]["quality_ci95"], np.mean(explored.teacher))
    assert [point["budget"] for point in found["curve"]] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert [point["share"] for point in found["curve"]] == pytest.approx([0.05, 0.1, 0.2, 0.3, 0.5])
    change = found["change"]
    assert change["quality"] == pytest.approx(found["quality"] - found["logged"]["quality"], abs=1e-5)
    assert holds(change["quality_ci95"], change["quality"])


def test_the_same_log_gives_the_same_report(explored):
    assert report(explored.rows) == report(list(reversed(explored.rows)))


def test_without_exploration_the_interval_holds_whatever_was_never_seen():
    log = traffic(2000, explore=0.0)
    found = report(log.rows, "Aim for 50% of requests.")
    assert not found["answerable"]
    assert "no_exploration" in codes(found)
    assert found["unsupported"] == pytest.approx(0.3, abs=0.03)
    assert holds(found["quality_ci95"], log.best(0.5))
    assert np.diff(found["quality_ci95"]) > found["unsupported"]
    assert all(each["quality_ci95"] is None for each in found["estimators"].values())


def test_without_exploration_the_student_alone_is_bounded_and_not_guessed():
    log = traffic(2000, explore=0.0)
    alone = report(log.rows)["references"]["student_only"]
    assert alone["unsupported"] == pytest.approx(0.2, abs=0.03)
    assert holds(alone["quality_ci95"], np.mean(log.student))


def test_without_qualities_only_shares_and_costs_are_said():
    found = report(traffic(500, told=0.0).rows)
    assert codes(found) == {"no_qualities"}
    assert not found["answerable"]
    assert (found["quality"], found["quality_ci95"], found["change"]) == (None, None, None)
    assert (found["estimators"], found["references"], found["curve"]) == ({}, {}, [])
    assert found["share"] == pytest.approx(0.3, abs=0.02)
    assert found["usd_per_request"] == pytest.approx(0.0003, abs=5e-5)


def test_a_question_too_far_from_what_was_done():
    found = report(traffic(600, explore=0.02, told=0.3).rows, "Aim for 95% of requests.")
    assert "too_different" in codes(found)
    assert not found["answerable"]


def test_small_propensities_are_told():
    found = report(traffic(4000, explore=0.01).rows, "Aim for 60% of requests.")
    assert "small_propensities" in codes(found)
    assert found["smallest_propensity"] == pytest.approx(0.005)


def test_feedback_that_depends_on_who_answered_is_told():
    log = traffic(2000)
    sides = {row.id: row.route for row in log.rows if not isinstance(row, dict)}
    rows = [
        row
        for row in log.rows
        if not isinstance(row, dict) or sides[row["feedback_on"]] == "teacher" or int(row["feedback_on"][4:]) % 3 == 0
    ]
    found = report(rows)
    assert "feedback_depends_on_the_answerer" in codes(found)
    assert holds(found["quality_ci95"], log.best(0.3))


def test_a_side_of_which_nothing_is_known_is_told():
    log = traffic(1500)
    sides = {row.id: row.route for row in log.rows if not isinstance(row, dict)}
    rows = [row for row in log.rows if not isinstance(row, dict) or sides[row["feedback_on"]] == "student"]
    assert "side_without_qualities" in codes(report(rows))


def test_forced_and_ruled_requests_are_kept_as_they_were(explored):
    fixed = [
        record(10_000 + i, reason=Reason.FORCED_TEACHER, teacher_calls=1, route="teacher", teacher_usd=0.001)
        for i in range(500)
    ]
    rows = [*explored.rows, *fixed, *(feedback(10_000 + i, 1.0) for i in range(500))]
    found = report(rows, "Aim for 30% of requests.")
    assert found["rows"] == 3000
    assert found["logged"]["fixed"] == {"the client asked for the teacher by name": 500}
    # They came last and were all the teacher's, so a third of the share is theirs, and their quality stands.
    assert found["share"] == pytest.approx((0.3 * 2500 + 500) / 3000, abs=0.01)
    assert holds(found["quality_ci95"], (explored.best(0.3) * 2500 + 500) / 3000)
    assert any("kept as they were" in note for note in found["notes"])


def test_a_cap_refuses_as_the_ledger_would(explored):
    text = "At most 100 teacher calls in total."
    found = report(explored.rows, f"{text} When exhausted return an error.")
    assert found["share"] * 2500 == pytest.approx(100, abs=1)
    assert "refusals" in codes(found)
    assert any("counts as 0" in warning["message"] for warning in found["warnings"])
    kept = report(explored.rows, text)
    assert found["quality"] < kept["quality"] - 0.03
    assert kept["quality"] == pytest.approx(explored.best(0.02), abs=0.05)


def test_rules_of_the_new_budget_decide_where_they_match():
    log = traffic(1000)
    rows = [
        row if isinstance(row, dict) else replace(row, tags=("legal",) if int(row.id[4:]) % 4 == 0 else ())
        for row in log.rows
    ]
    traffic_ = record_traffic(read(rows).rows)
    budget = parse('Aim for 40% of requests. Always use the teacher for requests tagged "legal".').budget
    paths = replay(traffic_, as_logged(traffic_), budget)
    assert paths.ruled == 250
    legal = np.array([row.tags == ("legal",) for row in traffic_.rows])
    assert paths.asks[legal].tolist() == [1.0] * 250


def test_rules_about_text_need_text():
    found = report(traffic(500).rows, "Aim for 30% of requests. Always use the teacher for legal questions.")
    assert "rules_without_text" in codes(found)


def test_what_the_log_itself_suffered_is_told(explored):
    refused = [
        record(20_000 + i, step("teacher", 0.9, admitted=False), reason=Reason.BUDGET_EXHAUSTED, teacher_calls=0)
        for i in range(100)
    ]
    assert "logged_refusals" in codes(report([*explored.rows, *refused]))
    other = [record(30_000, step(), policy_version="two")]
    assert "several_policies" in codes(report([*explored.rows, *other]))
    assert "few_requests" in codes(report(explored.rows[:100]))


def test_scores_of_a_moving_budget_are_ranked_by_the_gain_expected():
    log = traffic(1000)
    moved = []
    for row in log.rows:
        if isinstance(row, dict) or int(row.id[4:]) < 500:
            moved.append(row)
        else:  # the budget halved: the price rose by 0.06, that is one unit of the score
            decided = row.steps[0]
            details = {**decided.details, "price": decided.details["price"] + 0.06}
            moved.append(
                replace(row, budget_share=0.1, steps=(replace(decided, score=decided.score - 1.0, details=details),))
            )
    before, after = (record_traffic(read(rows).rows) for rows in (log.rows, moved))
    one, other = at_share(before, as_logged(before), 0.3), at_share(after, as_logged(after), 0.3)
    assert np.allclose(one.joint, other.joint)
    assert "ranked by the gain expected" in as_logged(after).notes[0]


class ByLength:
    """Asks about long prompts; reads drafts where it is told to."""

    name = "by-length"
    version = "length"

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    def score(self, observation: Observation) -> Scores:
        return Scores(len(observation.prompt.text) / 10 - 4)


def test_another_policy_is_asked_about_the_logged_prompts():
    log = traffic(2500, text=True)
    found = report(log.rows, policy=ByLength(Step.ROUTE))
    assert found["policy"] == {"version": "length", "as_logged": False}
    # It ranks by nearly the same thing, in steps of a tenth.
    assert found["quality"] == pytest.approx(log.best(0.3), abs=0.03)


def test_another_policy_without_prompts_is_refused_with_what_to_do():
    with pytest.raises(CannotScore, match=r"2500 of 2500 requests .* log_text") as error:
        report(traffic(2500).rows, policy=ByLength(Step.ROUTE))
    assert "leave --policy out" in str(error.value)


def test_a_policy_that_reads_drafts_needs_drafts():
    rows = record_traffic(read(traffic(50, text=True).rows).rows)
    with pytest.raises(CannotScore, match="reads the student's draft, and 50 of 50"):
        with_policy(rows, ByLength(Step.DEFER), 0.2)


def test_the_logged_policy_by_its_own_version_needs_no_text(explored):
    found = report(explored.rows, policy=type("Same", (ByLength,), {"version": "one"})(Step.ROUTE))
    assert found["policy"] == {"version": "one", "as_logged": True}


def test_a_log_of_forced_requests_alone_cannot_be_asked():
    with pytest.raises(LogError, match="none was routed by a policy"):
        gather(read([record(0, reason=Reason.FORCED_STUDENT)]))


def test_the_share_that_was_asked_stands_in_for_a_missing_sentence(explored):
    found = same_share(record_traffic(read(explored.rows).rows)).limits[0]
    asked = np.mean([row.route == "teacher" for row in explored.rows if not isinstance(row, dict)])
    assert (found.kind, found.measure, found.at_most) == ("target", "share", pytest.approx(asked, abs=1e-4))


def test_two_decisions_are_replayed_and_valued():
    """Route, then draft: the score at the draft is the better one. Both answers' worth depends on it alone."""
    rng = np.random.default_rng(0)
    rows, coin, worth = [], 0.1, []
    for number in range(3000):
        first = float(rng.normal())
        second = first + float(rng.normal())
        at_once = coin + 0.8 * (first > 1.5)
        student, teacher = float(rng.random() < 1 / (1 + np.exp(second))), float(rng.random() < 0.9)
        worth.append((max(first, second), student, teacher))
        draw = rng.random()
        if draw < at_once:
            steps, quality = (step("teacher", at_once, score=first),), teacher
        elif draw < at_once + coin:
            steps, quality = (step("student", 1 - at_once, score=first),), student
        else:
            escalate = coin + 0.8 * (second > 1.0)
            asks = rng.random() < escalate
            chosen = step("escalate" if asks else "keep", escalate if asks else 1 - escalate, at="defer", score=second)
            steps, quality = (step("student", 1 - at_once, score=first), chosen), teacher if asks else student
        rows += [record(number, *steps), feedback(number, quality)]
    found = report(rows)
    ranked = sorted(worth, reverse=True)
    truth = (sum(each[2] for each in ranked[:900]) + sum(each[1] for each in ranked[900:])) / 3000
    assert found["answerable"]
    assert found["share"] == pytest.approx(0.3, abs=0.03)
    assert abs(found["quality"] - truth) < 0.04
    assert holds(found["quality_ci95"], truth)
    assert any("Two decisions" in note for note in found["notes"])


def test_an_arm_without_outcomes_is_expected_to_be_as_the_policy_says():
    count = 50
    prior = np.column_stack([np.full(count, 0.3), np.full(count, 0.8)])
    outcome = np.full(count, 0.5)
    expected = expected_outcomes(np.zeros((count, 1)), np.zeros(count, dtype=np.int64), outcome, prior)
    assert expected[:, 1] == pytest.approx(np.full(count, 0.8))
    assert expected[:, 0] == pytest.approx(np.full(count, 0.5), abs=0.01)


def test_the_outcome_model_never_saw_the_request_it_speaks_of():
    rng = np.random.default_rng(0)
    features, arm, prior = rng.normal(size=(40, 2)), np.zeros(40, dtype=np.int64), np.full((40, 1), np.nan)
    outcome = rng.random(40)
    changed = outcome.copy()
    changed[7] = 1.0 - changed[7]
    before = expected_outcomes(features, arm, outcome, prior)
    after = expected_outcomes(features, arm, changed, prior)
    assert before[7, 0] == after[7, 0]
    assert not np.allclose(before, after)
