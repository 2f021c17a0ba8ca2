"""The help step of a student that does not ask by itself: a policy looks at what it writes, token by token or a few at
a time, before it goes out. The policy in service is asked where it knows the help step, else the plain rule."""

from dataclasses import dataclass

from policies.action import Step
from policies.observation import Draft, Observation, Prompt
from policies.policy import Scores
from router.aim import Aim
from router.pacing import decide, step
from server.consultation import Consultation, finite
from server.deciding import Decider
from server.help.worker import HelpWorker


@dataclass(frozen=True, slots=True)
class Looked:
    wants_help: bool
    score: float
    propensity: float


class Watch:
    """For one answer."""

    def __init__(
        self, worker: HelpWorker, decider: Decider, consulted: Consultation | None, prompt: Prompt, budget: Aim
    ) -> None:
        self._worker = worker
        self._decider = decider
        self._policy = consulted.policy if consulted is not None and Step.HELP in consulted.policy.steps else None
        self._prompt = prompt
        self._budget = budget
        self.checks = 0

    async def look(self, text: str, largest: tuple[float, ...]) -> Looked:
        """`text`: the answer so far; `largest`: for each token just written, the log-probability of the likeliest one
        at its place."""
        self.checks += 1
        worker, decider = self._worker, self._decider
        aimed = worker.aim(self._budget)
        observation = Observation(Step.HELP, self._prompt, Draft(text, logprobs=largest, complete=False), aimed.state)
        score = await self._score(observation)
        choice = decide(score, worker.pacer, aimed, draw=decider.draw(), explore=decider.explore)
        worker.pacer = step(worker.pacer, score, aimed, teacher=choice.teacher)
        return Looked(choice.teacher, score, choice.propensity)

    async def _score(self, observation: Observation) -> float:
        policy = self._policy
        if policy is not None and not policy.breaker.aside:
            try:
                scores: Scores = await policy.scorer.score(observation)
                return finite(scores)
            except Exception as error:
                self._decider.note_failure(policy, error)
                self._policy = None  # the rule goes on with this answer
        return self._worker.rule.score(observation).score
