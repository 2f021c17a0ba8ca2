from pathlib import Path

import numpy as np
import pytest

from policies.action import Step
from policies.artifact import Manifest, load_policy, save_artifact
from policies.baselines import AlwaysStudent, AlwaysTeacher, Coin, Levels, Logistic, Neighbours, Standard, Threshold
from policies.conformance import check_policy
from policies.draft_features import DRAFT_FEATURES
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores
from policies.prompt_features import PROMPT_FEATURES


def ask(text: str, share: float, draft: Draft | None = None) -> Observation:
    step = Step.ROUTE if draft is None else Step.DEFER
    return Observation(step, Prompt(text, text), draft, BudgetState(share))


def standard(count: int) -> Standard:
    return Standard(np.zeros(count), np.ones(count))


LEVELS = Levels(np.linspace(1.0, -1.0, 201))
FEATURES = len(PROMPT_FEATURES)
POLICIES = [
    AlwaysStudent(),
    AlwaysTeacher(),
    Coin(seed=1),
    Threshold("logprob_mean", -1.0, LEVELS, "draft"),
    Threshold("log_bytes", 1.0, LEVELS, "prompt"),
    Logistic(standard(FEATURES), np.linspace(-1, 1, FEATURES), 0.1, LEVELS, "prompt"),
    Logistic(standard(FEATURES + len(DRAFT_FEATURES)), np.ones(FEATURES + len(DRAFT_FEATURES)), 0.1, LEVELS, "draft"),
    Neighbours(
        standard(FEATURES), np.random.default_rng(0).normal(size=(9, FEATURES)), np.arange(9.0), 3, LEVELS, "prompt"
    ),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.name}-{policy.steps[0]}")
def test_every_baseline_passes_the_kit(policy) -> None:
    check_policy(policy, most_ms=100)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.name}-{policy.steps[0]}")
def test_every_baseline_comes_back_from_its_artifact(tmp_path: Path, policy) -> None:
    kind = getattr(policy, "kind", policy.name)
    signals = "draft" if policy.steps[0] is Step.DEFER else "prompt"
    arrays = policy.arrays() if hasattr(policy, "arrays") else {}
    manifest = Manifest(kind=kind, name=policy.name, signals=signals, seed=getattr(policy, "seed", None))
    save_artifact(tmp_path / "p", manifest, arrays)
    loaded = load_policy(tmp_path / "p")
    seen = ask("What is 7 * 8?", 0.3, Draft("56", (-0.5,)) if signals == "draft" else None)
    assert loaded.score(seen).score == pytest.approx(policy.score(seen).score, abs=1e-5)
    assert loaded.steps == policy.steps


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_coin_asks_for_its_share_and_always_decides_alike(share: float) -> None:
    asked = [Coin(3).score(ask(f"question {i}", share)).score > 0 for i in range(4000)]
    assert sum(asked) / 4000 == pytest.approx(share, abs=0.025)
    assert asked == [Coin(3).score(ask(f"question {i}", share)).score > 0 for i in range(4000)]


def test_a_threshold_asks_where_the_log_probability_is_low() -> None:
    values = -np.linspace(-3.0, 0.0, 301)
    policy = Threshold("logprob_mean", -1.0, Levels.of(values), "draft")
    unsure, sure = Draft("29", (-2.5,)), Draft("29", (-0.1,))
    assert policy.score(ask("?", 0.3, unsure)).score > 0 > policy.score(ask("?", 0.3, sure)).score


def test_levels_give_the_share_asked_for() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=5000)
    levels = Levels.of(values)
    for share in (0.05, 0.3, 0.8):
        assert (values > levels.at(share)).mean() == pytest.approx(share, abs=0.01)
    assert (values > levels.at(0.0)).sum() == 0
    assert levels.at(2.0) == levels.at(1.0)


class Broken:
    name = "broken"
    version = "1"
    steps = (Step.ROUTE,)

    def __init__(self, score) -> None:
        self.score = score


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda _: 0.5, "returned float"),
        (lambda _: Scores(float("nan")), "score nan"),
        (lambda _: Scores(0.0, {"gain": float("inf")}), "detail gain is inf"),
        (lambda _: Scores(1), "is a int"),
        (lambda _, calls=[]: Scores(float(calls.append(1) or len(calls))), "differ"),
    ],
)
def test_the_kit_finds_what_is_wrong(score, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_policy(Broken(score))


def test_the_kit_wants_a_policy() -> None:
    with pytest.raises(AssertionError, match="does not implement Policy"):
        check_policy(object())  # type: ignore[arg-type]
