"""The learned policy in service: numpy only; between calls it remembers nothing but what the last prompts looked like.

Idea: estimators (n-grams, boosted trees) turn text into expected qualities; one small network per step, trained with
path consistency, turns those and the other features into two values, of staying with the student and of asking the
teacher. The budget enters as its price: `score = (ask - stay - price(share)) / temperature`, which is
log pi(teacher) - log pi(student). The price is a table over shares, monotone, found in training under the constraint.

Values are in units of `scale` (the spread of the expected gain), so scores have a like spread on every table.
"""

import contextlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from policies.action import Step
from policies.cached import CACHE_FEATURES, read_cached
from policies.compiled import native
from policies.cost import CostModel
from policies.estimators import Arrays
from policies.features import PromptView, read_prompt
from policies.observation import Observation
from policies.policy import Scores, TeacherScore
from policies.prompt_features import Floats
from policies.samples import SampleWish
from policies.sentences import Sentences, find_encoder
from policies.text_estimators import ESTIMATES, Estimators, StageEstimators, estimate_names, feature_names, rows_of

if TYPE_CHECKING:
    from policies.artifact import Manifest

__all__ = [
    "CLIP",
    "ESTIMATES",
    "MOST_ENCODED",
    "Estimators",
    "Prices",
    "StageEstimators",
    "StepNet",
    "WheelsPolicy",
    "estimate_names",
    "feature_names",
    "softplus",
]

CLIP = 5.0
MOST_ENCODED = 8
"""Prompts that an encoder reads while others wait: a fifth of a second or so of one core."""
_COST = "cost.usd"
_DETAILS = ("expected_student_quality", "expected_gain", "expected_teacher_calls", "price")


Number = TypeVar("Number", float, Floats)


def softplus(x: Number) -> Number:
    found: Number = np.logaddexp(0.0, x)
    return found


def _stage(estimators: StageEstimators) -> "native.Stage":
    return native.Stage(estimators.ngrams, estimators.linear, estimators.forest)


@dataclass(frozen=True, eq=False)
class StepNet:
    """The network of one step; `values` reads it. F features, E of them estimates, H hidden, C hidden of the critic."""

    mean: Floats
    std: Floats
    skip: Floats
    """(E + 1, 1 + K): estimates and a constant -> (quality of the student, gain of each of K teachers)."""
    w1: Floats
    """(F + 2, H): standardised features, log share, price."""
    b1: Floats
    w2: Floats
    """(H, 1 + K) -> corrections of (stay, ask each teacher)."""
    b2: Floats
    cost_w1: Floats
    cost_b1: Floats
    cost_w2: Floats
    """(C, 1) -> logit of the expected cost over the largest cost."""
    cost_b2: Floats

    def values(self, features: Floats, share: Floats, price: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """(B, F), share and price (B,) or () -> quality, gain, correction (B, 2), expected cost over the largest.

        With K teachers, K > 1, the gain is (B, K) and the correction (B, 1 + K).
        """
        estimates = self.skip.shape[0] - 1
        plain = features[:, :estimates] @ self.skip[:-1] + self.skip[-1]
        x = np.empty((len(features), features.shape[1] + 2))
        # np.clip says the same and costs several times as much for one row.
        np.minimum(np.maximum((features - self.mean) / self.std, -CLIP), CLIP, out=x[:, :-2])
        x[:, -2] = np.log(share)
        x[:, -1] = price
        w1, b1, w2, b2 = self.joined
        out = np.tanh(x @ w1 + b1) @ w2 + b2
        cost = np.minimum(np.maximum(out[:, -1], -30.0), 30.0)
        gain = plain[:, 1] if plain.shape[1] == 2 else plain[:, 1:]
        return plain[:, 0], gain, out[:, :-1], 1.0 / (1.0 + np.exp(-cost))

    @cached_property
    def joined(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Both networks as one of H + C hidden units: (F + 2, H + C), (H + C,), (H + C, 2 + K), (2 + K,)"""
        outputs = self.w2.shape[1]
        w2 = np.zeros((len(self.w2) + len(self.cost_w2), outputs + 1))
        w2[: len(self.w2), :outputs] = self.w2
        w2[len(self.w2) :, outputs:] = self.cost_w2
        return (
            np.ascontiguousarray(np.concatenate([self.w1, self.cost_w1], axis=1)),
            np.concatenate([self.b1, self.cost_b1]),
            w2,
            np.concatenate([self.b2, self.cost_b2]),
        )

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str) -> Self:
        return cls(*(np.asarray(arrays[f"{prefix}.{field.name}"], dtype=np.float64) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Prices:
    """The price of a teacher call at each share: interpolated over log share, falling, never negative."""

    log_share: Floats
    """(K,) rising."""
    price: Floats
    """(K,) in units of `scale`."""

    @cached_property
    def least_share(self) -> float:
        return math.exp(self.log_share[0])

    def at(self, share: float) -> float:
        at, shares, prices = math.log(share), *self._points
        right = bisect_right(shares, at)
        if right == 0:
            return prices[0]
        if right == len(shares):
            return prices[-1]
        left = right - 1
        return prices[left] + (prices[right] - prices[left]) * (at - shares[left]) / (shares[right] - shares[left])

    @cached_property
    def _points(self) -> tuple[list[float], list[float]]:
        return self.log_share.tolist(), self.price.tolist()


@dataclass(frozen=True, eq=False)
class WheelsPolicy:
    """One policy for all budgets; see the module's idea. Implements `policies.policy.Policy`."""

    name: str
    version: str
    steps: tuple[Step, ...]
    estimators: Estimators
    nets: dict[Step, StepNet]
    prices: Prices
    temperature: float
    scale: float
    draft_cost: float
    """What a draft costs, in teacher calls."""
    cost: CostModel | None = None
    """USD of a teacher call, where the outcomes said what theirs cost."""
    typical: Floats | None = None
    """(N, 2) with `cost`: expected gain and expected USD of some requests, for pacing to begin with. With `costs` it is
    (N, K, 2)."""
    teachers: tuple[str, ...] = ()
    """The names of K teachers where there are several; empty where there is one."""
    costs: tuple[CostModel, ...] = ()
    """USD of a call of each of several teachers, where the outcomes said what theirs cost."""

    @property
    def samples(self) -> SampleWish | None:
        """What the gateway is to ask the student for beside the draft."""
        return self.estimators.samples

    @property
    def most_together(self) -> int | None:
        """How many observations may be scored in one go, where each takes long; None where they are quick."""
        return None if self.estimators.sentences is None else MOST_ENCODED

    def warm(self) -> None:
        """Loads what scoring needs and loading the artifact did not: the sentence encoder. Raises ArtifactError."""
        if self.estimators.sentences is not None:
            self.estimators.sentences.encoder.warm()

    def score(self, observation: Observation) -> Scores:
        """See `Policy.score`. A step that the policy was not trained for gets the score of one that it was."""
        return self.score_batch([observation])[0]

    def score_batch(self, observations: Sequence[Observation]) -> list[Scores]:
        """See `BatchPolicy.score_batch`: what numpy costs a call is paid once for all of them."""
        asked = [observation.step if observation.step in self.nets else self.steps[-1] for observation in observations]
        if any(step is not asked[0] for step in asked):
            return [self.score(observation) for observation in observations]
        step = asked[0]
        if any(observation.step is not step for observation in observations):
            observations = [Observation(step, each.prompt, each.draft, each.budget) for each in observations]
        forward = self._compiled.get(step)
        if forward is not None:
            return [self._score_compiled(step, forward, observation) for observation in observations]
        views = [read_prompt(observation.prompt) for observation in observations]
        features = self.estimators.features(observations, views)
        shares = np.array([self._share(observation.budget.share) for observation in observations])
        prices = np.array([self.prices.at(share) for share in shares.tolist()])
        quality, gain, correction, cost, scores = self._forward(step, features, shares, prices)
        if step is self.steps[-1]:
            quality = quality + correction[:, 0]
        if self.teachers:
            gains = (gain + correction[:, 1:]) * self.scale
            return self._of_several(observations, views, quality * self.scale, gains, cost, prices * self.scale, scores)
        columns = (
            np.minimum(np.maximum(quality * self.scale, 0.0), 1.0),
            (gain + correction[:, 1]) * self.scale,
            cost,
            prices * self.scale,
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found = [
            Scores(score, dict(zip(_DETAILS, row, strict=True)))
            for score, row in zip(scores.tolist(), rows, strict=True)
        ]
        self._add_bills(found, observations, views)
        return found

    def _add_bills(
        self, found: Sequence[Scores], observations: Sequence[Observation], views: Sequence[PromptView]
    ) -> None:
        if self.cost is None:
            return
        bills = self.cost.expected(self._billed_by(observations, views), [view.ngrams for view in views])
        for each, usd in zip(found, bills.tolist(), strict=True):
            each.details["expected_teacher_usd"] = usd
            each.details["most_teacher_usd"] = usd * self.cost.most

    @cached_property
    def _compiled(self) -> "dict[Step, native.Forward]":
        """Estimators and network of each step; empty where nothing is compiled, and for what the compiled code does not
        do: encoders, several teachers, arrays of other kinds than training writes."""
        if native is None or self.teachers or self.estimators.sentences is not None:
            return {}
        found: dict[Step, native.Forward] = {}
        with contextlib.suppress(ValueError, TypeError):
            prompt = _stage(self.estimators.prompt)
            draft = None if self.estimators.draft is None else _stage(self.estimators.draft)
            for step, net in self.nets.items():
                found[step] = native.Forward(prompt, None if step is Step.ROUTE else draft, net)
        return found

    def _score_compiled(self, step: Step, forward: "native.Forward", observation: Observation) -> Scores:
        """What `score_batch` says of one."""
        view = read_prompt(observation.prompt)
        prompt, draft, ngrams = self.estimators.row(observation, view)
        share = self._share(observation.budget.share)
        price = self.prices.at(share)
        (quality, gain), (stay, ask), cost = forward(prompt, view.ngrams, draft, ngrams, math.log(share), price)
        score = float(self._score_of(step, gain, stay, ask, price))
        if step is self.steps[-1]:
            quality += stay
        quality = min(max(quality * self.scale, 0.0), 1.0)
        numbers = (quality, (gain + ask) * self.scale, cost * self._largest(step), price * self.scale)
        found = Scores(score, dict(zip(_DETAILS, numbers, strict=True)))
        self._add_bills([found], [observation], [view])
        return found

    def _billed_by(self, observations: Sequence[Observation], views: Sequence[PromptView]) -> Floats:
        """(B, F): the dense features that bills are expected from."""
        texts = np.stack([view.dense for view in views])
        if not self.estimators.cached:
            return texts
        return np.concatenate([texts, rows_of([read_cached(each.prompt) for each in observations])], axis=1)

    def _of_several(
        self,
        observations: Sequence[Observation],
        views: Sequence[PromptView],
        quality: Floats,
        gains: Floats,
        calls: Floats,
        price: Floats,
        scores: Floats,
    ) -> list[Scores]:
        """Quality, expected calls and price (B,), gains and scores (B, K) -> what is said of each request."""
        texts, ngrams = self._billed_by(observations, views), [view.ngrams for view in views]
        bills = np.array([model.expected(texts, ngrams) for model in self.costs]).T.tolist()
        most = [model.most for model in self.costs]
        quality = np.minimum(np.maximum(quality, 0.0), 1.0)
        found = []
        for i, row in enumerate(scores.tolist()):
            teachers = tuple(
                TeacherScore(name, row[k], float(gains[i, k]), *((bills[i][k], bills[i][k] * most[k]) if bills else ()))
                for k, name in enumerate(self.teachers)
            )
            best = max(teachers, key=lambda each: each.score)
            numbers = (float(quality[i]), best.gain, float(calls[i]), float(price[i]))
            details = dict(zip(_DETAILS, numbers, strict=True))
            if best.usd is not None and best.most_usd is not None:
                details |= {"expected_teacher_usd": best.usd, "most_teacher_usd": best.most_usd}
            found.append(Scores(best.score, details, teachers))
        return found

    def prepare(self, observations: Sequence[Observation]) -> Floats:
        """(B, F): what `score_prepared` wants; all observations at one step."""
        return self.estimators.features(observations, [read_prompt(each.prompt) for each in observations])

    def score_prepared(self, step: Step, features: Floats, share: float) -> Floats:
        """(B,) scores at one budget share, the same as `score` gives one by one; of several teachers the best one's."""
        scores = self.score_teachers(step, features, share)
        return scores.max(axis=1) if self.teachers else scores

    def score_teachers(self, step: Step, features: Floats, share: float) -> Floats:
        """(B, K) scores of each of several teachers; (B,) where there is one."""
        share = self._share(share)
        return self._forward(step, features, np.array(share), np.array(self.prices.at(share)))[-1]

    def teacher_gains(self, step: Step, features: Floats, share: float) -> Floats:
        """(B, K) what each of several teachers is expected to add, in quality."""
        share = self._share(share)
        _, gain, correction, _, _ = self._forward(step, features, np.array(share), np.array(self.prices.at(share)))
        out: Floats = (gain + correction[:, 1:]) * self.scale
        return out

    def _share(self, share: float) -> float:
        # `not >=` catches NaN as well.
        return self.prices.least_share if not share >= self.prices.least_share else min(share, 1.0)

    def _forward(self, step: Step, features: Floats, share: Floats, price: Floats) -> tuple[Floats, ...]:
        """(B, F), and share and price (B,) or () -> quality, gain, correction (B, 2), expected cost, score.

        With several teachers gain and score are (B, K), and the correction (B, 1 + K).
        """
        quality, gain, correction, cost = self.nets[step].values(features, share, price)
        if self.teachers:
            return quality, gain, correction, *self._forward_several(step, gain, correction, cost, price)
        score = self._score_of(step, gain, correction[:, 0], correction[:, 1], price)
        return quality, gain, correction, cost * self._largest(step), score

    def _score_of(self, step: Step, gain: Number, stay: Number, ask: Number, price: Number) -> Number:
        """Of one request or of many, with one teacher."""
        advantage = gain + ask - price
        if step is not self.steps[-1]:
            # A draft may still come: staying is worth at least the choice made now, plus what the draft will tell.
            later = self.temperature * softplus((gain - price) / self.temperature)
            advantage = advantage - later - stay + price * self.draft_cost
        return advantage / self.temperature

    def _largest(self, step: Step) -> float:
        """Expected cost, in teacher calls."""
        return 1.0 + (self.draft_cost if step is Step.ROUTE and len(self.steps) > 1 else 0.0)

    def _forward_several(
        self, step: Step, gain: Floats, correction: Floats, cost: Floats, price: Floats
    ) -> tuple[Floats, Floats]:
        """Expected cost, and scores (B, K): the same sums, in which asking is worth the soft maximum over whom."""
        advantage = gain + correction[:, 1:] - price[..., None]
        if step is self.steps[-1]:
            return cost, advantage / self.temperature
        best = self.temperature * np.logaddexp.reduce(gain / self.temperature, axis=1)
        later = self.temperature * softplus((best - price) / self.temperature)
        stay = later + correction[:, 0] - price * self.draft_cost
        return cost * (1.0 + self.draft_cost), (advantage - stay[:, None]) / self.temperature

    def arrays(self) -> Arrays:
        """What goes into the artifact."""
        arrays = {
            **self.estimators.arrays(),
            "prices.log_share": self.prices.log_share,
            "prices.price": self.prices.price,
            "constants": np.array([self.temperature, self.scale, self.draft_cost]),
        }
        for step, net in self.nets.items():
            arrays |= net.arrays(f"net.{step}")
        if self.cost is not None and self.typical is not None:
            arrays |= self.cost.arrays(_COST) | {f"{_COST}.typical": self.typical}
        if self.costs and self.typical is not None:
            arrays[f"{_COST}.typical"] = self.typical
            for k, model in enumerate(self.costs):
                arrays |= model.arrays(f"{_COST}.{k}")
        return arrays

    @classmethod
    def from_artifact(cls, manifest: "Manifest", arrays: Arrays) -> Self:
        steps: tuple[Step, ...] = (Step.ROUTE,) if manifest.signals == "prompt" else (Step.ROUTE, Step.DEFER)
        temperature, scale, draft_cost = np.asarray(arrays["constants"], dtype=np.float64).tolist()
        nets = {step: StepNet.from_arrays(arrays, f"net.{step}") for step in steps}
        teachers = manifest.teacher_names
        estimators = Estimators.from_arrays(arrays)
        if manifest.encoder is not None:
            encoder = find_encoder(manifest.encoder["name"], sha256=manifest.encoder["sha256"])
            estimators = replace(estimators, sentences=Sentences.from_arrays(encoder, arrays))
        if manifest.samples is not None:
            estimators = replace(estimators, samples=SampleWish.of(manifest.samples))
        if manifest.cached is not None:
            if tuple(manifest.cached) != CACHE_FEATURES:
                raise ValueError(f"it looks at {manifest.cached} of prefix caches, and {CACHE_FEATURES} are known")
            estimators = replace(estimators, cached=True)
        for step, net in nets.items():
            size = 0 if estimators.sentences is None else estimators.sentences.size
            samples = estimators.samples is not None
            names = feature_names(
                step, sentence_size=size, samples=samples, teachers=max(len(teachers), 1), cached=estimators.cached
            )
            wanted = len(names)
            if len(net.mean) != wanted:
                raise ValueError(f"{step}: {len(net.mean)} features, expected {wanted}")
            if net.skip.shape[1] != 1 + max(len(teachers), 1):
                raise ValueError(f"{step}: made for {net.skip.shape[1] - 1} teachers, not for {teachers}")
        if draft_cost == 0.0 and manifest.signals == "draft":
            # Where a draft is free, waiting for it is never worse than asking at once: the first question is spared.
            steps = (Step.DEFER,)
        return cls(
            name=manifest.name,
            version=manifest.version,
            steps=steps,
            estimators=estimators,
            nets=nets,
            prices=Prices(
                np.asarray(arrays["prices.log_share"], np.float64), np.asarray(arrays["prices.price"], np.float64)
            ),
            temperature=temperature,
            scale=scale,
            draft_cost=draft_cost,
            cost=CostModel.from_arrays(arrays, _COST) if f"{_COST}.idf" in arrays else None,
            typical=np.asarray(arrays[f"{_COST}.typical"], np.float64) if f"{_COST}.typical" in arrays else None,
            teachers=teachers,
            costs=tuple(CostModel.from_arrays(arrays, f"{_COST}.{k}") for k in range(len(teachers)))
            if f"{_COST}.0.idf" in arrays
            else (),
        )
