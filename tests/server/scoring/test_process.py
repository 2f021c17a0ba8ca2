"""The real scoring process, with the shipped policy and with artifacts that misbehave."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policies.action import Step
from policies.artifact import load_policy
from policies.observation import BudgetState, Draft, Observation, Prompt
from policies.policy import Scores
from server.scoring.child import score_all
from server.scoring.process import ProcessScorer
from server.scoring.scorer import InlineScorer, ScoringFailed

POLICY = Path(__file__).parents[3] / "server" / "shipped" / "policy"


def asked(i: int) -> Observation:
    question = f"Anna has {i} apples and buys {i % 7} more. How many has she now?"
    return Observation(Step.DEFER, Prompt(question, question), Draft(f"{i}", (-0.1 * i,), (), "stop"), BudgetState(0.2))


@pytest.fixture
async def scorer() -> AsyncIterator[ProcessScorer]:
    scorer = await ProcessScorer.start(POLICY, deadline_s=5.0)
    yield scorer
    await scorer.close()


async def test_the_process_says_what_the_policy_says(scorer: ProcessScorer) -> None:
    policy = load_policy(POLICY)
    assert (scorer.name, scorer.version, scorer.steps) == (policy.name, policy.version, policy.steps)
    found = await asyncio.gather(*(scorer.score(asked(i)) for i in range(150)))
    assert [scores.score for scores in found] == pytest.approx([policy.score(asked(i)).score for i in range(150)])
    assert found[7].details == pytest.approx(policy.score(asked(7)).details)


async def test_who_comes_alone_goes_at_once_and_many_share_the_frames(scorer: ProcessScorer) -> None:
    line = scorer._beside.line
    assert line is not None

    def under_way() -> list[int]:
        return [len(frame) for frame in line._under_way]

    alone = asyncio.ensure_future(scorer.score(asked(0)))
    await asyncio.sleep(0)
    assert under_way() == [1]
    await alone
    many = [asyncio.ensure_future(scorer.score(asked(i))) for i in range(25)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert under_way() == [1, 12, 12]  # one was there first; the others did not wait for it to be scored
    await asyncio.gather(*many)


async def test_what_was_asked_before_closing_is_answered() -> None:
    scorer = await ProcessScorer.start(POLICY, deadline_s=5.0)
    asking = [asyncio.ensure_future(scorer.score(asked(i))) for i in range(80)]
    await asyncio.sleep(0)
    await scorer.close()
    assert all(isinstance(scores, Scores) for scores in await asyncio.gather(*asking))
    with pytest.raises(ScoringFailed):
        await scorer.score(asked(1))


async def test_a_request_that_is_gone_takes_nobody_along(scorer: ProcessScorer) -> None:
    gone, stays = asyncio.ensure_future(scorer.score(asked(1))), asyncio.ensure_future(scorer.score(asked(2)))
    await asyncio.sleep(0)
    gone.cancel()
    assert isinstance(await stays, Scores)


async def test_a_killed_process_fails_what_it_had_and_starts_again(scorer: ProcessScorer) -> None:
    first = scorer.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    waiting = asyncio.ensure_future(scorer.score(asked(1)))
    await asyncio.sleep(0.05)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ScoringFailed, match="its process ended"):
        await waiting
    assert isinstance(await eventually(scorer), Scores)
    assert scorer.pid != first


async def test_a_hanging_policy_is_given_up_after_the_deadline() -> None:
    scorer = await ProcessScorer.start(POLICY, deadline_s=0.2)
    try:
        first = scorer.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(ScoringFailed, match="did not answer within 200 ms"):
            await scorer.score(asked(1))
        assert time.monotonic() - began < 2.0
        with pytest.raises(ScoringFailed):  # at once, while the next process is not there yet
            await scorer.score(asked(2))
        assert isinstance(await eventually(scorer), Scores)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
    finally:
        await scorer.close()


async def eventually(scorer: ProcessScorer) -> Scores:
    for _ in range(400):
        try:
            return await scorer.score(asked(3))
        except ScoringFailed:
            await asyncio.sleep(0.05)
    raise AssertionError("the process did not come back")


async def test_an_artifact_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(ScoringFailed, match=r"manifest\.json"):
        await ProcessScorer.start(tmp_path, deadline_s=1.0)


class Stumbling:
    """Raises on one text, alone or among others."""

    name, version, steps = "stumbling", "1", (Step.ROUTE,)

    def score(self, observation: Observation) -> Scores:
        if observation.prompt.text == "stumble":
            raise KeyError("a word it does not know")
        return Scores(float(len(observation.prompt.text)))

    def score_batch(self, observations: list[Observation]) -> list[Scores]:
        return [self.score(observation) for observation in observations]


def test_one_request_that_the_policy_cannot_score_costs_the_others_nothing() -> None:
    texts = ("one", "stumble", "three")
    first, second, third = score_all(
        Stumbling(), Stumbling(), [Observation(Step.ROUTE, Prompt(text, text)) for text in texts]
    )
    assert (first, third) == (Scores(3.0), Scores(5.0))
    assert isinstance(second, KeyError)


async def test_a_policy_in_the_same_process_is_asked_directly() -> None:
    scorer = InlineScorer(Stumbling())
    assert (scorer.name, scorer.version, scorer.steps) == ("stumbling", "1", (Step.ROUTE,))
    assert await scorer.score(Observation(Step.ROUTE, Prompt("four", "four"))) == Scores(4.0)
    with pytest.raises(KeyError):
        await scorer.score(Observation(Step.ROUTE, Prompt("stumble", "stumble")))
