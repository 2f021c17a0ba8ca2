from dataclasses import dataclass, replace

import pytest

from policies.action import Step
from policies.conformance import check_policy
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Policy, Scores
from policies.safe import SAFE


@pytest.mark.parametrize("name", SAFE)
def test_every_safe_policy_is_a_policy_under_its_own_name(name: str) -> None:
    policy = SAFE[name]  # type: ignore[index]
    check_policy(policy)
    assert policy.name == name


def score(policy: Policy, text: str = "", logprob: float = -0.1, share: float = 0.2) -> float:
    draft = Draft("words", (logprob,) * 5)
    return policy.score(Observation(policy.steps[0], Prompt(text, text), draft, BudgetState(share))).score


def test_longer_prompts_and_less_probable_drafts_are_worth_more() -> None:
    assert score(SAFE["length"], "x" * 100) < score(SAFE["length"], "x" * 1000) < score(SAFE["length"], "x" * 9000)
    assert score(SAFE["logprob"], logprob=-0.1) < score(SAFE["logprob"], logprob=-1.0)
    assert score(SAFE["length"], "x" * 300, share=0.1) < 0 < score(SAFE["length"], "x" * 300, share=0.9)


def test_a_draft_without_log_probabilities_is_kept() -> None:
    observation = Observation(Step.DEFER, Prompt("hi", "hi"), Draft("words"), BudgetState(0.2))
    assert SAFE["logprob"].score(observation).score < -5


@dataclass
class Batching:
    """A policy whose batches can be made wrong."""

    twist: str = ""
    name: str = "batching"
    version: str = "1"
    steps: tuple[Step, ...] = (Step.ROUTE, Step.DEFER)

    def score(self, observation: Observation) -> Scores:
        return Scores(
            float(len(observation.prompt.text) + len(observation.step)), {"turn": float(observation.prompt.turn)}
        )

    def score_batch(self, observations: list[Observation]) -> list[Scores]:
        found = [self.score(observation) for observation in observations]
        match self.twist:
            case "one short" if len(found) > 2:
                return found[:-1]
            case "swapped" if len(found) == 5:
                return [found[1], found[0], *found[2:]]
            case "no details":
                return [replace(each, details={}) for each in found]
            case "leaking" if len(found) > 1:
                return [Scores(each.score + found[0].score * 1e-3, each.details) for each in found]
            case _:
                return found


def test_a_batch_that_says_what_each_alone_says_passes() -> None:
    check_policy(Batching())


@pytest.mark.parametrize("twist", ["one short", "swapped", "no details", "leaking"])
def test_the_kit_catches_wrong_batches(twist: str) -> None:
    with pytest.raises(AssertionError, match="batch"):
        check_policy(Batching(twist))
