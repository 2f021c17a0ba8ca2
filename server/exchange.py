"""One request, from the first decision to the settled bill: runs the commands of `router.session`, reports to it.

Whatever way it ends (answered, failed, client gone), a reservation is settled or released and one record is written.
"""

import asyncio
from dataclasses import replace

import orjson

from policies.action import Step
from policies.observation import Draft, Observation
from router import session as life
from router.budget import Rule
from router.language import describe_limit
from router.pacing import FREE
from router.record import DecisionRecord, Reason, StepRecord
from router.rules import RequestFacts, match
from server import sse
from server.answers import DraftReader, Usage, drop_logprobs, read_usage
from server.asking import Asking
from server.consultation import Consultation, Verdict
from server.conversations import cached_record
from server.errors import (
    BudgetExhausted,
    ClientGone,
    GatewayError,
    UpstreamFault,
    UpstreamStatus,
    UpstreamUnreachable,
)
from server.gateway import Gateway, Request
from server.generation_request import GenerationRequest
from server.help.delivery import HelpedAnswer
from server.ledgers import LedgerUnavailable
from server.relay import Client
from server.reservation import Reservation, usd
from server.samples import Sampling, can_be_sampled
from server.streaming import Streaming
from server.token_promise import TokenPromise
from server.upstream import Answer, Upstream

_DONE = object()


class Exchange:
    """Lives as long as its request."""

    def __init__(self, gateway: Gateway, request: GenerationRequest, about: Request, client: Client) -> None:
        self._gateway = gateway
        self._request = request
        self._about = about
        self._client = client
        self._id = gateway.log.new_id()
        self._session = life.Session(
            when_exhausted=gateway.budget.when_exhausted, has_teacher=gateway.teacher is not None
        )
        self._steps: list[StepRecord] = []
        self._consulted: Consultation | None = None
        self._reservation = Reservation(gateway, request, about, self._id)
        self._asking = Asking(gateway, self._reservation) if gateway.several_teachers else None
        self._fault: UpstreamFault | None = None
        self._answers: dict[life.Role, Answer] = {}
        self._streams: dict[life.Role, Streaming] = {}
        self._help: HelpedAnswer | None = None
        """The student's answer, where the teacher may write parts of it."""
        self._help_off: str | None = None
        self._tokens_reserved = 0
        """Under a promise on the share of tokens: what the teacher may still write of this answer."""
        self._whole = b""
        self._draft: Draft | None = None
        self._sampling: Sampling | None = None
        self._usage: dict[life.Role, Usage] = {}
        self._teacher_calls = 0
        self._first_byte_at: float | None = None
        self._aim = FREE
        self._error: str | None = None
        self._delivered: life.Role = "student"
        self._closing: asyncio.Future[None] | object | None = None

    async def run(self) -> None:
        """Answers the client. Raises GatewayError where nothing was sent yet and there is nothing to send."""
        status = 200
        try:
            await self._run()
        except GatewayError as error:
            status, self._error = error.status, error.code
            raise
        except asyncio.CancelledError:
            status, self._error = ClientGone.status, ClientGone.code
            raise
        finally:
            for streaming in self._streams.values():
                streaming.close()
            if self._help is not None:
                self._help.close()
            if self._sampling is not None:
                self._sampling.cancel()
            if self._asking is not None:
                self._asking.close()
            await self._close(status)
            if self._consulted is not None:
                self._consulted.release()

    async def _run(self) -> None:
        event: life.Event = await self._route()
        while True:
            self._session, command = life.advance(self._session, event)
            match command:
                case life.Admit():
                    event = await self._admit()
                case life.Call():
                    event = await self._call(command.role, hold=command.hold)
                case life.Judge():
                    event = await self._judge()
                case life.Deliver():
                    return await self._deliver(command.role)
                case life.Reject():
                    raise self._rejection(exhausted=command.exhausted)

    # Decisions

    async def _route(self) -> life.Routed:
        gateway, request = self._gateway, self._request
        side = gateway.side_of(request.model)
        if side is not None:
            reason = Reason.FORCED_TEACHER if side == "teacher" else Reason.FORCED_STUDENT
            if side == "teacher" and self._asking is not None:
                self._asking.want(gateway.teachers_meant(request.model, None))
            return life.Routed(side, reason, forced=True)
        if gateway.teacher is None:
            return life.Routed("student", Reason.NO_TEACHER)
        rule = self._matching_rule()
        if rule is not None:
            reason = Reason.RULE_TEACHER if rule.route == "teacher" else Reason.RULE_STUDENT
            return life.Routed(rule.route, reason, forced=rule.route == "student")
        decider = gateway.decider
        self._aim = decider.aim(self._about.subject)
        consulted = self._consulted = decider.begin(self._about.conversation, self._id)
        if gateway.help is not None:
            self._offer_help(consulted)
        if not consulted.asks_first:
            consulted.ask_shadow(self._before_generation, self._aim)
            hold = consulted.reads_drafts and self._help is None
            return life.Routed("student", Reason.POLICY_STUDENT, hold_draft=hold)
        verdict = await consulted.decide(self._before_generation(), self._aim)
        self._take(verdict)
        if verdict.calls_teacher:
            return life.Routed("teacher", verdict.reason)
        # A coin has had the last word; otherwise the draft may still change the policy's mind, or the safe policy's.
        again = consulted.reads_drafts and verdict.reason is not Reason.EXPLORED and self._help is None
        return life.Routed("student", verdict.reason, hold_draft=again)

    def _offer_help(self, consulted: Consultation) -> None:
        """Opens the student's answer to help, should the student answer: then no draft of it is held back."""
        gateway = self._gateway
        assert gateway.help is not None
        self._help_off = gateway.help.off(self._request)
        if self._help_off is None:
            self._help = HelpedAnswer(
                gateway.help, gateway, self._request, self._about, consulted, self._aim, self._reservation
            )

    def _before_generation(self) -> Observation:
        return Observation(Step.ROUTE, self._about.prompt, None, self._aim.state)

    def _matching_rule(self) -> Rule | None:
        rules = self._gateway.budget.rules
        if not rules:
            return None
        prompt = self._about.prompt
        facts = RequestFacts(
            text=prompt.text,
            tokens=max(1, self._request.prompt_bytes // 4),
            tags=self._about.tags,
            headers=self._about.headers,
            key_group=self._about.subject.tenant,
        )
        return match(rules, facts)

    async def _judge(self) -> life.Judged:
        self._draft = self._read_draft()
        if self._sampling is not None:
            samples = await self._sampling.taken(self._gateway.settings.timeouts.samples_s)
            self._draft = replace(self._draft, samples=samples)
        assert self._consulted is not None
        verdict = await self._consulted.decide(
            Observation(Step.DEFER, self._about.prompt, self._draft, self._aim.state), self._aim
        )
        self._take(verdict)
        return life.Judged(verdict.calls_teacher, verdict.reason)

    def _take(self, verdict: Verdict) -> None:
        self._steps.append(verdict.record)
        if self._asking is not None and verdict.calls_teacher and self._consulted is not None:
            self._asking.want_labels(verdict.teachers, self._consulted.decided_by.version)

    def _read_draft(self) -> Draft:
        streaming = self._streams.get("student")
        if streaming is not None:
            return streaming.reader.draft(complete=streaming.finished)
        reader = DraftReader(self._request.endpoint)
        reader.read(self._answers["student"].data)
        return reader.draft(complete=True)

    async def _admit(self) -> life.Admitted | life.LedgerDown:
        if self._gateway.promise.limits and not self._reserve_tokens(self._gateway.promise):
            return life.Admitted(False)
        if self._asking is not None and not self._asking.anybody:
            return life.Admitted(granted=False, nobody=True)
        try:
            granted = await (self._reservation if self._asking is None else self._asking).admit()
        except LedgerUnavailable:
            self._help = None
            return life.LedgerDown()
        if self._steps:
            self._steps[-1] = replace(self._steps[-1], admitted=granted)
        return life.Admitted(granted)

    def _reserve_tokens(self, promise: TokenPromise) -> bool:
        most = self._reservation.most().completion_tokens - self._tokens_reserved
        self._reservation.refused_by = promise.reserve(most)
        if self._reservation.refused_by is not None:
            if self._steps:
                self._steps[-1] = replace(self._steps[-1], admitted=False)
            return False
        self._tokens_reserved += most
        return True

    def _count_tokens(self, promise: TokenPromise, record: DecisionRecord) -> None:
        """What was written, and by whom; a helped answer has told it as it went."""
        written = self._usage.get("teacher", Usage()).completion_tokens if self._delivered == "teacher" else 0
        promise.give_back(max(self._tokens_reserved - written, 0))
        if self._delivered == "student" and self._help is None:
            promise.student_wrote(record.student_tokens)

    # Calls

    async def _call(self, role: life.Role, *, hold: bool) -> life.Event:
        if role == "student" and self._help is not None:
            return await self._call_helped(self._help)
        upstream = self._gateway.upstream(role)
        if role == "teacher" and self._asking is not None and self._reservation.teacher is not None:
            upstream = self._reservation.teacher
            self._asking.call()
        budget_counts_tokens = role == "teacher" and self._gateway.counts_tokens
        body = self._request.passed_on(
            upstream.name,
            logprobs=hold and upstream.settings.logprobs,
            running_usage=budget_counts_tokens and upstream.settings.usage_in_every_chunk,
            max_tokens=upstream.settings.max_tokens if budget_counts_tokens else None,
            banned=None if role == "teacher" or self._gateway.help is None else self._gateway.help.unanswered,
        )
        if role == "teacher":
            self._teacher_calls += 1
        wish = None if self._consulted is None or not hold else self._consulted.samples
        if wish is not None and can_be_sampled(self._request):
            self._sampling = Sampling(upstream, self._request, wish)
        try:
            if self._request.stream:
                await self._open_stream(role, upstream, body, hold=hold)
            else:
                answer = await upstream.answer(self._request.path, body)
                self._answers[role] = answer
                usage = read_usage(answer.data)
                if usage is not None:
                    self._usage[role] = usage
        except UpstreamFault as fault:
            return await self._failed(role, fault)
        if role == "teacher" and self._asking is not None:
            return life.Answered(self._asking.answered())
        return life.Drafted() if hold else life.Answered()

    async def _call_helped(self, answer: HelpedAnswer) -> life.Event:
        try:
            await answer.begin()
            if not self._request.stream:
                self._whole = await answer.whole()
        except UpstreamFault as fault:
            answer.close("failed")
            return await self._failed("student", fault)
        return life.Answered()

    async def _open_stream(self, role: life.Role, upstream: Upstream, body: bytes, *, hold: bool) -> None:
        stream = await upstream.stream(self._request.path, body)
        log_text = self._gateway.settings.log_text
        streaming = Streaming(
            stream,
            self._request,
            strips_logprobs=hold and upstream.settings.logprobs and not self._request.wants_logprobs,
            reads_all=hold or log_text or (role == "teacher" and self._gateway.counts_tokens),
        )
        self._streams[role] = streaming
        # Nothing can be rescued once a byte is out: so the first events must be good before anything is sent.
        await streaming.hold(self._gateway.settings.held_tokens if hold else 1)

    async def _failed(self, role: life.Role, fault: UpstreamFault) -> life.Event:
        self._fault = fault
        streaming = self._streams.pop(role, None)
        if streaming is not None:
            streaming.close()
        self._gateway.metrics.upstream_error(role if self._asking is None else fault.role, fault)
        if role == "teacher":
            self._help = None  # it would only be asked again
        if role == "teacher" and self._reservation.held:
            # Where the upstream may have worked for us, the estimate stays charged: better too much than a broken cap.
            if isinstance(fault, UpstreamUnreachable | UpstreamStatus):
                self._teacher_calls -= 1
                await self._reservation.release()
            else:
                await self._reservation.settle(self._billed())
        clients_fault = isinstance(fault, UpstreamStatus) and fault.clients_fault
        if role == "teacher" and self._asking is not None:
            try:
                if await self._asking.another(self._usage.pop("teacher", None), clients_fault=clients_fault):
                    return await self._call("teacher", hold=False)
            except LedgerUnavailable:
                return life.Failed(clients_fault=False)
        return life.Failed(clients_fault=clients_fault)

    def _rejection(self, *, exhausted: bool) -> GatewayError:
        if exhausted:
            refused_by = self._reservation.refused_by
            words = describe_limit(refused_by) if refused_by else "a limit of the budget"
            return BudgetExhausted(f"The teacher budget is exhausted: {words}", self._reservation.retry_after_s)
        assert self._fault is not None
        return self._fault

    # Delivery

    async def _deliver(self, role: life.Role) -> None:
        self._delivered = role
        if self._request.stream:
            await self._deliver_stream(role, self._answering or self._streams[role])
        else:
            await self._deliver_answer(role)

    async def _deliver_answer(self, role: life.Role) -> None:
        if self._answering is not None:
            self._first_byte_at = self._gateway.clock()
            await self._close(200)
            await self._client.send_answer(200, self._whole, self._headers(role))
            return
        answer = self._answers[role]
        raw = answer.raw
        held = role == "student" and self._draft is not None
        ours = held and self._gateway.upstream(role).settings.logprobs and not self._request.wants_logprobs
        if ours and drop_logprobs(answer.data):
            raw = orjson.dumps(answer.data)
        self._first_byte_at = self._gateway.clock()
        await self._close(200)
        await self._client.send_answer(200, raw, self._headers(role))

    @property
    def _answering(self) -> HelpedAnswer | None:
        """The helped answer, if it is what the client gets."""
        return self._help if self._delivered == "student" else None

    async def _deliver_stream(self, role: life.Role, streaming: Streaming | HelpedAnswer) -> None:
        self._first_byte_at = self._gateway.clock()
        await self._client.start_stream(self._headers(role))
        try:
            async for batch in streaming.outgoing():
                if streaming.at_end:
                    await self._close(200)
                await self._client.send_events(batch)
        except UpstreamFault as fault:
            # The status is out already: say it in the stream, and do not end it as if it were whole.
            self._fault, self._error = fault, fault.code
            self._gateway.metrics.upstream_error(role if self._asking is None else fault.role, fault)
            if role == "teacher" and self._asking is not None:
                self._asking.broke_off()
            await self._close(200)
            await self._client.send_events([sse.encode(fault.body())])
        await self._client.end_stream()

    def _headers(self, role: life.Role) -> list[tuple[bytes, bytes]]:
        route, reason = self._routed(role)
        if self._answering is not None and self._request.stream and self._first_byte_at is not None:
            # Nobody knows yet whether it will be helped; the record will say it.
            route, reason = "mixed", Reason.HELP_ON
        return [
            (b"x-tw-decision-id", self._id.encode()),
            (b"x-tw-route", route.encode()),
            (b"x-tw-reason", reason.encode()),
        ]

    def _routed(self, role: life.Role) -> tuple[str, Reason]:
        """The route and the reason as they came out."""
        if self._answering is not None and self._answering.answer.helped:
            return "mixed", Reason.HELPED
        return role, self._session.reason

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Routing headers for an error answer."""
        return self._headers("student")

    # The end

    async def _close(self, status: int) -> None:
        """Counts, settles and writes the record, once: before the last byte goes out, so that whoever has an answer
        finds its decision, and no crash can lose it."""
        if self._closing is None:
            self._read_stream_usage()
            if not self._reservation.held or self._gateway.settles_late:
                self._closing = _DONE
                if self._reservation.held:
                    self._reservation.settle_later(self._billed())
                self._account(status)
                return
            self._closing = asyncio.ensure_future(self._settle_and_account(status))
        if isinstance(self._closing, asyncio.Future):
            await asyncio.shield(self._closing)

    def _read_stream_usage(self) -> None:
        for role, streaming in self._streams.items():
            if streaming.usage is not None:
                self._usage[role] = streaming.usage
        if self._help is not None:
            self._usage["student"] = self._help.answer.usage

    async def _settle_and_account(self, status: int) -> None:
        await self._reservation.settle(self._billed())
        self._account(status)

    def _account(self, status: int) -> None:
        self._reservation.count()
        record = self._record(status)
        if self._gateway.promise.limits or self._tokens_reserved:
            self._count_tokens(self._gateway.promise, record)
        self._gateway.finish(record, self._about.prompt.turn, self._usage)
        if self._consulted is not None:
            self._consulted.finish(record, self._aim)

    def _billed(self) -> Usage:
        """What the teacher's call has cost: as the upstream said, else as much as it can have been."""
        usage = self._usage.get("teacher")
        if usage is not None:
            return usage
        most = self._reservation.most()
        written = most.completion_tokens
        streaming = self._streams.get("teacher")
        if streaming is not None:
            written = min(written, streaming.reader.text_bytes * self._request.choices())
        usage = self._usage["teacher"] = Usage(most.prompt_tokens, written, estimated=True)
        return usage

    def _record(self, status: int) -> DecisionRecord:
        gateway, about, consulted = self._gateway, self._about, self._consulted
        decided_by = gateway.decider.serving if consulted is None else consulted.decided_by
        now = gateway.clock()
        teacher_usage = self._usage.get("teacher", Usage())
        student_usage = self._usage.get("student")
        draft = self._draft
        if student_usage is None and draft is not None:
            student_usage = Usage(0, len(draft.logprobs))
        helped = None if self._help is None else self._help.answer
        if self._help is not None and helped is not None:
            student_usage = self._help.student_usage
        teacher_calls, teacher_usd = self._teacher_calls, 0.0
        if self._reservation.teacher and teacher_calls:
            teacher_usd = usd(self._reservation.teacher, teacher_usage)
        teacher_tokens = teacher_usage.prompt_tokens + teacher_usage.completion_tokens if teacher_calls else 0
        if self._asking is not None:
            teacher_usd, teacher_tokens = teacher_usd + self._asking.usd, teacher_tokens + self._asking.tokens
        if helped is not None:
            teacher_calls += helped.teacher_calls
            teacher_usd += helped.teacher_usd
            teacher_tokens += helped.teacher_usage.prompt_tokens + helped.teacher_usage.completion_tokens
        route, reason = self._routed(self._delivered)
        text = gateway.settings.log_text
        refused_by = self._reservation.refused_by
        record = DecisionRecord(
            id=self._id,
            at=about.at,
            endpoint=self._request.endpoint,
            model=self._request.model,
            route=route,
            reason=reason,
            steps=tuple(self._steps),
            policy=decided_by.name,
            policy_version=decided_by.version,
            budget_version=self._reservation.budget_version,
            budget_share=self._aim.share,
            refused_by=describe_limit(refused_by) if refused_by else None,
            status=status,
            error=self._error,
            key_id=about.subject.key,
            user=about.subject.user,
            tenant=about.subject.tenant,
            conversation=about.conversation,
            tags=about.tags,
            latency_ms=round((now - about.at) * 1000, 3),
            first_byte_ms=None if self._first_byte_at is None else round((self._first_byte_at - about.at) * 1000, 3),
            student_tokens=student_usage.completion_tokens if student_usage else 0,
            teacher_tokens=teacher_tokens,
            teacher_usd=teacher_usd,
            teacher_calls=teacher_calls,
            disconnected=status == ClientGone.status,
            prompt=about.prompt.text if text else None,
            student_response=self._text("student") if text and route != "mixed" else None,
            teacher_response=self._text("teacher") if text else None,
            student_logprobs=draft.logprobs if text and draft is not None else None,
            policy_role="serving" if consulted is None else consulted.role,
            failed_policy=None if consulted is None else consulted.failed,
            shadow=None if consulted is None else consulted.shadow_record(self._id),
            segments=() if helped is None else tuple(helped.segments),
            mixed_response=self._text("student") if text and route == "mixed" else None,
            help_off=self._help_off,
            sample_tokens=0 if self._sampling is None else self._sampling.tokens,
            cached=cached_record(about.prompt, self._usage),
        )
        if self._asking is None:
            return record
        return self._asking.record(record, self._usage.get("teacher") if self._teacher_calls else None)

    def _text(self, role: life.Role) -> str | None:
        if role == "student" and self._help is not None:
            return self._help.answer.line.text
        streaming = self._streams.get(role)
        if streaming is not None:
            return streaming.reader.draft(complete=True).text
        answer = self._answers.get(role)
        if answer is None:
            return None
        reader = DraftReader(self._request.endpoint)
        reader.read(answer.data)
        return reader.draft(complete=True).text
