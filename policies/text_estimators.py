"""From text to the features of a step: what estimators expect of the answers, before the plain features of both texts.

The estimators are fitted by `training.estimators`; numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from policies.action import Step
from policies.cached import CACHE_FEATURES, read_cached
from policies.draft_features import DRAFT_FEATURES
from policies.estimators import FEW, Arrays, DenseLinear, Forest, NgramLinear
from policies.features import PromptView, read_draft
from policies.joint import JointEstimators
from policies.observation import Draft, Observation
from policies.prompt_features import PROMPT_FEATURES, Floats, Ints
from policies.samples import SAMPLE_FEATURES, SampleWish, read_samples
from policies.sentences import Sentences, sentence_names

ESTIMATES = (
    "ngrams_student",
    "ngrams_gain",
    "linear_student",
    "linear_gain",
    "trees_student",
    "trees_teacher",
    "trees_gain",
)
"""What stands before the other features; twice at the defer step, from the prompt and from the draft."""


def estimate_names(teachers: int = 1) -> tuple[str, ...]:
    """`ESTIMATES`; of several teachers each has those that are about a teacher, numbered from 0."""
    if teachers == 1:
        return ESTIMATES
    return tuple(
        name if name.endswith("student") else f"{name}_{k}"
        for name in ESTIMATES
        for k in range(1 if name.endswith("student") else teachers)
    )


_NOTHING = Draft("", complete=False)
_EMPTY, _NO_NGRAMS = np.empty(0), np.empty(0, np.int64)


def rows_of(texts: Sequence[Floats]) -> Floats:
    """B times (F,) -> (B, F). `numpy.stack` says the same and costs several times as much for a few."""
    return np.concatenate(texts).reshape(len(texts), -1)


@dataclass(frozen=True, slots=True, eq=False)
class StageEstimators:
    """What is expected from the prompt, or with the draft: n-grams first, the others over them and the features."""

    ngrams: NgramLinear
    linear: DenseLinear
    forest: Forest

    def __call__(self, dense: Floats, ngrams: Sequence[Ints]) -> Floats:
        """Dense features (B, F) and hashed n-grams of B texts -> (B, len(ESTIMATES))"""
        first = self.ngrams(ngrams)
        features = np.concatenate([dense, first], axis=1)
        return np.concatenate([first, self.linear(features), self.forest(features)], axis=1)

    def arrays(self, prefix: str) -> Arrays:
        return {
            **self.ngrams.arrays(f"{prefix}.ngrams"),
            **self.linear.arrays(f"{prefix}.linear"),
            **self.forest.arrays(f"{prefix}.forest"),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(
            NgramLinear.from_arrays(arrays, f"{prefix}.ngrams"),
            DenseLinear.from_arrays(arrays, f"{prefix}.linear"),
            Forest.from_arrays(arrays, f"{prefix}.forest"),
        )


@dataclass(frozen=True, eq=False)
class Estimators:
    """From text to features of a step: the dense ones with the estimates before them."""

    prompt: StageEstimators
    draft: StageEstimators | None = None
    sentences: Sentences | None = None
    """What stands behind the features of the prompt, where an encoder was asked for."""
    samples: SampleWish | None = None
    """What stands behind the features of the draft, where samples were asked for."""
    cached: bool = False
    """Whether `CACHE_FEATURES` stand behind all of the prompt's, as where the outcome table had their columns."""

    def features(self, observations: Sequence[Observation], views: Sequence[PromptView]) -> Floats:
        """(B, F): estimates and features in the order of `feature_names`; all observations are of one step, and `views`
        are their prompts read."""
        rows = [self.row(each, view) for each, view in zip(observations, views, strict=True)]
        prompts = rows_of([prompt for prompt, _, _ in rows])
        if self.sentences is not None:
            read = self.sentences.read([observation.prompt.last_user for observation in observations])
            plain = len(PROMPT_FEATURES)
            prompts = np.concatenate([prompts[:, :plain], read, prompts[:, plain:]], axis=1)
        prompt_ngrams = [view.ngrams for view in views]
        if observations[0].step is Step.ROUTE:
            return np.concatenate([self.prompt(prompts, prompt_ngrams), prompts], axis=1)
        assert self.draft is not None
        dense, draft_ngrams = rows_of([draft for _, draft, _ in rows]), [ngrams for _, _, ngrams in rows]
        if len(observations) <= FEW:
            return self._joined(prompts, dense, prompt_ngrams, draft_ngrams)
        before = self.prompt(prompts, prompt_ngrams)
        both = np.concatenate([prompts, dense], axis=1)
        # The draft's estimators see the n-gram estimates of the prompt as well.
        counted = before[:, : len(self.prompt.ngrams.bias)]
        after = self.draft(np.concatenate([both, counted], axis=1), draft_ngrams)
        return np.concatenate([before, after, both], axis=1)

    def row(self, observation: Observation, view: PromptView) -> tuple[Floats, Floats, Ints]:
        """Features of one prompt, without those of an encoder; of its draft, and the draft's n-grams: empty before
        there can be one."""
        prompt = view.dense
        if self.cached:
            prompt = np.concatenate([prompt, read_cached(observation.prompt)])
        if observation.step is Step.ROUTE:
            return prompt, _EMPTY, _NO_NGRAMS
        written = observation.draft or _NOTHING
        draft, ngrams = read_draft(written, view)
        if self.samples is not None:
            draft = np.concatenate([draft, read_samples(written, self.samples, view)])
        return prompt, draft, ngrams

    @cached_property
    def _joined(self) -> JointEstimators:
        assert self.draft is not None
        return JointEstimators(self.prompt, self.draft)

    def arrays(self) -> Arrays:
        arrays = self.prompt.arrays("prompt") | (self.draft.arrays("draft") if self.draft is not None else {})
        return arrays | (self.sentences.arrays() if self.sentences is not None else {})

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        prompt = StageEstimators.from_arrays(arrays, "prompt")
        return cls(prompt, StageEstimators.from_arrays(arrays, "draft") if "draft.ngrams.idf" in arrays else None)


def feature_names(
    step: Step, *, sentence_size: int = 0, samples: bool = False, teachers: int = 1, cached: bool = False
) -> tuple[str, ...]:
    """Names of what `Estimators.features` returns, in order."""
    estimates = estimate_names(teachers)
    prompt = (*PROMPT_FEATURES, *sentence_names(sentence_size), *(CACHE_FEATURES if cached else ()))
    if step is Step.ROUTE:
        return (*estimates, *prompt)
    drafted = (*DRAFT_FEATURES, *(SAMPLE_FEATURES if samples else ()))
    return (*estimates, *(f"draft_{name}" for name in estimates), *prompt, *drafted)
