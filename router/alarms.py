"""When to say that something has moved: sequential tests over what passes through. Pure; constant work per observation.

Each test is Page's CUSUM (1954) as an e-detector (Shin, Ramdas and Rinaldo, "E-detectors", 2023, arXiv 2203.03532) over
bets (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024): for observations in a
known range

    M <- max(M, 1) * (1 + bet * evidence),    alarm when M >= A,

where `evidence` has a mean of at most zero while nothing has moved. Then at most n can be expected of M after n
observations, and so on average at least A of them pass before a false alarm. Nothing is assumed of distributions or
independence, only that the mean given the past stays within the tolerance. Small bets find small moves, large ones
large moves quickly; the average of several M keeps the promise.
"""

from dataclasses import dataclass
from math import sqrt

BETS = (0.1, 0.3, 0.9)

# How many observations pass, on average and at least, until an alarm is raised though nothing has moved.
BETWEEN_FALSE_QUALITY = 2_000.0
BETWEEN_FALSE_SHARE = 10_000.0
BETWEEN_FALSE_WASTE = 500.0

BASELINE = 200
"""Qualities from which it is learnt where a model stands."""
QUALITY_TOLERANCE = 0.05
"""Nearer to the baseline than this nothing has moved; twice the baseline's standard error where that is more."""
QUALITY_MEMORY = 100.0
"""Qualities over which the mean shown is taken (exponentially)."""
SHARE_TOLERANCE = 0.03
"""How far the share got may lie from the share aimed at."""
SHARE_MEMORY = 500.0
"""Requests over which both shares are taken (exponentially)."""
LEAST_GAIN = 0.05
"""What the teacher must add to be worth asking."""

Stakes = tuple[float, float, float]
_NOTHING: Stakes = (1.0, 1.0, 1.0)


def bet(stakes: Stakes, evidence: float) -> Stakes:
    """After one observation, one M for each of `BETS`; `evidence` >= -1."""
    a, b, c = stakes
    return (
        (a if a > 1.0 else 1.0) * (1.0 + 0.1 * evidence),
        (b if b > 1.0 else 1.0) * (1.0 + 0.3 * evidence),
        (c if c > 1.0 else 1.0) * (1.0 + 0.9 * evidence),
    )


def stands(stakes: Stakes, between_false: float) -> bool:
    """Whether it is enough for an alarm."""
    return stakes[0] + stakes[1] + stakes[2] >= 3.0 * between_false


@dataclass(frozen=True, slots=True)
class Quality:
    """Has the quality of one model left the band around where it stood?"""

    seen: int = 0
    """Qualities of the baseline, up to `BASELINE`."""
    total: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    high: float = 1.0
    """The band, once the baseline is known."""
    rose: Stakes = _NOTHING
    fell: Stakes = _NOTHING
    recent: float = 0.0
    weight: float = 0.0
    """The last qualities, weighted, and the sum of the weights."""
    moved: bool = False

    @property
    def baseline(self) -> float:
        return self.total / self.seen if self.seen else 0.0

    @property
    def now(self) -> float:
        """The mean of the last ones; since the alarm, while there is one."""
        return self.recent / self.weight if self.weight else self.baseline


def judged(state: Quality, quality: float) -> Quality:
    """After feedback of `quality`, 0..1."""
    if state.seen < BASELINE:
        return _learnt(state, quality)
    kept = 1.0 - 1.0 / QUALITY_MEMORY
    recent, weight = state.recent * kept + quality, state.weight * kept + 1.0
    rose, fell, moved = _NOTHING, _NOTHING, state.moved
    if moved:
        # It ends where it began, once enough has been seen since: a mean back inside the band.
        moved = weight < 0.6 * QUALITY_MEMORY or not state.low <= recent / weight <= state.high
    else:
        rose, fell = bet(state.rose, quality - state.high), bet(state.fell, state.low - quality)
        # Either side alone is twice as patient, so that both together keep the promise.
        moved = stands(rose, 2 * BETWEEN_FALSE_QUALITY) or stands(fell, 2 * BETWEEN_FALSE_QUALITY)
        if moved:
            # What is said at once is the mean of the last ones; from here on it counts as one of those since.
            rose, fell, recent, weight = _NOTHING, _NOTHING, recent / weight, 1.0
    return Quality(
        state.seen, state.total, state.squares, state.low, state.high, rose, fell, recent, weight, moved
    )  # fmt: skip


def _learnt(state: Quality, quality: float) -> Quality:
    seen, total, squares = state.seen + 1, state.total + quality, state.squares + quality * quality
    if seen < BASELINE:
        return Quality(seen, total, squares)
    mean = total / seen
    error = sqrt(max(squares / seen - mean * mean, 0.0) / seen)
    tolerance = max(QUALITY_TOLERANCE, 2.0 * error)
    return Quality(seen, total, squares, max(mean - tolerance, 0.0), min(mean + tolerance, 1.0))


@dataclass(frozen=True, slots=True)
class Share:
    """Have the share of teacher calls that was aimed at and the one that came about parted?"""

    asked: float = 0.0
    got: float = 0.0
    weight: float = 0.0
    """Exponential sums, and that of the weights."""
    above: Stakes = _NOTHING
    below: Stakes = _NOTHING
    parted: bool = False

    @property
    def asked_share(self) -> float:
        return self.asked / self.weight if self.weight else 0.0

    @property
    def got_share(self) -> float:
        return self.got / self.weight if self.weight else 0.0


_SHARE_KEPT = 1.0 - 1.0 / SHARE_MEMORY


def counted(state: Share, aimed: float, *, teacher: bool) -> Share:
    """After a request that a policy decided: the share aimed at, and whether the teacher was called."""
    called = 1.0 if teacher else 0.0
    asked, got = state.asked * _SHARE_KEPT + aimed, state.got * _SHARE_KEPT + called
    weight = state.weight * _SHARE_KEPT + 1.0
    if state.parted:
        parted = abs(asked - got) > 0.5 * SHARE_TOLERANCE * weight
        return Share(asked, got, weight, _NOTHING, _NOTHING, parted)
    above = bet(state.above, called - min(aimed + SHARE_TOLERANCE, 1.0))
    below = bet(state.below, max(aimed - SHARE_TOLERANCE, 0.0) - called)
    parted = stands(above, 2 * BETWEEN_FALSE_SHARE) or stands(below, 2 * BETWEEN_FALSE_SHARE)
    # The means must show it as well: an alarm whose own numbers agree would help nobody.
    parted = parted and abs(asked - got) > SHARE_TOLERANCE * weight
    return Share(asked, got, weight, above, below, parted)


@dataclass(frozen=True, slots=True)
class Gain:
    """Is the teacher better than the student on one kind of request, by `LEAST_GAIN` at least?

    The policy sends the hard ones to the teacher, so plain means would lie. Chance decides between the two wherever the
    propensity lies between 0 and 1, and there they can be compared: with overlap weights (Li, Morgan and Zaslavsky,
    2018), chance p of the teacher and any constant c,

        E[(q - c) ((1 - p) [teacher] - p [student])] = p (1 - p) (teacher's quality - student's quality).

    Requests that could only have gone one way weigh nothing; exploration is what makes them count.
    """

    qualities: float = 0.0
    seen: int = 0
    gains: float = 0.0
    weights: float = 0.0
    stakes: Stakes = _NOTHING
    """Against the teacher; for it while `waste` stands."""
    waste: bool = False

    @property
    def gain(self) -> float | None:
        """What the teacher adds, as far as it is known."""
        return self.gains / self.weights if self.weights else None


def compared(state: Gain, quality: float, *, teacher: bool, chance: float) -> Gain:
    """After feedback of `quality`, 0..1; `chance` is the probability with which the teacher was to answer."""
    centre = state.qualities / state.seen if state.seen else 0.5
    gain = (quality - centre) * ((1.0 - chance) if teacher else -chance)
    weight = chance * (1.0 - chance)
    evidence = gain - LEAST_GAIN * weight
    stakes = bet(state.stakes, evidence if state.waste else -evidence)
    turned = stands(stakes, BETWEEN_FALSE_WASTE)
    return Gain(
        state.qualities + quality,
        state.seen + 1,
        state.gains + gain,
        state.weights + weight,
        _NOTHING if turned else stakes,
        state.waste != turned,
    )
