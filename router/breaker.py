"""When a policy that keeps failing is set aside, and when it is let back in. Pure: time is an argument.

A circuit breaker (Nygard, Release It!, 2007) over the last decisions. While it is open the policy is not waited for:
copies of live observations are put to it beside the answers, and a few good scores in a row let it back in. One that
fails again soon waits longer.
"""

from dataclasses import dataclass

WINDOW = 20
"""Decisions looked back on."""
MOST_FAILURES = 5
"""In the window; with that many the policy is set aside."""
GOOD_PROBES = 3
"""In a row, until it serves again."""
PAUSES_S = (0.5, 2.0, 10.0, 30.0)
"""Before it is probed: the first time, and each time it is set aside again within `FORGIVEN_AFTER_S`."""
FORGIVEN_AFTER_S = 120.0

_MASK = (1 << WINDOW) - 1


@dataclass(frozen=True, slots=True)
class Breaker:
    outcomes: int = 0
    """One bit per decision, the newest lowest; 1 where it failed."""
    aside_at: float | None = None
    """When it was set aside; None while it serves."""
    probe_at: float = 0.0
    """From when on it may be probed."""
    good_probes: int = 0
    times: int = 0
    """How often it was set aside lately."""
    back_at: float = 0.0

    @property
    def aside(self) -> bool:
        return self.aside_at is not None

    @property
    def failing(self) -> bool:
        """Whether the last decision failed, or none is asked for."""
        return self.aside_at is not None or bool(self.outcomes & 1)


SOUND = Breaker()


def succeeded(breaker: Breaker) -> Breaker:
    """After a decision. Of a policy that has not failed lately, the same object: nearly every request comes by here."""
    if not breaker.outcomes:
        return breaker
    return Breaker(breaker.outcomes << 1 & _MASK, None, 0.0, 0, breaker.times, breaker.back_at)


def failed(breaker: Breaker, now: float) -> Breaker:
    """After a decision that the policy did not make."""
    if breaker.aside:  # asked before it was set aside
        return breaker
    outcomes = (breaker.outcomes << 1 | 1) & _MASK
    if outcomes.bit_count() < MOST_FAILURES:
        return Breaker(outcomes, None, 0.0, 0, breaker.times, breaker.back_at)
    times = breaker.times + 1 if breaker.times and now - breaker.back_at < FORGIVEN_AFTER_S else 1
    return Breaker(outcomes, now, now + pause_s(times), 0, times, breaker.back_at)


def may_probe(breaker: Breaker, now: float) -> bool:
    return breaker.aside and now >= breaker.probe_at


def probed(breaker: Breaker, now: float, *, good: bool) -> Breaker:
    """After a probe. The one that makes it whole gives a breaker that is not aside."""
    if not breaker.aside:
        return breaker
    if not good:
        return Breaker(breaker.outcomes, breaker.aside_at, now + pause_s(breaker.times), 0, breaker.times)
    if breaker.good_probes + 1 < GOOD_PROBES:
        return Breaker(breaker.outcomes, breaker.aside_at, now, breaker.good_probes + 1, breaker.times)
    return Breaker(times=breaker.times, back_at=now)


def pause_s(times: int) -> float:
    return PAUSES_S[min(max(times, 1), len(PAUSES_S)) - 1]
