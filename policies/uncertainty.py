"""When a student that was not trained to ask should be helped: where its likeliest next token is not likely.

The rule is the rival that learned askers are measured against (a threshold on the largest probability). Pacing moves
the threshold so that the teacher's part follows the budget; `doubt` is where it stands while nothing limits.
"""

import math
from dataclasses import dataclass

from policies.action import Step
from policies.observation import Observation
from policies.policy import Scores

NO_DOUBT = -50.0
"""The score where there are no log-probabilities to look at."""


@dataclass(frozen=True, slots=True)
class LargestProbability:
    """Reads `draft.logprobs`: at the help step, those of the likeliest token at each of the places last written."""

    doubt: float = 0.5
    """The largest probability under which the student is doubted."""
    name: str = "largest-probability"
    version: str = "largest-probability-1"
    steps: tuple[Step, ...] = (Step.HELP,)

    def score(self, observation: Observation) -> Scores:
        logprobs = [x for x in observation.draft.logprobs if math.isfinite(x)] if observation.draft else []
        if not logprobs:
            return Scores(NO_DOUBT)
        least = min(logprobs)
        score = min(max(math.log(self.doubt) - least, NO_DOUBT), -NO_DOUBT)
        return Scores(score, {"largest_probability": math.exp(min(least, 0.0))})
