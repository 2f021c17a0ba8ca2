"""The kit that every policy passes: `check_policy(policy)` raises AssertionError with what is wrong.

Meant for tests, and for whoever writes a policy of their own.
"""

import copy
import math
import time
from dataclasses import replace

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Policy, Scores

TEXTS = (
    "",
    " ",
    "What is 2 + 2?",
    "A. one\nB. two\nC. three",
    "\x00\ud800\U0001f600 = = = 1/0 = 0",
    "0" * 3000 + "=" * 3000,
    "日本語の質問です。" * 40,
    "1,,,2,,.. $ -- 9" * 2000,
)
LOGPROBS = ((), (-0.1, -2.0), (0.0,), (float("-inf"), float("nan"), 5.0))
SHARES = (0.0, 1e-9, 0.01, 0.2, 1.0, 2.0, -1.0, float("nan"))


def observations(step: Step) -> list[Observation]:
    """Ordinary and nasty observations at one step."""
    found = []
    for i, text in enumerate(TEXTS):
        prompt = Prompt(text, text[: i * 10], turn=i + 1, last_route=(None, "student", "teacher")[i % 3])
        for logprobs in LOGPROBS:
            draft = Draft(TEXTS[-1 - i], logprobs, tuple(-x for x in logprobs), ("stop", "length", None)[i % 3])
            found.append(Observation(step, prompt, draft if step is not Step.ROUTE else None))
    return [*found, Observation(step, Prompt("hello", "hello"), None)]


def check_policy(policy: Policy, *, most_ms: float = 20.0) -> None:
    """Names, steps, finite scores for any text and budget, purity, speed.

    `most_ms` bounds the median time of one score on an ordinary request; generous, because machines differ.
    """
    assert isinstance(policy, Policy), f"{type(policy).__name__} does not implement Policy"
    assert policy.name, "a policy needs a name"
    assert policy.version, "a policy needs a version"
    assert policy.steps, "a policy wants to be asked at one step at least"
    assert list(policy.steps) == [step for step in Step if step in policy.steps], "steps come in the order of a request"
    for step in policy.steps:
        for observation in observations(step):
            _check_observation(policy, observation)
        _check_speed(policy, step, most_ms)


def _check_observation(policy: Policy, observation: Observation) -> None:
    before = copy.deepcopy(observation)
    for share in SHARES:
        asked = replace(observation, budget=BudgetState(share, 0.5))
        scores = policy.score(asked)
        assert isinstance(scores, Scores), f"score() returned {type(scores).__name__}"
        assert isinstance(scores.score, float), f"the score is a {type(scores.score).__name__}, expected a float"
        assert math.isfinite(scores.score), f"score {scores.score} at share {share} for {observation!r}"
        for name, value in scores.details.items():
            assert math.isfinite(value), f"detail {name} is {value} at share {share} for {observation!r}"
        assert policy.score(asked) == scores, f"two scores of one observation differ: {observation!r}"
    assert repr(observation) == repr(before), "the observation was changed"


def _check_speed(policy: Policy, step: Step, most_ms: float) -> None:
    text = "If a train goes 60 miles in 1.5 hours, how far does it go in 4 hours? " * 6
    draft = Draft("It goes 60 / 1.5 = 40 miles an hour, so 40 * 4 = 160. The answer is 160.", (-0.1,) * 30)
    observation = Observation(step, Prompt(text, text), None if step is Step.ROUTE else draft, BudgetState(0.2))
    times = []
    for _ in range(15):
        began = time.perf_counter()
        policy.score(observation)
        times.append((time.perf_counter() - began) * 1000)
    median = sorted(times)[len(times) // 2]
    assert median <= most_ms, f"a score at {step} takes {median:.2f} ms, expected at most {most_ms:g}"
