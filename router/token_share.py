"""The teacher's part of the tokens of answers written with help: a promise that is kept at every single moment.

    teacher + reserved  <=  share x (all tokens + reserved)

in whole numbers. A process keeps its own account from its start on. If each keeps its promise, so do all of them
together, and so does any sequence of restarts: sums of accounts that are within the share are within the share. What a
dying process had reserved counts as written by the teacher.

`wanted` is the other half: how often help should be asked for so that the promise is used up and rarely refuses.
"""

from dataclasses import dataclass
from functools import lru_cache

from router.aim import Aim, Weighed, steered
from router.terms import simplest

_REST = 2.0, 6.0
"""Helps, and tokens, that should fit into what is left before help is wanted as often as the share allows for good."""
_SWING = 8.0, 24.0
"""The same above (below) that at which everything (nothing) is wanted."""

_PROPORTIONAL, _INTEGRAL, _MOST_LEANING = 0.5, 0.05, 4.0
"""In nats: of a logit, at full pull; of it, per answer; and at most."""


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """Tokens of answers written with help: the teacher's, what it may still write included, and all of them."""

    teacher: int = 0
    total: int = 0

    def has_room(self, share: float, tokens: int) -> bool:
        """Whether the teacher may write `tokens` more. `share` is 0..1."""
        exact = _exact(share)
        return (self.teacher + tokens) * exact[1] <= exact[0] * (self.total + tokens)

    def reserved(self, tokens: int) -> "TokenAccount":
        return TokenAccount(self.teacher + tokens, self.total + tokens)

    def given_back(self, tokens: int) -> "TokenAccount":
        """Of what was reserved, `tokens` were not written."""
        return TokenAccount(self.teacher - tokens, self.total - tokens)

    def wrote(self, tokens: int) -> "TokenAccount":
        """The student has."""
        return TokenAccount(self.teacher, self.total + tokens)


@lru_cache(maxsize=8)
def _exact(share: float) -> tuple[int, int]:
    fraction = simplest(share)
    return fraction.numerator, fraction.denominator


@dataclass(frozen=True, slots=True)
class HelpTraffic:
    """What answers written with help have been like; the first numbers are guesses that the traffic soon replaces."""

    checks_per_answer: float = 32.0
    tokens_per_answer: float = 48.0
    tokens_per_call: float = 0.0
    """Billed for one help, prompt included; zero: not known yet."""
    usd_per_call: float = 0.0


def calls_per_answer(aim: Aim, traffic: HelpTraffic) -> float | None:
    """How many helps of an answer the budget's sentence can bear; None where it limits nothing."""
    weighed = aim.weighed
    if weighed is None:
        return None if aim.share >= 1.0 and aim.chance >= 1.0 else aim.chance
    each = traffic.tokens_per_call if weighed.by == "tokens" else traffic.usd_per_call
    if each <= 0.0:
        return None
    return min(_granted(weighed) / each, aim.chance if weighed.calls < 1.0 else float("inf"))


def _granted(weighed: Weighed) -> float:
    return steered(weighed.per_request, 2.0 * weighed.per_request, weighed.pull)


def wanted(
    account: TokenAccount, share: float | None, tokens: int, watched: int, aim: Aim, traffic: HelpTraffic
) -> Aim:
    """How many of the checks to come should end in help, as something `router.pacing` can steer by.

    `share` is the promise (None: none was given), `tokens` what the teacher writes each time, `watched` how many tokens
    of the student lie between two checks, `aim` what the budget's sentence leaves.
    """
    chances = []
    if share is not None:
        # A check that ends in help keeps what the student wrote before its least sure token, half of the others on
        # average, and adds the teacher's; one that does not keeps all that was watched. Of these tokens the teacher
        # writes the share where p of the checks end in help:
        # tokens x p = share x ((tokens + kept) x p + watched x (1 - p)).
        kept = (watched - 1) / 2
        fair = min(share * watched / (tokens - share * (tokens + kept - watched)), 1.0)
        chances.append(steered(fair, 1.0, _pull(account, share, tokens)))
    calls = calls_per_answer(aim, traffic)
    if calls is not None:
        chances.append(min(calls / max(traffic.checks_per_answer, 1.0), 1.0))
    if not chances:
        return Aim()
    chance = min(chances)
    return Aim(share=min(chance, 0.999), chance=chance, left=aim.left, shared=True)


@dataclass(frozen=True, slots=True)
class Leaning:
    """What is added to the logit of the token that a trained student asks with, so that it asks as often as the promise
    has room for: an integral and a proportional part of what it is behind, stepped once per answer."""

    integral: float = 0.0
    pull: float = 0.0

    @property
    def offset(self) -> float:
        return self.integral + _PROPORTIONAL * self.pull

    def step(self, account: TokenAccount, share: float, tokens: int) -> "Leaning":
        pull = _pull(account, share, tokens)
        return Leaning(min(max(self.integral + _INTEGRAL * pull, -_MOST_LEANING), _MOST_LEANING), pull)


def _pull(account: TokenAccount, share: float, tokens: int) -> float:
    """-1..1: nothing more should be asked for, or everything."""
    behind = share * account.total - account.teacher
    rest, swing = (max(helps * tokens, least) for helps, least in (_REST, _SWING))
    return min(max((behind - rest) / swing, -1.0), 1.0)


def percent(share: float, levels: tuple[int, ...]) -> int:
    """The restriction to put into words: the largest level within the share, the smallest where none is."""
    asked = int(share * 100 + 1e-9)
    if not levels:
        return asked
    return max((level for level in levels if level <= asked), default=min(levels))


def tokens_share(account_share: float | None, aim: Aim, tokens: int, traffic: HelpTraffic) -> float:
    """The part of an answer's tokens that the teacher may write, by the promise and the budget's sentence."""
    calls = calls_per_answer(aim, traffic)
    by_calls = 1.0 if calls is None else min(calls * tokens / max(traffic.tokens_per_answer, 1.0), 1.0)
    return by_calls if account_share is None else min(account_share, by_calls)
