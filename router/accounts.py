"""An account counts requests, calls, tokens, money and slow calls in one window; it knows nothing of limits.

Bucket numbers come from `router.windows`: a calendar window is one bucket, a rolling window a ring of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from router.windows import Place


class Tally(NamedTuple):
    """What an account counts. A plain tuple of integers, so that any store can keep it."""

    requests: int = 0
    calls: int = 0
    tokens: int = 0
    nano_usd: int = 0
    slow: int = 0

    def plus(self, other: "Tally") -> "Tally":
        return Tally(
            self.requests + other.requests,
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.nano_usd + other.nano_usd,
            self.slow + other.slow,
        )

    def minus(self, other: "Tally") -> "Tally":
        return Tally(
            self.requests - other.requests,
            self.calls - other.calls,
            self.tokens - other.tokens,
            self.nano_usd - other.nano_usd,
            self.slow - other.slow,
        )


ONE_REQUEST = Tally(requests=1)


class Standing(NamedTuple):
    """An account at a moment: what counts in its window now."""

    bucket: int
    """The newest bucket anything was counted in."""
    first: int
    """The oldest bucket that still counts."""
    edge_requests: int
    """Requests in bucket `first` of a rolling window: partly out of the window, so no share may lean on them."""
    total: Tally
    end_us: int | None
    """When all of it will have left the window; None: never."""

    @property
    def requests(self) -> int:
        """Requests that are certainly inside the window."""
        return self.total.requests - self.edge_requests


def opened(at: Place) -> Standing:
    return Standing(at.bucket, at.first, 0, Tally(), at.end_us)


def rolled(standing: Standing | None, at: Place, leaving: Sequence[tuple[int, Tally]] = ()) -> Standing:
    """The account moved on to `at`. `leaving`: the buckets of a rolling window up to and with `at.first`.

    Never moves backwards: a place older than the account's own keeps the account where it is.
    """
    if standing is None:
        return opened(at)
    if at.first <= standing.first:
        if at.bucket <= standing.bucket:
            return standing
        return standing._replace(bucket=at.bucket, end_us=at.end_us)
    if at.bucket == at.first:  # a calendar window that is over
        return opened(at)
    total, edge = standing.total, 0
    for bucket, tally in leaving:
        if bucket < at.first:
            total = total.minus(tally)
        elif bucket == at.first:
            edge = tally.requests
    return Standing(max(at.bucket, standing.bucket), at.first, edge, total, at.end_us)


def counted_in(standing: Standing, bucket: int, more: Tally) -> Standing:
    """`more` added to a bucket that counts, which may be an older one."""
    at_edge = bucket == standing.first and standing.first < standing.bucket
    edge_requests = standing.edge_requests + (more.requests if at_edge else 0)
    return standing._replace(edge_requests=edge_requests, total=standing.total.plus(more))
