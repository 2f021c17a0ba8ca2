"""The kit that every policy passes: `check_policy(policy)` raises AssertionError with what is wrong.

Meant for tests, and for whoever writes a policy of their own.
"""

import copy
import math
import time
from dataclasses import replace

from policies.action import Step
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import BatchPolicy, Policy, Scores

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
        held = (None, 0, 10**9)[i % 3]
        prompt = Prompt(text, text[: i * 10], i + 1, (None, "student", "teacher")[i % 3], held, held)
        for logprobs in LOGPROBS:
            draft = Draft(TEXTS[-1 - i], logprobs, tuple(-x for x in logprobs), ("stop", "length", None)[i % 3])
            found.append(Observation(step, prompt, draft if step is not Step.ROUTE else None))
    return [*found, Observation(step, Prompt("hello", "hello"), None)]


def check_policy(policy: Policy, *, most_ms: float = 20.0) -> None:
    """Names, steps, finite scores for any text and budget, purity, speed; with `score_batch`, the same scores together.

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
    if isinstance(policy, BatchPolicy):
        _check_batches(policy)


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
        _check_teachers(policy, scores)
        assert policy.score(asked) == scores, f"two scores of one observation differ: {observation!r}"
    assert repr(observation) == repr(before), "the observation was changed"


def _check_teachers(policy: Policy, scores: Scores) -> None:
    """Of a policy that knows several: every one of them, by name, in the same order; the best one's score counts."""
    names = tuple(getattr(policy, "teachers", ()))
    found = tuple(teacher.name for teacher in scores.teachers)
    assert found == names, f"the policy knows the teachers {names}, and its scores name {found}"
    if not names:
        return
    assert len(set(names)) == len(names) > 1, f"several teachers have names of their own, not {names}"
    best = max(teacher.score for teacher in scores.teachers)
    assert scores.score == best, f"the score is {scores.score}, the best teacher's is {best}"
    for teacher in scores.teachers:
        numbers = [teacher.score, teacher.gain, *(each for each in (teacher.usd, teacher.most_usd) if each is not None)]
        assert all(map(math.isfinite, numbers)), f"{teacher} is not finite"
        assert teacher.usd is None or teacher.usd > 0, f"{teacher} costs nothing"
    assert len({teacher.usd is None for teacher in scores.teachers}) == 1, "bills are expected of all teachers or none"


def _check_batches(policy: BatchPolicy) -> None:
    """All sizes up to 7, larger ones, steps and budgets mixed as a gateway's are: each score as if asked alone."""
    mixed = [
        replace(observation, budget=BudgetState(SHARES[i % len(SHARES)], 0.5))
        for step in policy.steps
        for i, observation in enumerate(observations(step))
    ]
    mixed = mixed[::2] + mixed[1::2]  # so that neighbours differ in step, too
    before = repr(mixed)
    alone = [policy.score(observation) for observation in mixed]
    for size in (1, 2, 3, 5, 7, 32, len(mixed)):
        for first in range(0, len(mixed), size):
            batch = mixed[first : first + size]
            found = policy.score_batch(batch)
            assert len(found) == len(batch), f"{len(found)} scores for a batch of {len(batch)}"
            for observation, together, expected in zip(batch, found, alone[first:], strict=False):
                assert isinstance(together, Scores), f"score_batch() gave a {type(together).__name__}"
                assert _alike(together, expected), (
                    f"in a batch of {len(batch)} the score is {together}, alone it is {expected}, for {observation!r}"
                )
    assert repr(mixed) == before, "an observation of a batch was changed"


def _alike(a: Scores, b: Scores) -> bool:
    """Up to what the order of additions in a larger matrix product changes."""
    if a.details.keys() != b.details.keys() or not isinstance(a.score, float):
        return False
    if [teacher.name for teacher in a.teachers] != [teacher.name for teacher in b.teachers]:
        return False
    pairs = [(a.score, b.score), *((a.details[name], b.details[name]) for name in a.details)]
    for first, second in zip(a.teachers, b.teachers, strict=True):
        pairs += [(first.score, second.score), (first.gain, second.gain), (first.usd or 0.0, second.usd or 0.0)]
    return all(math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-6) for x, y in pairs)


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
