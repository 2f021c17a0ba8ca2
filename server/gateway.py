"""What all requests of one worker share: the parts that `server.app` put together, and what they learn as they go."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from policies.observation import Prompt
from policies.values import quickly_made
from router.budget import Budget
from router.ledger import Admission, Ask, Settlement, Subject
from router.record import DecisionRecord
from router.session import Role
from server.alarms import Alarms
from server.answers import Usage
from server.auth import Keys
from server.conversations import Conversations
from server.deciding import Decider
from server.decision_log import DecisionLog
from server.errors import UnknownThing
from server.ledgers import Ledger, LedgerUnavailable
from server.policy_watch import PolicyWatch
from server.served_models import ServedModels
from server.settings import Settings
from server.teachers import Teacher, Teachers
from server.telemetry import Metrics
from server.token_promise import TokenPromise
from server.upstream import Upstream

if TYPE_CHECKING:
    from server.help.worker import HelpWorker

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@quickly_made
@dataclass(frozen=True)
class Request:
    """What a request says beside its body."""

    at: float
    subject: Subject
    prompt: Prompt
    conversation: str = ""
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    """Lower-case names; read only while a rule asks for a header."""


class Gateway:
    """One per worker. Everything that must hold across workers lives in the ledger."""

    def __init__(
        self,
        *,
        settings: Settings,
        ledger: Ledger,
        keys: Keys,
        log: DecisionLog,
        student: Upstream,
        teacher: Upstream | None,
        teachers: Teachers,
        decider: Decider,
        metrics: Metrics,
        budget: Budget,
        budget_text: str,
        budget_version: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.keys = keys
        self.log = log
        self.student = student
        self.teacher = teacher
        """The default one where there are several."""
        self.teachers = teachers
        decider.teachers = teachers
        self.decider = decider
        self.metrics = metrics
        self.clock = clock
        self.alarms = Alarms(metrics)
        self.served = ServedModels()
        """The names under which the two models are known."""
        self.managed = ServedModels()
        """Those that `tw serve` started here, by the names that it was given."""
        self.watch: PolicyWatch | None = None
        self.help: HelpWorker | None = None
        """Where help inside answers is switched on."""
        self.promise = TokenPromise()
        self.said: set[str] = set()
        """Warnings that stand in the log."""
        self.decider.late_shadow = log.append_shadow
        self.waiting = 0
        """Requests that wait for room in the budget."""
        self.ledger_ok = True
        self.reachable: dict[Role, bool] = {}
        self.upstream_names: dict[str, Role] = {}
        self._routed_names = frozenset(("auto", *settings.aliases))
        self._uncounted: dict[Subject, tuple[int, float]] = {}
        self._unsettled: list[Settlement] = []
        self._counting = asyncio.Lock()
        self.conversations = Conversations(one_teacher=not self.several_teachers)
        self._background: set[asyncio.Task[None]] = set()
        self.take_budget(budget, budget_text, budget_version)

    def upstream(self, role: Role) -> Upstream:
        if role == "student":
            return self.student
        assert self.teacher is not None
        return self.teacher

    def side_of(self, model: str) -> Role | None:
        """Which side a model name forces; None for the names that route. Raises UnknownThing."""
        if model in self._routed_names:
            return None
        if model == "student":
            return "student"
        if model == "teacher" and self.teacher is not None:
            return "teacher"
        side = self.upstream_names.get(model)
        if side is None and self.several_teachers and self.teachers.named(model) is not None:
            return "teacher"
        if side is None:
            raise UnknownThing(
                f'The model {model[:100]!r} does not exist here. GET /v1/models lists the names; "auto" routes.',
                param="model",
                code="model_not_found",
            )
        return side

    @property
    def several_teachers(self) -> bool:
        return len(self.teachers) > 1

    def teachers_meant(self, model: str, policy_version: str | None) -> list[Teacher]:
        """Of several teachers, whom to ask and whom in its place: the one that the client names, alone; else the one
        that a policy for one teacher was trained for, or the default one, and then the others that can be asked."""
        named = None if model == "teacher" or model in self._routed_names else self.teachers.named(model)
        if named is not None:
            return [named]
        manifest = self.watch.manifests.get(policy_version or "", {}) if self.watch is not None else {}
        name = manifest.get("teacher_model")
        meant = self.teachers.match([str(name)]).get(str(name)) if name else None
        return sorted(self.teachers.available(), key=lambda each: each is not meant)

    # Budget

    def take_budget(self, budget: Budget, text: str, version: int) -> None:
        self.budget, self.budget_text, self.budget_version = budget, text, version
        # Where only calls count, what a call has billed changes nothing that anybody waits for.
        self.settles_late = all(limit.measure in ("share", "calls", "token_share") for limit in budget.limits)
        self.counts_tokens = any(limit.measure in ("tokens", "usd", "token_share") for limit in budget.limits)
        self.promise.take(budget.limits, self.settings.help.token_share)
        self.reads_headers = any(rule.when.header is not None for rule in budget.rules)
        self.decider.take_budget(budget)
        self.alarms.forget_qualities()

    def noticed(self, subject: Subject, admission: Admission) -> None:
        """What an admission shows of the budget, which another worker may just have changed."""
        self.ledger_ok = True
        if admission.budget_version != self.budget_version:
            self.take_budget(admission.budget, self.budget_text, admission.budget_version)
        self.decider.note_balances(subject, admission.balances)

    def count(self, subject: Subject) -> None:
        """One request that wants no teacher call. Told to the ledger with the next that does, or within a moment."""
        count, since = self._uncounted.get(subject) or (0, self.clock())
        self._uncounted[subject] = count + 1, since
        self.decider.note_request(subject)

    def take_uncounted(self, subject: Subject) -> tuple[int, float | None]:
        """How many, and since when."""
        return self._uncounted.pop(subject, (0, None))

    def settle_later(self, settlement: Settlement) -> None:
        """Within a moment; if the worker dies before, the upper estimate stays charged, which breaks no promise."""
        self._unsettled.append(settlement)

    async def flush_counts(self) -> None:
        """Tells the ledger of all requests not yet counted, and of calls not yet settled. What it does not take is
        lost, which only costs calls."""
        async with self._counting:  # so that whoever asks for a flush also waits for the one under way
            settlements, self._unsettled = self._unsettled, []
            told = self._tell()
            if settlements:
                try:
                    await self.ledger.settle(settlements, self.clock())
                except LedgerUnavailable:
                    self.metrics.ledger_unavailable.inc()
            await self._hear(told)

    def tell_counts(self) -> None:
        """The same without waiting, but ahead of whatever the ledger is asked next: limits may look at all subjects."""
        if self._uncounted:
            task = asyncio.ensure_future(self._hear(self._tell()))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _tell(self) -> "list[tuple[Ask, asyncio.Task[Admission]]]":
        uncounted, self._uncounted = self._uncounted, {}
        now = self.clock()
        asks = [
            Ask(self.log.new_id(), subject, False, False, earlier_requests=count, earlier_since=since)
            for subject, (count, since) in uncounted.items()
        ]
        return [(ask, asyncio.ensure_future(self.ledger.admit(ask, now))) for ask in asks]

    async def _hear(self, told: "list[tuple[Ask, asyncio.Task[Admission]]]") -> None:
        answers = await asyncio.gather(*(answer for _, answer in told), return_exceptions=True)
        for (ask, _), answer in zip(told, answers, strict=True):
            if isinstance(answer, Admission):
                self.noticed(ask.subject, answer)
            elif isinstance(answer, LedgerUnavailable):
                self.ledger_ok = False
                self.metrics.ledger_unavailable.inc()
            elif isinstance(answer, BaseException):
                raise answer

    async def refresh_budget(self) -> None:
        try:
            budget, text, version = await self.ledger.budget()
            self.ledger_ok = True
        except LedgerUnavailable:
            self.ledger_ok = False
            return
        if version != self.budget_version or text != self.budget_text:
            self.take_budget(budget, text, version)

    def release_when_done(self, reservation: str) -> "Callable[[asyncio.Future[Admission]], None]":
        """For a client that left while its admission was under way."""

        def release(asking: "asyncio.Future[Admission]") -> None:
            if asking.cancelled() or asking.exception() is not None:
                return
            task = asyncio.ensure_future(self._release(reservation))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

        return release

    async def _release(self, reservation: str) -> None:
        try:
            await self.ledger.settle([Settlement(reservation, "released")], self.clock())
        except LedgerUnavailable:  # it stays charged, which breaks no promise
            self.metrics.ledger_unavailable.inc()

    def warnings(self) -> list[str]:
        """What does not keep anybody from being answered and should be looked at all the same."""
        found = [] if self.help is None or self.help.problem is None else [f"help is off: {self.help.problem}"]
        if self.watch is None:
            return found
        found += [] if self.watch.problem is None else [f"policies: {self.watch.problem}"]
        for manifest in self.watch.manifests.values():
            found += self.served.warnings(manifest)
        return found

    # Records

    def note_quality(self, row: Mapping[str, Any], quality: float) -> None:
        """The first feedback on a decision, whose record is `row`."""
        self.alarms.feedback(row, quality, one_step=row["policy_version"] in self.decider.one_step_versions)

    def finish(self, record: DecisionRecord, turn: int, usage: Mapping[Role, Usage]) -> None:
        """`turn`: of its conversation, from 1. `usage`: what the answers cost, as far as it is known."""
        self.log.append(record)
        self.metrics.finished(record)
        self.decider.learn(record)
        if not self.counts_tokens:  # under limits on tokens or money no share of requests is asked for
            self.alarms.request(record)
        self.conversations.note(record, turn, usage)

    async def drain(self) -> None:
        """Tells the ledger what it does not know yet, and waits for releases that are still under way."""
        await self.flush_counts()
        await self.decider.drain()
        if self._background:
            await asyncio.wait(self._background, timeout=5)
