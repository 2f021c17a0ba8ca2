"""The seam between a worker and its policy: the same questions as `policies.policy.Policy`, asked without blocking."""

from typing import Any, Protocol

from policies.action import Step
from policies.increments import increments
from policies.observation import Observation
from policies.policy import Policy, Scores
from policies.samples import SampleWish

Typical = tuple[tuple[float, float], ...]


def typical_of(policy: Policy) -> Typical:
    found = getattr(policy, "typical", None)
    if found is None:
        return ()
    if getattr(policy, "teachers", ()):
        return tuple(pair for request in found for pair in _steps(request))
    return tuple((float(gain), float(usd)) for gain, usd in found)


def _steps(request: Any) -> list[tuple[float, float]]:
    """(K, 2) gains and bills of the teachers -> the K steps that pacing counts, see `router.choosing`."""
    steps = increments([float(gain) for gain, _ in request], [float(usd) for _, usd in request])
    return [(each.gain, each.cost) for each in steps] + [(0.0, 0.0)] * (len(request) - len(steps))


def samples_of(policy: Policy) -> SampleWish | None:
    found = getattr(policy, "samples", None)
    return found if isinstance(found, SampleWish) else None


class Scorer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def steps(self) -> tuple[Step, ...]: ...

    @property
    def typical(self) -> Typical:
        """Expected gain and expected USD of some requests; empty where the policy knows no bills."""
        ...

    @property
    def samples(self) -> SampleWish | None:
        """What it wants asked of the student beside the draft."""
        ...

    async def score(self, observation: Observation) -> Scores:
        """Raises ScoringFailed, or whatever a policy in this process raises."""
        ...

    async def close(self) -> None:
        """Answers what was asked before, then lets go of everything."""
        ...


class ScoringFailed(Exception):
    """The policy raised, took too long, or its process is gone; the message says which."""


class InlineScorer:
    """A policy in the worker's own process: for tests, and for programs that bring a policy as an object."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name, self.version, self.steps = policy.name, policy.version, policy.steps
        self.typical = typical_of(policy)
        self.samples = samples_of(policy)

    async def score(self, observation: Observation) -> Scores:
        return self.policy.score(observation)

    async def close(self) -> None:
        return
