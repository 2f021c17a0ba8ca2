"""Policies to compare with or fall back on: constant ones, a coin, a threshold on one signal, logistic, neighbours.

All but the constant ones reduce an observation to one number and compare it with the level that the budget's share
allows; levels are quantiles seen in training, so that about the share asked for is the share got.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from zlib import crc32

import numpy as np

from policies.action import Step
from policies.draft_features import DRAFT_FEATURES
from policies.estimators import Arrays
from policies.features import read_draft, read_prompt
from policies.observation import Draft, Observation
from policies.policy import Policy, Scores, Signals
from policies.prompt_features import PROMPT_FEATURES, Floats

if TYPE_CHECKING:
    from policies.artifact import Manifest

CERTAIN = 20.0
"""Log-odds of a policy that does not waver: finite, because records and pacing add to it."""
_NOTHING = Draft("", complete=False)


def steps_of(signals: Signals) -> tuple[Step, ...]:
    return (Step.DEFER,) if signals == "draft" else (Step.ROUTE,)


@dataclass(frozen=True, slots=True)
class AlwaysStudent:
    name: str = "always-student"
    version: str = "1"
    steps: tuple[Step, ...] = (Step.ROUTE,)

    def score(self, observation: Observation) -> Scores:  # noqa: ARG002
        return Scores(-CERTAIN)


@dataclass(frozen=True, slots=True)
class AlwaysTeacher:
    name: str = "always-teacher"
    version: str = "1"
    steps: tuple[Step, ...] = (Step.ROUTE,)

    def score(self, observation: Observation) -> Scores:  # noqa: ARG002
        return Scores(CERTAIN)


@dataclass(frozen=True, slots=True)
class Coin:
    """Asks for a share of all prompts, chosen by a hash of the prompt: random over prompts, the same at every retry."""

    seed: int = 0
    name: str = "random"
    version: str = "1"
    steps: tuple[Step, ...] = (Step.ROUTE,)

    def score(self, observation: Observation) -> Scores:
        text = observation.prompt.text.encode("utf-8", "replace")
        # CRC is linear; the multiplication breaks up what it leaves alike between texts of equal length.
        mixed = (crc32(text, self.seed & 0xFFFFFFFF) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        draw = ((mixed >> 11) + 0.5) / 2**53
        share = min(max(observation.budget.share, 1e-9), 1 - 1e-9) if observation.budget.share >= 0 else 1e-9
        return Scores(math.log(share / (1 - share)) - math.log(draw / (1 - draw)))


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What a signal exceeds in each share of the training rows, on an even grid from share 0 to 1."""

    grid: Floats
    """(K,) falling."""

    @classmethod
    def of(cls, values: Floats, count: int = 201) -> "Levels":
        return cls(np.quantile(values, 1.0 - np.linspace(0.0, 1.0, count)))

    def at(self, share: float) -> float:
        if not share > 0:
            return float(self.grid[0]) + self.spread
        place = min(share, 1.0) * (len(self.grid) - 1)
        below = min(int(place), len(self.grid) - 2)
        return float(self.grid[below] + (place - below) * (self.grid[below + 1] - self.grid[below]))

    @property
    def spread(self) -> float:
        """A unit for scores: a quarter of the range in which nine tenths of the rows lie."""
        count = len(self.grid) - 1
        return max(float(self.grid[count // 20] - self.grid[count - count // 20]) / 4, 1e-6)


def read_dense(observation: Observation, signals: Signals) -> Floats:
    """The dense features without any estimator: (prompt,) or (prompt + draft,)."""
    view = read_prompt(observation.prompt)
    if signals == "prompt":
        return view.dense
    return np.concatenate([view.dense, read_draft(observation.draft or _NOTHING, view)[0]])


@dataclass(frozen=True, slots=True, eq=False)
class Threshold:
    """One feature above a level: `sign` is 1 where more of it speaks for the teacher, -1 where less of it does."""

    feature: str
    sign: float
    levels: Levels
    signals: Signals = "draft"
    name: str = "threshold"
    version: str = "unsaved"
    kind: ClassVar[str] = "threshold"

    @property
    def steps(self) -> tuple[Step, ...]:
        return steps_of(self.signals)

    def score(self, observation: Observation) -> Scores:
        names = PROMPT_FEATURES if self.signals == "prompt" else PROMPT_FEATURES + DRAFT_FEATURES
        value = self.sign * float(read_dense(observation, self.signals)[names.index(self.feature)])
        return _against(self.levels, value, observation)

    def arrays(self) -> Arrays:
        return {"feature": np.array(self.feature), "sign": np.array(self.sign), "levels": self.levels.grid}

    @classmethod
    def from_artifact(cls, manifest: "Manifest", arrays: Arrays) -> Policy:
        feature = str(arrays["feature"])
        if feature not in PROMPT_FEATURES + DRAFT_FEATURES:
            raise ValueError(f"unknown feature {feature!r}")
        levels = Levels(np.asarray(arrays["levels"], np.float64))
        return cls(feature, float(arrays["sign"]), levels, manifest.signals, manifest.name, manifest.version)


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """Features brought to mean 0 and deviation 1, cut at 5."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, features: Floats) -> "Standard":
        std = features.std(axis=0)
        return cls(features.mean(axis=0), np.where(std < 1e-6, 1.0, std))

    def __call__(self, features: Floats) -> Floats:
        return np.clip((features - self.mean) / self.std, -5.0, 5.0)


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """Log-odds that the student is wrong, linear in the dense features."""

    standard: Standard
    weights: Floats
    bias: float
    levels: Levels
    signals: Signals
    name: str = "logistic"
    version: str = "unsaved"
    kind: ClassVar[str] = "logistic"

    @property
    def steps(self) -> tuple[Step, ...]:
        return steps_of(self.signals)

    def value(self, features: Floats) -> Floats:
        """(..., F) -> (...)"""
        out: Floats = self.standard(features) @ self.weights + self.bias
        return out

    def score(self, observation: Observation) -> Scores:
        return _against(self.levels, float(self.value(read_dense(observation, self.signals))), observation)

    def arrays(self) -> Arrays:
        return {
            "mean": self.standard.mean,
            "std": self.standard.std,
            "weights": self.weights,
            "bias": np.array(self.bias),
            "levels": self.levels.grid,
        }

    @classmethod
    def from_artifact(cls, manifest: "Manifest", arrays: Arrays) -> Policy:
        a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        standard, levels = Standard(a["mean"], a["std"]), Levels(a["levels"])
        return cls(
            standard, a["weights"], float(a["bias"]), levels, manifest.signals, manifest.name, manifest.version
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Mean gain of the nearest training rows, by Euclidean distance of the dense features."""

    standard: Standard
    rows: Floats
    """(N, F) standardised."""
    gain: Floats
    """(N,)"""
    count: int
    levels: Levels
    signals: Signals
    name: str = "knn"
    version: str = "unsaved"
    kind: ClassVar[str] = "knn"
    _squares: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_squares", (self.rows**2).sum(axis=1))

    @property
    def steps(self) -> tuple[Step, ...]:
        return steps_of(self.signals)

    def value(self, features: Floats) -> float:
        """(F,) -> mean gain around it."""
        distance = self._squares - 2.0 * (self.rows @ self.standard(features))
        if self.count >= len(distance):
            return float(self.gain.mean())
        return float(self.gain[np.argpartition(distance, self.count)[: self.count]].mean())

    def score(self, observation: Observation) -> Scores:
        return _against(self.levels, self.value(read_dense(observation, self.signals)), observation)

    def arrays(self) -> Arrays:
        return {
            "mean": self.standard.mean,
            "std": self.standard.std,
            "rows": self.rows.astype(np.float32),
            "gain": self.gain,
            "count": np.array(self.count),
            "levels": self.levels.grid,
        }

    @classmethod
    def from_artifact(cls, manifest: "Manifest", arrays: Arrays) -> Policy:
        a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        standard, levels = Standard(a["mean"], a["std"]), Levels(a["levels"])
        return cls(
            standard, a["rows"], a["gain"], int(a["count"]), levels, manifest.signals, manifest.name, manifest.version
        )  # fmt: skip


def _against(levels: Levels, value: float, observation: Observation) -> Scores:
    score = (value - levels.at(observation.budget.share)) / levels.spread
    return Scores(float(min(max(score, -CERTAIN), CERTAIN)))


def _constant(build: Callable[[str, str], Policy]) -> "Callable[[Manifest, Arrays], Policy]":
    return lambda manifest, _: build(manifest.name, manifest.version)


BUILDERS: "dict[str, Callable[[Manifest, Arrays], Policy]]" = {
    "always-student": _constant(AlwaysStudent),
    "always-teacher": _constant(AlwaysTeacher),
    "random": lambda manifest, _: Coin(manifest.seed or 0, manifest.name, manifest.version),
    "threshold": Threshold.from_artifact,
    "logistic": Logistic.from_artifact,
    "knn": Neighbours.from_artifact,
}
"""Kind in the manifest -> what builds the policy from it."""
