"""Safe policies: what decides when the policy in service fails. No weights, no files, nothing that could be slow.

Their scores have the scale that pacing starts from: zero where the budget's share lies above it, spread by about 2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

from policies.action import Step
from policies.baselines import AlwaysStudent, Coin
from policies.observation import Observation
from policies.policy import Policy, Scores

SafeName = Literal["student", "random", "length", "logprob"]
VERSION = "safe-1"
_SPREAD = 2.0
_NORMAL = NormalDist()

# Where pacing begins; after a few hundred requests the traffic's own lengths and drafts have taken their place.
_USUAL_LENGTH = (math.log(300.0), 1.1)
"""Mean and deviation of the logarithm of a prompt's characters."""
_USUAL_DOUBT = (math.log(0.25), 0.8)
"""Mean and deviation of the logarithm of a draft's mean negative log-probability, in nats."""


@dataclass(frozen=True, slots=True)
class Longest:
    """Long prompts to the teacher."""

    name: str = "length"
    version: str = VERSION
    steps: tuple[Step, ...] = (Step.ROUTE,)

    def score(self, observation: Observation) -> Scores:
        return _against(math.log(1.0 + len(observation.prompt.text)), _USUAL_LENGTH, observation)


@dataclass(frozen=True, slots=True)
class LeastSure:
    """Drafts that the student itself found improbable to the teacher; those without log-probabilities are kept."""

    name: str = "logprob"
    version: str = VERSION
    steps: tuple[Step, ...] = (Step.DEFER,)

    def score(self, observation: Observation) -> Scores:
        logprobs = [x for x in observation.draft.logprobs if math.isfinite(x)] if observation.draft else []
        if not logprobs:
            return _against(_USUAL_DOUBT[0] - 4 * _USUAL_DOUBT[1], _USUAL_DOUBT, observation)
        doubt = max(-sum(logprobs) / len(logprobs), 1e-6)
        return _against(math.log(doubt), _USUAL_DOUBT, observation)


def _against(value: float, usual: tuple[float, float], observation: Observation) -> Scores:
    mean, deviation = usual
    share = observation.budget.share
    share = min(max(share, 1e-4), 1.0 - 1e-4) if share == share else 1e-4
    standard = min(max((value - mean) / deviation, -5.0), 5.0)
    return Scores(_SPREAD * (standard + _NORMAL.inv_cdf(share)))


SAFE: Mapping[SafeName, Policy] = {
    "student": AlwaysStudent("student", VERSION),
    "random": Coin(0, "random", VERSION),
    "length": Longest(),
    "logprob": LeastSure(),
}
assert set(SAFE) == set(get_args(SafeName))
