"""Whom one request asks, one after the other, where the gateway has several teachers.

A teacher that fails before its first byte, or whose price finds no room in a budget of money, is followed by the next
one that can be afforded; when there is none left the student answers, as it does with one teacher.
"""

from collections.abc import Iterable
from dataclasses import fields

from router.record import DecisionRecord, Reason
from router.teacher_records import TeachersDecisionRecord
from server.answers import Usage
from server.gateway import Gateway
from server.reservation import Reservation, usd
from server.teachers import Teacher


class Asking:
    """One per request, beside its reservation."""

    def __init__(self, gateway: Gateway, reservation: Reservation) -> None:
        self._gateway = gateway
        self._reservation = reservation
        self._candidates: list[Teacher] = []
        self._calling: Teacher | None = None
        """It has been called, and has neither answered nor failed."""
        self._last: Teacher | None = None
        """Whom the reservation is for, or was."""
        self._tried: list[str] = []
        self._called: list[str] = []
        self.tokens, self.usd = 0, 0.0
        """Billed by calls that failed."""

    def want(self, teachers: Iterable[Teacher]) -> None:
        """The best first."""
        self._candidates = list(teachers)

    def want_labels(self, labels: Iterable[str], policy_version: str) -> None:
        """Whom a policy chose; of one that knows a single teacher, that one and then the others."""
        by_label = {each.label: each for each in self._gateway.teachers.all}
        chosen = [by_label[label] for label in labels]
        self.want(chosen or self._gateway.teachers_meant("teacher", policy_version))

    @property
    def anybody(self) -> bool:
        """Whether anybody can be asked; where nobody was said, whoever can be."""
        if not self._candidates and not self._tried:
            self.want(self._gateway.teachers_meant("teacher", None))
        return bool(self._candidates)

    async def admit(self) -> bool:
        """Admission for the first candidate whose price the budget has room for. Raises LedgerUnavailable."""
        reservation = self._reservation
        while self._candidates:
            teacher = self._last = self._candidates.pop(0)
            self._tried.append(teacher.label)
            reservation.teacher = teacher.upstream
            most = usd(teacher.upstream, reservation.most())
            cheaper = [each for each in self._candidates if usd(each.upstream, reservation.most()) < most]
            if await reservation.admit(waits=not cheaper):
                return True
            if reservation.refused_by is None or reservation.refused_by.measure != "usd":
                return False
            self._candidates = cheaper
        return False

    def call(self) -> None:
        """The one that was admitted is being called."""
        assert self._last is not None
        self._calling = self._last
        self._called.append(self._last.label)
        self._gateway.teachers.called(self._last)

    def answered(self) -> Reason | None:
        """Its first byte is there. The reason, where it is not the one that was wanted first."""
        if self._calling is not None:
            self._gateway.teachers.answered(self._calling)
        self._calling = None
        return Reason.OTHER_TEACHER if len(self._tried) > 1 else None

    async def another(self, billed: Usage | None, *, clients_fault: bool) -> bool:
        """After a failure that has billed this: whether another one is admitted. Raises LedgerUnavailable."""
        teacher, self._calling = self._calling, None
        assert teacher is not None
        if billed is not None:
            cost, tokens = usd(teacher.upstream, billed), billed.prompt_tokens + billed.completion_tokens
            self.tokens, self.usd = self.tokens + tokens, self.usd + cost
            self._gateway.metrics.teacher_billed(teacher.label, tokens, cost)
        if clients_fault:
            # The request is at fault, and every other teacher would say the same of it.
            self._gateway.teachers.let_go(teacher)
            return False
        self._gateway.teachers.failed(teacher)
        if not self._candidates:
            return False
        self._reservation.renew()
        return await self.admit()

    def broke_off(self) -> None:
        """The one that answered has failed in the middle."""
        if self._last is not None:
            self._gateway.teachers.failed(self._last)

    def close(self) -> None:
        """The request is over, whatever came of the call."""
        if self._calling is not None:
            self._gateway.teachers.let_go(self._calling)

    def record(self, record: DecisionRecord, billed: Usage | None) -> TeachersDecisionRecord:
        """`billed`: by the call that answered."""
        teacher = self._called[-1] if self._called else None
        if billed is not None and teacher is not None:
            tokens = billed.prompt_tokens + billed.completion_tokens
            self._gateway.metrics.teacher_billed(teacher, tokens, record.teacher_usd - self.usd)
        same = {field.name: getattr(record, field.name) for field in fields(record)}
        return TeachersDecisionRecord(**same, teacher=teacher, teachers_tried=tuple(self._tried))
