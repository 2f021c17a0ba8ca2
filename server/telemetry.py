"""Prometheus metrics. With several workers they are kept in files that any worker can add up (multiprocess mode)."""

import os
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from router.budget import Limit
from router.ledger import Balance
from router.record import DecisionRecord, StepRecord
from server.errors import UpstreamFault

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """One per worker. `registry` is only given by tests; the default one also carries process metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or REGISTRY
        own = self._registry
        self._requests = Counter(
            "tw_requests", "Requests by how they were routed.", ("endpoint", "route", "reason", "status"), registry=own
        )
        self._seconds = Histogram(
            "tw_request_seconds", "Whole time of a request.", ("route",), registry=own, buckets=_SECONDS
        )
        self._first_byte = Histogram(
            "tw_first_byte_seconds", "Time to the first byte.", ("route",), registry=own, buckets=_SECONDS
        )
        self._teacher_calls = Counter("tw_teacher_calls", "Teacher calls that count.", registry=own)
        self._teacher_tokens = Counter("tw_teacher_tokens", "Tokens billed by the teacher.", registry=own)
        self._teacher_usd = Counter("tw_teacher_usd", "USD billed by the teacher.", registry=own)
        self._student_tokens = Counter("tw_student_tokens", "Tokens that the student generated.", registry=own)
        self._disconnects = Counter("tw_client_disconnects", "Clients that left before the end.", registry=own)
        self._refusals = Counter("tw_budget_refusals", "Teacher calls a limit refused.", ("measure",), registry=own)
        self._upstream_errors = Counter(
            "tw_upstream_errors", "Failures of the two models.", ("role", "kind"), registry=own
        )
        self.ledger_unavailable = Counter(
            "tw_ledger_unavailable", "Steps that the ledger did not answer in time.", registry=own
        )
        version = ("version",)
        as_what = ("version", "role")
        self._policy_failures = Counter(
            "tw_policy_failures", "Decisions that a policy failed to make.", version, registry=own
        )
        self._policy_decisions = Counter(
            "tw_policy_decisions", "Requests that a policy decided, or would have as a shadow.", as_what, registry=own
        )
        self._policy_calls = Counter(
            "tw_policy_teacher_calls",
            "Of those, the ones it sent to the teacher, or would have.",
            as_what,
            registry=own,
        )
        self._policy_expected = Counter(
            "tw_policy_expected_quality", "Sum of the qualities that a policy expected of what it chose.", as_what,
            registry=own,
        )  # fmt: skip
        self._policy_expecting = Counter(
            "tw_policy_expecting", "Decisions whose policy said what it expected.", as_what, registry=own
        )
        self._policy_quality = Counter(
            "tw_policy_feedback_quality", "Sum of the qualities that feedback gave.", as_what, registry=own
        )
        self._policy_feedback = Counter("tw_policy_feedback", "Decisions with feedback.", as_what, registry=own)
        self.shadow_skipped = Counter(
            "tw_shadow_skipped", "Requests that the shadow was too slow to be asked about.", registry=own
        )
        self._help_segments = Counter(
            "tw_help_segments", "Helps inside answers, by what became of them.", ("outcome",), registry=own
        )
        self._help_tokens = Counter("tw_help_tokens", "Tokens of answers that the teacher helped with.", registry=own)
        self._helped_tokens = Counter(
            "tw_help_answer_tokens", "All tokens of answers that were open to help.", registry=own
        )
        self._help_off = Counter("tw_help_off", "Requests that could not have help, by why.", ("reason",), registry=own)
        self._alarm = Gauge(
            "tw_alarm", "1 while something has moved that a person should look at.", ("kind",), registry=own,
            multiprocess_mode="livemax",
        )  # fmt: skip
        # Counted in plain numbers and told to the counters now and then (`flush`): that costs a request a tenth.
        self._counts: dict[Counter, float] = {}
        self._of_policy: dict[tuple[str, str], list[float]] = {}
        self._policy_sums = (
            self._policy_decisions, self._policy_calls, self._policy_expected, self._policy_expecting,
            self._policy_quality, self._policy_feedback,
        )  # fmt: skip
        self.log_lines_lost = Gauge(
            "tw_decision_log_lines_lost", "Decision log lines that could not be written.", registry=own,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._asked = Gauge(
            "tw_budget_share_asked", "Share of requests that the budget allows or aims at.", ("kind", "scope"),
            registry=own, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._got = Gauge(
            "tw_budget_share_got", "Share of requests that went to the teacher.", ("kind", "scope"),
            registry=own, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._used = Gauge(
            "tw_budget_used", "Spent of what a limit allows in its window (1: all).", ("measure", "scope", "per"),
            registry=own, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._children: dict[tuple[str, str, str, int], Counter] = {}
        self._times = {route: self._seconds.labels(route) for route in ("student", "teacher", "mixed")}
        self._firsts = {route: self._first_byte.labels(route) for route in ("student", "teacher", "mixed")}

    def finished(self, record: DecisionRecord) -> None:
        label = (record.endpoint, record.route, record.reason.value, record.status)
        child = self._children.get(label)
        if child is None:
            child = self._children[label] = self._requests.labels(*label[:3], str(record.status))
        counts = self._counts
        counts[child] = counts.get(child, 0.0) + 1.0
        self._times[record.route].observe(record.latency_ms / 1000)
        if record.first_byte_ms is not None:
            self._firsts[record.route].observe(record.first_byte_ms / 1000)
        if record.student_tokens:
            counts[self._student_tokens] = counts.get(self._student_tokens, 0.0) + record.student_tokens
        if record.teacher_calls:
            counts[self._teacher_calls] = counts.get(self._teacher_calls, 0.0) + record.teacher_calls
            counts[self._teacher_tokens] = counts.get(self._teacher_tokens, 0.0) + record.teacher_tokens
            counts[self._teacher_usd] = counts.get(self._teacher_usd, 0.0) + record.teacher_usd
        if record.disconnected:
            self._disconnects.inc()
        if record.segments:
            self._helped(record)
        elif record.help_off is not None:
            self._help_off.labels(record.help_off).inc()

    def _helped(self, record: DecisionRecord) -> None:
        for segment in record.segments:
            self._helped_tokens.inc(segment.tokens)
            if segment.by == "teacher":
                nothing = segment.ended in ("refused", "failed", "empty", "repeated") and not segment.tokens
                self._help_segments.labels(segment.ended if nothing else "written").inc()
                self._help_tokens.inc(segment.tokens)

    def with_teachers(self, labels: Sequence[str]) -> None:
        """Where there are several: the same sums for each, by its label."""
        label, own = ("teacher",), self._registry
        self._by_teacher = (
            Counter("tw_calls_by_teacher", "Calls of each teacher that count.", label, registry=own),
            Counter("tw_tokens_by_teacher", "Tokens billed by each teacher.", label, registry=own),
            Counter("tw_usd_by_teacher", "USD billed by each teacher.", label, registry=own),
        )
        self._aside = Gauge(
            "tw_teacher_set_aside", "1 while a teacher that keeps failing is not asked.", label, registry=own,
            multiprocess_mode="livemax",
        )  # fmt: skip
        for each in labels:
            self.teacher_aside(each, aside=False)

    def teacher_billed(self, label: str, tokens: int, usd: float) -> None:
        for counter, amount in zip(self._by_teacher, (1, tokens, usd), strict=True):
            counter.labels(label).inc(amount)

    def teacher_aside(self, label: str, *, aside: bool) -> None:
        self._aside.labels(label).set(float(aside))

    def policy_failed(self, version: str) -> None:
        self._policy_failures.labels(version).inc()

    def decided(self, record: DecisionRecord) -> None:
        """A request that a policy decided, or the safe one in its place."""
        if record.steps:
            calls = record.teacher_calls > 0
            self._decision(record.policy_version, record.policy_role, record.steps[-1], calls_teacher=calls)

    def shadowed(self, version: str, last: StepRecord, *, calls_teacher: bool) -> None:
        self._decision(version, "shadow", last, calls_teacher=calls_teacher)

    def _decision(self, version: str, role: str, last: StepRecord, *, calls_teacher: bool) -> None:
        sums = self._sums_of(version, role)
        sums[0] += 1
        if calls_teacher:
            sums[1] += 1
        quality = last.details.get("expected_student_quality")
        if quality is not None:
            if calls_teacher:
                quality += last.details.get("expected_gain", 0.0)
            sums[2] += min(max(quality, 0.0), 1.0)
            sums[3] += 1

    def judged(self, version: str, role: str, quality: float) -> None:
        """Feedback on a decision of a policy."""
        sums = self._sums_of(version, role)
        sums[4] += quality
        sums[5] += 1

    def _sums_of(self, version: str, role: str) -> list[float]:
        sums = self._of_policy.get((version, role))
        if sums is None:
            sums = self._of_policy[version, role] = [0.0] * len(self._policy_sums)
        return sums

    def flush(self) -> None:
        """Tells the counters what was counted since the last time."""
        counts, self._counts = self._counts, {}
        for counter, count in counts.items():
            counter.inc(count)
        for (version, role), sums in self._of_policy.items():
            for i, counter in enumerate(self._policy_sums):
                if sums[i]:
                    counter.labels(version, role).inc(sums[i])
                    sums[i] = 0.0

    def alarm(self, kind: str, *, stands: bool) -> None:
        self._alarm.labels(kind).set(float(stands))

    def refused(self, limit: Limit | None) -> None:
        self._refusals.labels(limit.measure if limit else "unknown").inc()

    def upstream_error(self, role: str, fault: UpstreamFault) -> None:
        self._upstream_errors.labels(role, fault.code or "unknown").inc()

    def shares(self, balances: Iterable[Balance]) -> None:
        """Asked and got of every share limit, and how much of the others is used; scoped limits show the subject seen
        last."""
        for balance in balances:
            limit = balance.limit
            if limit.measure == "share":
                labels = (limit.kind, limit.scope)
                self._asked.labels(*labels).set(limit.at_most)
                self._got.labels(*labels).set(balance.calls / balance.requests if balance.requests else 0.0)
            elif limit.measure in ("calls", "tokens", "usd") and balance.allowed > 0:
                per = "" if limit.per is None else f"{limit.per.n} {limit.per.unit}"
                self._used.labels(limit.measure, limit.scope, per).set(balance.spent / balance.allowed)

    def page(self) -> bytes:
        """The text of `/metrics`, of all workers together where there are several."""
        self.flush()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
