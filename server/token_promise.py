"""The promise that the teacher writes at most a share of the tokens of all answers, as one worker keeps it.

What may still be written is reserved before the teacher is called and given back where it was not written; see
`router.token_share` for why an account per process keeps the promise for all of them.
"""

from collections.abc import Sequence

from router.budget import Limit
from router.token_share import TokenAccount

_SWING = 64
"""Tokens that the teacher may be ahead of a target, which is tracked and no promise."""


class TokenPromise:
    """One per worker."""

    def __init__(self) -> None:
        self.limits: tuple[Limit, ...] = ()
        """Caps and targets on the share of tokens, the tightest first. Empty: nothing is promised."""
        self.account = TokenAccount()

    def take(self, limits: Sequence[Limit], by_settings: float | None) -> None:
        """Promises something else from now on. What was written before stays written."""
        found = [limit for limit in limits if limit.measure == "token_share"]
        if by_settings is not None:
            found.append(Limit("cap", "token_share", by_settings))
        self.limits = tuple(sorted(found, key=lambda limit: limit.at_most))

    @property
    def share(self) -> float | None:
        """What pacing steers by."""
        return self.limits[0].at_most if self.limits else None

    def reserve(self, tokens: int) -> Limit | None:
        """Reserves that the teacher writes up to `tokens`; else the limit that has no room for it."""
        for limit in self.limits:
            account = self.account
            if limit.kind == "target":
                account = TokenAccount(account.teacher - _SWING, account.total)
            if not account.has_room(limit.at_most, tokens):
                return limit
        self.account = self.account.reserved(tokens)
        return None

    def give_back(self, tokens: int) -> None:
        """Of what was reserved, `tokens` were not written."""
        self.account = self.account.given_back(tokens)

    def student_wrote(self, tokens: int) -> None:
        self.account = self.account.wrote(tokens)
