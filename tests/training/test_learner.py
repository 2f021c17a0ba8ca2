"""The loop on small made-up tables. Sizes are as small as the claims allow."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from policies.action import Step
from policies.conformance import check_policy
from policies.outcomes import Outcome
from policies.policy import Signals
from policies.wheels import WheelsPolicy
from tests.training.tables import sums
from training import constraint
from training.calibration import spent
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, Fitted, fit_estimators
from training.evaluate import evaluate, observations
from training.learner import (
    Loop,
    PathConsistencyConfig,
    begin,
    finish,
    judge,
    losses,
    run,
)
from training.lessons import Lessons, prepare
from training.metrics import apgr
from training.networks import TrainableStepNet
from training.train_policy import shuffled
from training.trajectories import off_policy
from training.validation import price_at

QUICK = PathConsistencyConfig(
    steps=60, batch=64, evaluate_every=20, knots=9, estimators=EstimatorConfig(trees=15, folds=2, least_leaf_rows=10)
)
ROWS = sums(480)


@dataclass(frozen=True, slots=True)
class Learned:
    rows: list[Outcome]
    table: Table
    fitted: Fitted
    lessons: Lessons
    loop: Loop
    policy: WheelsPolicy

    def report(self, resamples: int = 0) -> dict[str, Any]:
        return evaluate(self.policy, [self.rows[i] for i in self.table.rows("test")], resamples=resamples)


def learn(
    rows: list[Outcome],
    signals: Signals,
    config: PathConsistencyConfig = QUICK,
    *,
    shuffle: bool = False,
    again: Learned | None = None,
) -> Learned:
    """The whole way; `again` spares table and estimators of an earlier run."""
    torch.set_num_threads(1)
    if again is not None:
        table, fitted = again.table, again.fitted
    else:
        table = build_table(rows, signals)
        table = shuffled(table, 1) if shuffle else table
        fitted = fit_estimators(table, config.estimators)
    lessons = prepare(table, fitted)
    loop = begin(lessons, config)
    run(loop, lessons, config)
    return Learned(rows, table, fitted, lessons, loop, finish(loop, lessons, fitted.estimators, table, config, "small"))


@pytest.fixture(scope="module")
def drafted() -> Learned:
    return learn(ROWS, "draft")


def test_it_beats_random_and_the_interval_says_so(drafted: Learned) -> None:
    report = drafted.report(resamples=200)
    assert report["apgr"] > 0.75
    assert report["apgr_ci95"][0] > 0.55
    for point in report["curve"]:
        random = report["student_quality"] + point["share"] * (report["teacher_quality"] - report["student_quality"])
        assert point["share"] <= point["budget"]
        assert point["quality"] >= random - 0.02


def test_the_share_asked_without_any_pacing_is_near_the_budget(drafted: Learned) -> None:
    for point in drafted.report()["curve"]:
        if 0.05 <= point["budget"] <= 0.3:
            assert point["open_loop_share"] == pytest.approx(point["budget"], abs=0.08)


def test_short_answers_without_log_probabilities_route_less_well_but_route() -> None:
    assert 0.55 < learn(sums(480, logprobs=False), "draft").report()["apgr"] < 1.2


def test_shuffled_qualities_leave_nothing_to_learn() -> None:
    found = learn(ROWS, "draft", shuffle=True)
    test = found.table.rows("test")
    prepared = found.policy.prepare(observations([ROWS[i] for i in test], Step.DEFER))
    score = found.policy.score_prepared(Step.DEFER, prepared, 0.2)
    assert apgr(score, found.table.student[test], found.table.teacher[test]) == pytest.approx(0.5, abs=0.15)


def test_with_a_free_draft_the_teacher_is_not_asked_before_reading_it(drafted: Learned) -> None:
    for share in (0.05, 0.2, 0.5):
        assert (drafted.policy.score_prepared(Step.ROUTE, drafted.lessons.route.numpy(), share) > 0).mean() < 0.02


def test_a_dear_draft_is_sometimes_skipped(drafted: Learned) -> None:
    dear = learn(ROWS, "draft", replace(QUICK, draft_cost=0.4, steps=100), again=drafted)
    asked = dear.policy.score_prepared(Step.ROUTE, dear.lessons.route.numpy(), 0.7) > 0
    free = drafted.policy.score_prepared(Step.ROUTE, drafted.lessons.route.numpy(), 0.7) > 0
    assert asked.mean() > 0.05
    assert asked.mean() > free.mean()


def test_prompt_signals_alone_give_one_step() -> None:
    found = learn(ROWS, "prompt")
    assert found.policy.steps == (Step.ROUTE,)
    assert found.table.draft is None
    assert found.report()["apgr"] > 0.5


def test_a_seed_gives_the_same_weights_again(drafted: Learned) -> None:
    again = learn(ROWS, "draft").policy.arrays()
    for name, array in drafted.policy.arrays().items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_more_budget_means_a_lower_price(drafted: Learned) -> None:
    prices = drafted.policy.prices
    assert (np.diff(prices.price) <= 0).all()
    assert prices.at(1.0) == 0.0
    assert prices.price[0] > 0


def test_the_torch_and_the_numpy_forward_pass_agree(drafted: Learned) -> None:
    share = torch.full((50,), 0.2, dtype=torch.float64)
    prices = drafted.policy.prices
    multiplier = constraint.start(np.exp(prices.log_share), prices.price)
    features = {Step.ROUTE: drafted.lessons.route[:50], Step.DEFER: drafted.lessons.defer[:50]}
    for step, rows in features.items():
        with torch.no_grad():
            judged = judge(drafted.loop.nets, step, rows, share, price_at(share, multiplier), QUICK)
        served = drafted.policy.score_prepared(step, rows.numpy(), 0.2)
        np.testing.assert_allclose(served, (judged.log_ask - judged.log_stay).numpy(), atol=1e-9)


def test_one_score_is_the_same_as_many(drafted: Learned) -> None:
    seen = observations(ROWS[:5], Step.DEFER, 0.2)
    many = drafted.policy.score_prepared(Step.DEFER, drafted.policy.prepare(seen), 0.2)
    np.testing.assert_allclose([drafted.policy.score(one).score for one in seen], many, atol=1e-9)


def test_a_feature_that_never_moved_in_training_has_no_say_in_service() -> None:
    """Rows of most tables are first turns; a later turn of a conversation must meet no weights that nothing taught."""
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=50), np.full(50, 0.7)])
    net = TrainableStepNet(
        features, np.zeros((1, 2)), hidden=8, critic_hidden=4, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        net.w2.normal_(generator=torch.Generator().manual_seed(1))
        net.cost_w2.normal_(generator=torch.Generator().manual_seed(2))
    share, price = np.full(2, 0.2), np.full(2, 0.1)
    same = net.export().values(np.array([[0.3, 0.7], [0.3, 5.0]]), share, price)
    moved = net.export().values(np.array([[0.3, 0.7], [1.3, 0.7]]), share, price)
    for values in same:
        np.testing.assert_array_equal(values[0], values[1])
    assert not np.allclose(moved[2][0], moved[2][1])


def test_a_learned_policy_passes_the_conformance_kit(drafted: Learned) -> None:
    check_policy(drafted.policy, most_ms=100)


def test_rows_with_one_quality_unknown_still_teach() -> None:
    rows = [replace(row, teacher_quality=None) if i % 4 == 0 else row for i, row in enumerate(ROWS)]
    found = learn(rows, "draft")
    assert len(found.table.rows("test")) < (found.table.split == "test").sum()
    assert found.report()["apgr"] > 0.6


def test_an_unknown_branch_weighs_nothing(drafted: Learned) -> None:
    lessons = replace(drafted.lessons, teacher=drafted.lessons.teacher.clone())
    loop = begin(lessons, QUICK)
    four = off_policy(torch.arange(4), torch.full((4,), 0.2, dtype=torch.float64), two_steps=True)
    before = losses(loop.nets, loop.lagged, lessons, four, loop.multiplier, QUICK)
    lessons.teacher[2] = torch.nan
    after = losses(loop.nets, loop.lagged, lessons, four, loop.multiplier, QUICK)
    assert torch.isfinite(after.policy)
    assert after.policy.item() != before.policy.item()


@pytest.mark.parametrize(("on_policy", "trust"), [(0.0, 0.0), (1.0, 0.3)])
def test_each_mixture_and_the_reference_term_train(drafted: Learned, on_policy: float, trust: float) -> None:
    found = learn(ROWS, "draft", replace(QUICK, steps=20, trust=trust, on_policy=on_policy), again=drafted)
    assert found.report()["apgr"] > 0.6


def test_what_a_policy_spends_is_counted_with_its_drafts(drafted: Learned) -> None:
    features = {Step.ROUTE: drafted.lessons.route.numpy(), Step.DEFER: drafted.lessons.defer.numpy()}
    free = spent(drafted.policy, features, 0.2)
    assert spent(replace(drafted.policy, draft_cost=0.1), features, 0.2) == pytest.approx(free + 0.1, abs=0.03)
