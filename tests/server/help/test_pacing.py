"""A watched student's threshold follows the budget: the share of tokens that was asked for is the share that is got."""

import random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from policies.action import Step
from policies.observation import Observation, Prompt
from router.aim import FREE
from router.budget import Limit
from server.deciding import Decider
from server.help.answer import MixedAnswer
from server.help.probe import Traits
from server.help.watch import Watch
from server.help.worker import HelpWorker
from server.in_service import InService
from server.scoring.scorer import InlineScorer
from server.settings import Help as Settings
from server.telemetry import Metrics
from server.token_promise import TokenPromise
from tests.server.gateways import ScriptedPolicy
from tests.server.help.models import Help, Model, asked, run


class Doubtful(Model):
    """Each token as probable as chance has it."""

    draw = random.Random(3)

    def _chunk(self, chat: bool, body: dict[str, Any], text: str, token: str, logprob: float, *rest: Any) -> Any:
        return super()._chunk(chat, body, text, token, -self.draw.expovariate(2.0), *rest)


class Granting:
    """The promise on tokens and nothing else."""

    def __init__(self, promise: TokenPromise) -> None:
        self.promise = promise
        self.refused = 0

    async def admit(self, text_bytes: int, tokens: int) -> Help | None:
        if self.promise.reserve(tokens) is not None:
            self.refused += 1
            return None
        promise = self.promise

        class Settling(Help):
            def settle(self, usage: Any, written: int) -> None:
                promise.give_back(self.tokens - written)
                super().settle(usage, written)

        return Settling(tokens)


@pytest.mark.parametrize(("share", "tokens"), [(0.1, 1), (0.2, 4), (0.5, 1)])
async def test_the_share_got_is_the_share_asked_for(share: float, tokens: int) -> None:
    promise = TokenPromise()
    promise.take([Limit("cap", "token_share", share)], None)
    worker = HelpWorker(Settings(by="policy", tokens=tokens, max_segments=1000), promise, Traits())
    decider = Decider(
        InService(InlineScorer(ScriptedPolicy())),
        Metrics(CollectorRegistry()),
        explore=0.0,
        draw=random.Random(1).random,
    )
    calls = Granting(promise)
    text = "So it is. " * 6
    for _ in range(40):
        watch = Watch(worker, decider, None, Prompt(text, text), FREE)
        answer = MixedAnswer(worker, asked(), Doubtful("student", text), Doubtful("teacher", text), calls, watch=watch)
        assert (await run(answer))[0] == text
        worker.answered(answer.line.used, watch.checks)
        assert promise.account.teacher <= share * promise.account.total
    got = promise.account.teacher / promise.account.total
    assert share - 0.025 <= got <= share
    helps = promise.account.teacher / tokens
    assert calls.refused < max(0.25 * helps, 20), "pacing seldom asks for what is not there"


async def test_a_policy_that_knows_the_help_step_is_asked_and_the_rule_where_it_fails() -> None:
    def scores(observation: Observation) -> float:
        assert observation.draft is not None
        if len(observation.draft.text) > 9:
            raise ValueError("no more")
        return 1.0 if observation.draft.text == "So it" else -1.0

    policy = ScriptedPolicy(scores, steps=(Step.ROUTE, Step.HELP))
    decider = Decider(InService(InlineScorer(policy)), Metrics(CollectorRegistry()), explore=0.0, draw=lambda: 0.5)
    worker = HelpWorker(Settings(by="policy", tokens=2), traits=Traits())
    text = "So it is. So be it."
    consulted = decider.begin("", "dec_1")
    watch = Watch(worker, decider, consulted, Prompt(text, text), FREE)
    promise = Granting(worker.promise)
    student = Model("student", text, doubts_at={15})
    answer = MixedAnswer(worker, asked(), student, Model("teacher", text), promise, watch=watch)
    assert (await run(answer))[0] == text
    consulted.release()
    assert [(s.by, s.tokens) for s in answer.segments][:4] == [
        ("student", 5), ("teacher", 2), ("student", 8), ("teacher", 2),
    ]  # fmt: skip
    assert {seen.step for seen in policy.seen} == {Step.HELP}
