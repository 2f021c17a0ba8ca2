"""When the draft is read and when it is spared: on a made-up policy whose scores are known."""

from dataclasses import replace

import numpy as np
import pytest

from policies.action import Step
from policies.prompt_features import Floats
from policies.wheels import ESTIMATES, Prices, StepNet, WheelsPolicy, feature_names
from tests.training.tables import sums
from tests.training.test_learner import QUICK, learn
from training import constraint
from training.calibration import NEVER, calibrate, hold_back, spent

GAIN = ESTIMATES.index("trees_gain")


def net(step: Step, column: int) -> StepNet:
    """The gain is one feature; nothing else is looked at."""
    count = len(feature_names(step))
    estimates = len(ESTIMATES) * (1 if step is Step.ROUTE else 2)
    skip = np.zeros((estimates + 1, 2))
    skip[column, 1] = 1.0
    zeros = np.zeros
    return StepNet(
        zeros(count), np.ones(count), skip,
        zeros((count + 2, 2)), zeros(2), zeros((2, 2)), zeros(2),
        zeros((count + 2, 2)), zeros(2), zeros((2, 1)), zeros(1),
    )  # fmt: skip


def policy(draft_cost: float) -> WheelsPolicy:
    budgets = constraint.knots(0.01, 9)
    last = len(ESTIMATES) + GAIN
    return WheelsPolicy(
        name="made up", version="1", steps=(Step.ROUTE, Step.DEFER), estimators=None,  # type: ignore[arg-type]
        nets={Step.ROUTE: net(Step.ROUTE, GAIN), Step.DEFER: net(Step.DEFER, last)},
        prices=Prices(np.log(budgets), np.zeros(9)), temperature=0.5, scale=1.0, draft_cost=draft_cost,
    )  # fmt: skip


def rows(prompt: Floats, draft: Floats) -> dict[Step, Floats]:
    route = np.zeros((len(prompt), len(feature_names(Step.ROUTE))))
    defer = np.zeros((len(prompt), len(feature_names(Step.DEFER))))
    route[:, GAIN] = defer[:, GAIN] = prompt
    defer[:, len(ESTIMATES) + GAIN] = draft
    return {Step.ROUTE: route, Step.DEFER: defer}


def routed(held: WheelsPolicy, features: dict[Step, Floats]) -> float:
    return float((held.score_prepared(Step.ROUTE, features[Step.ROUTE], 0.7) > 0).mean())


@pytest.fixture(scope="module")
def gain() -> Floats:
    return np.random.default_rng(0).normal(size=600)


def test_a_prompt_that_says_all_spares_a_dear_draft(gain: Floats) -> None:
    features = rows(gain, gain)
    begun = calibrate(policy(0.4), features)
    held = hold_back(begun, features, gain)
    assert routed(held, features) > routed(begun, features) > 0.0
    assert spent(held, features, 0.56) == pytest.approx(0.56, abs=0.03)


def test_a_prompt_that_misleads_never_spares_the_draft(gain: Floats) -> None:
    told = 3.0 * np.random.default_rng(1).normal(size=len(gain))
    features = rows(told, gain)
    begun = calibrate(policy(0.1), features)
    assert routed(begun, features) > 0.0
    held = hold_back(begun, features, gain)
    assert routed(held, features) == 0.0
    assert held.nets[Step.ROUTE].b2[0] == NEVER * held.temperature


def test_where_drafts_are_free_nothing_is_held_back(gain: Floats) -> None:
    features = rows(gain, gain)
    begun = calibrate(policy(0.0), features)
    assert hold_back(begun, features, gain) is begun


def test_a_network_that_is_not_borne_out_is_left_out() -> None:
    """Qualities at random: whatever the networks learned of them, hardly anything of it may reach the policy."""
    chance = np.random.default_rng(5).random((480, 2))
    noisy = [
        replace(row, student_quality=float(a), teacher_quality=float(b))
        for row, (a, b) in zip(sums(480), chance, strict=True)
    ]
    learned = learn(noisy, "draft", replace(QUICK, steps=200, draft_cost=0.2))
    for step, served in learned.policy.nets.items():
        trained = learned.loop.best[step]["w2"]
        assert np.abs(served.w2[:, 1]).max() <= 0.5 * float(trained[:, 1].abs().max()) + 1e-12
