"""What another policy would have got, from records of what this one did: pure functions of arrays.

N requests; of each the log holds the path that was taken (student or teacher; with two decisions three paths) with the
probability that it had, and perhaps the quality that came of it. A candidate gives every path a probability of its own;
`weight` is candidate / logged, of the path that was taken. Where every path that the candidate may take had a chance:

    IPS     mean of weight x outcome. Unbiased; noisy where weights are large.
    SNIPS   the same over the mean weight. A bias of order 1/N, far less noise, never outside the outcomes' range.
    DR      mean of (what a model expects of the candidate) + weight x (outcome - what the model expects of the path
            taken). Unbiased whatever the model; a good one takes most of the noise away (Dudik et al. 2011).

Outcomes may be unknown (NaN): feedback comes late or never. They are taken to be missing at random within `strata`, and
known ones stand in for their whole stratum (weight / share known). That the share known is itself estimated is reckoned
with in the variance.

Intervals speak of traffic like this log's, and not of these very requests alone: they hold the chance in the choices
and the chance in which requests came. Their variance is the one expected by design where that is known: probability and
weight of the choice *not* taken are known too, so a rare heavy weight counts by its chance, whether it happened to
come or not (`Design`). Counted from the sample alone, an interval is far too narrow in logs where none came. Without a
design the variance is the sample's, widened by Student's t with as many degrees of freedom as a variance of so heavy a
tail deserves (Satterthwaite: 2N / (kurtosis - 1)).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.prompt_features import Floats, Ints

Bools = npt.NDArray[np.bool_]

Z95 = 1.959963984540054
LEAST_FREEDOM = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A mean over requests with its 95% interval."""

    value: float
    low: float
    high: float
    influence: Floats
    """(N,) what each request adds to value - truth, times N. Differences on the same log subtract these."""

    def within(self, low: float, high: float) -> "Estimate":
        """The same with the interval cut to what is possible; the value is left as it came out."""
        return Estimate(
            self.value, min(max(self.low, low), high), max(min(self.high, high), low), self.influence
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Which outcomes are known, and the share of them in each stratum."""

    known: Bools
    """(N,)"""
    strata: Ints
    """(N,) 0..S-1"""
    shares: Floats
    """(S,) the share known in each stratum; 0 where none is."""

    @classmethod
    def of(cls, outcome: Floats, strata: Ints) -> "Known":
        known = ~np.isnan(outcome)
        counts = np.bincount(strata, minlength=1)
        return cls(known, strata, np.bincount(strata, weights=known, minlength=1) / np.maximum(counts, 1))

    @property
    def chance(self) -> Floats:
        """(N,) the share known in the request's stratum."""
        out: Floats = self.shares[self.strata]
        return out

    def spread(self, values: Floats) -> tuple[Floats, Floats]:
        """(N,) values of known outcomes, scaled so that they stand in for the unknown, and their influence.

        A stratum without a known outcome counts as zero; `lost` says how much weight that takes away.
        """
        assert values.shape == self.known.shape
        chance = self.chance
        scaled = np.where(self.known, values, 0.0) / np.where(chance > 0, chance, 1.0)
        counts = np.maximum(np.bincount(self.strata, minlength=1), 1)
        mean = (np.bincount(self.strata, weights=scaled, minlength=1) / counts)[self.strata]
        # A stratum in which more happen to be known would weigh more; dividing by the share takes that back, and with
        # it the part of the variance that it would have made.
        surplus = np.where(chance > 0, self.known / np.where(chance > 0, chance, 1.0) - 1.0, 0.0)
        return scaled, scaled - mean * surplus

    def lost(self, weight: Floats) -> float:
        """The part of the weight, 0..1, that lies in strata without a single known outcome."""
        total = float(weight.sum())
        return float(weight[self.chance == 0].sum()) / total if total > 0 else 0.0


def everything_known(count: int) -> Known:
    return Known(np.ones(count, dtype=bool), np.zeros(count, dtype=np.int64), np.ones(1))


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Both sides of every request, the one not taken as well. All (N, 2), student and teacher."""

    chance: Floats
    """Of being taken; the two sum to 1."""
    weight: Floats
    """candidate / chance, were it taken; 0 where it could not be."""
    mean: Floats
    """Expected outcome."""
    variance: Floats
    """Of the outcome."""
    strata: Ints
    """In which stratum of `Known` the request would lie."""

    def variance_of(self, known: Known, *, centre: Floats | float, offset: Floats | float = 0.0) -> float:
        """Expected variance of one request's `offset + weight x (outcome - centre)`, outcomes known as in `known`.

        `centre` and `offset` are (N, 2) or broadcast to it. That the shares known are estimated is reckoned with.
        """
        told = np.maximum(known.shares[self.strata], 1.0 / len(self.chance))
        worth = self.weight * (self.mean - centre)
        size = len(known.shares)
        flat, chance = self.strata.ravel(), self.chance.ravel()
        level = np.bincount(flat, chance * worth.ravel(), size) / np.maximum(np.bincount(flat, chance, size), 1e-12)
        mean = level[self.strata]
        # Influence: offset + mean + (known / told) x (weight x (outcome - centre) - mean).
        noise = self.weight**2 * self.variance
        square = (offset + worth) ** 2 + noise / told + (worth - mean) ** 2 * (1.0 / told - 1.0)
        first = float((self.chance * (offset + worth)).sum(axis=1).mean())
        return max(float((self.chance * square).sum(axis=1).mean()) - first**2, 0.0)


def importance(weight: Floats, outcome: Floats, known: Known, design: Design | None = None) -> Estimate:
    """IPS. All (N,); outcomes NaN where unknown."""
    scaled, influence = known.spread(weight * np.nan_to_num(outcome))
    value = float(scaled.mean())
    variance = None if design is None else design.variance_of(known, centre=0.0)
    return _estimate(value, influence - value, variance)


def self_normalised(
    weight: Floats, outcome: Floats, known: Known, design: Design | None = None, *, mass: float = 1.0
) -> Estimate:
    """SNIPS. `mass` is the mean weight that a complete log would have: below 1 where some requests get no answer.

    NaN where no known outcome has a weight.
    """
    total, _ = known.spread(weight)
    bottom = float(total.mean())
    if bottom <= 0.0:
        return _nothing(len(weight))
    scaled, _ = known.spread(weight * np.nan_to_num(outcome))
    value = float(scaled.mean()) / bottom
    _, influence = known.spread(weight * (np.nan_to_num(outcome) - value))
    variance = None if design is None else design.variance_of(known, centre=value) * mass**2
    return _estimate(mass * value, mass * influence / bottom, variance)


def doubly_robust(
    weight: Floats, outcome: Floats, known: Known, design: Design | None = None, *, taken: Floats, baseline: Floats
) -> Estimate:
    """DR. `taken`: what the model expects of the path taken; `baseline`: what it expects of the candidate. (N,)

    The model must not have seen the request's own outcome: fit it on other requests (cross-fitting).
    """
    scaled, influence = known.spread(weight * (np.nan_to_num(outcome) - taken))
    value = float((baseline + scaled).mean())
    variance = None
    if design is not None:
        variance = design.variance_of(known, centre=design.mean, offset=baseline[:, None])
    return _estimate(value, baseline + influence - value, variance)


def difference(one: Estimate, other: Estimate, variance: float | None = None) -> Estimate:
    """one - other, on the same requests; `variance` of one request's difference where it is known by design."""
    return _estimate(one.value - other.value, one.influence - other.influence, variance)


def effective_sample_size(weight: Floats) -> float:
    """Kish: how many equally weighted requests would say as much. 0 where nothing has weight."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def largest_part(weight: Floats) -> float:
    """The part, 0..1, that the heaviest request has in all weight."""
    total = float(weight.sum())
    return float(weight.max()) / total if total > 0 else 0.0


def student_t(freedom: float) -> float:
    """The 97.5% quantile of Student's t (Cornish-Fisher; within 0.5% from 3 degrees of freedom on)."""
    z, n = Z95, max(freedom, LEAST_FREEDOM)
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def _estimate(value: float, influence: Floats, variance: float | None = None) -> Estimate:
    count = len(influence)
    if variance is not None:
        half = Z95 * math.sqrt(variance / max(count, 1))
        return Estimate(value, value - half, value + half, influence)
    centred = influence - influence.mean()
    square = float((centred**2).mean())
    if count < 2 or square <= 1e-24:
        return Estimate(value, value, value, influence)
    kurtosis = float(((centred**2 / square) ** 2).mean())
    freedom = 2.0 * count / max(kurtosis - 1.0, 1e-9)
    half = student_t(min(freedom, count - 1.0)) * math.sqrt(square / (count - 1))
    return Estimate(value, value - half, value + half, influence)


def _nothing(count: int) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, np.full(count, np.nan))
