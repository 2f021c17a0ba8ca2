"""What all helped answers of a worker share: the promise on tokens, what pacing has learnt, what the models can do."""

import time
from collections.abc import Callable

from policies.uncertainty import LargestProbability
from router.aim import Aim
from router.pacing import Pacer
from router.token_share import HelpTraffic, Leaning, percent, tokens_share, wanted
from server.answers import Usage
from server.errors import UpstreamFault
from server.generation_request import GenerationRequest
from server.help.bodies import restricted
from server.help.probe import CannotHelp, Traits, look
from server.help.suits import HelpOff, why_not
from server.settings import Help as Settings
from server.token_promise import TokenPromise
from server.upstream import Upstream

_MEMORY = 50.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_FAILURES = 3
"""In a row, and help pauses: no answer should wait for a teacher that is down, again and again."""


class HelpWorker:
    """One per worker, where help is switched on."""

    def __init__(
        self,
        settings: Settings,
        promise: TokenPromise | None = None,
        traits: Traits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`promise`: the one that the whole worker keeps."""
        self.settings = settings
        self.traits = traits
        self.problem: str | None = None
        """Why help cannot be given at all."""
        self.promise = promise or TokenPromise()
        self.traffic = HelpTraffic()
        self.leaning = Leaning()
        self.pacer = Pacer()
        self.rule = LargestProbability(settings.doubt)
        self._now = now
        self._failures = 0
        self._paused_until = 0.0

    async def learn_traits(self, student: Upstream, teacher: Upstream) -> None:
        """Asks the models what they can do, until they have said it."""
        if self.traits is not None:
            return
        try:
            self.traits = await look(student, teacher, self.settings)
            self.problem = None
        except UpstreamFault:
            return
        except CannotHelp as error:
            self.problem = str(error)

    def off(self, request: GenerationRequest) -> HelpOff | None:
        """Why this request cannot have help; None: it can."""
        if self.traits is None:
            return HelpOff.UNKNOWN
        if request.endpoint == "chat" and not self.traits.chat_continues:
            return HelpOff.TEACHER
        if self._now() < self._paused_until:
            return HelpOff.TEACHER_FAILS
        return why_not(request)

    @property
    def unanswered(self) -> int | None:
        """The token that the student asks with, which it must not write where nobody would answer it."""
        if self.traits is None:
            return None
        return self.traits.silenced_id if self.traits.help_id is None else self.traits.help_id

    @property
    def hidden(self) -> str | None:
        """The text of that token: no client may see it, among log-probabilities neither."""
        return None if self.unanswered is None else self.settings.token

    def prompt(self, request: GenerationRequest, aim: Aim) -> str | None:
        """The prompt with the restriction in words that fits the budget; None: as it is. Who is watched need not be
        told."""
        if self.settings.by != "student" or not self.settings.restriction:
            return None
        share = tokens_share(self.promise.share, aim, self.settings.tokens, self.traffic)
        return restricted(request, self.settings.restriction, percent(share, self.settings.levels))

    # Pacing

    def aim(self, budget: Aim) -> Aim:
        """What the next check should lead to, given what the budget's sentence leaves."""
        settings = self.settings
        promise = self.promise
        return wanted(promise.account, promise.share, settings.tokens, settings.watched_tokens, budget, self.traffic)

    @property
    def offset(self) -> float:
        """What is added to the logit of the token that the student asks with."""
        return self.settings.offset + self.leaning.offset

    def called(self, usage: Usage, usd: float) -> None:
        """A help has billed this."""
        before = self.traffic
        tokens = _average(before.tokens_per_call, usage.prompt_tokens + usage.completion_tokens)
        self.traffic = HelpTraffic(
            before.checks_per_answer, before.tokens_per_answer, tokens, _average(before.usd_per_call, usd)
        )

    def answered(self, tokens: int, checks: int) -> None:
        """An answer is over."""
        before = self.traffic
        if self.settings.by == "student" and self.promise.share is not None:
            self.leaning = self.leaning.step(self.promise.account, self.promise.share, self.settings.tokens)
        if tokens:
            self.traffic = HelpTraffic(
                _average(before.checks_per_answer, checks) if checks else before.checks_per_answer,
                _average(before.tokens_per_answer, tokens),
                before.tokens_per_call,
                before.usd_per_call,
            )

    # A teacher that is down

    def teacher_failed(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            pause_s = min(_FIRST_PAUSE_S * 2.0 ** (self._failures - _FAILURES), _LONGEST_PAUSE_S)
            self._paused_until = self._now() + pause_s

    def teacher_answered(self) -> None:
        self._failures = 0


def _average(before: float, now: float) -> float:
    return now if before == 0.0 else before + (now - before) / _MEMORY
