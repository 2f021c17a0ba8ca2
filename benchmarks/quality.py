"""Quality at a share of teacher calls: what was got, and what chance and hindsight would have got at the same share."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.estimates import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: what each model's answer is worth (0..1), and whether the teacher's was the one delivered."""

    student: float
    teacher: float
    asked_teacher: bool

    @property
    def got(self) -> float:
        return self.teacher if self.asked_teacher else self.student


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def student_only(rows: Sequence[Outcome]) -> float:
    return mean([row.student for row in rows])


def teacher_only(rows: Sequence[Outcome]) -> float:
    return mean([row.teacher for row in rows])


def quality(rows: Sequence[Outcome]) -> float:
    return mean([row.got for row in rows])


def share(rows: Sequence[Outcome]) -> float:
    return mean([float(row.asked_teacher) for row in rows])


def at_random(rows: Sequence[Outcome]) -> float:
    """The expected quality of asking the teacher as often, by coin."""
    asked = share(rows)
    return (1 - asked) * student_only(rows) + asked * teacher_only(rows)


def oracle(rows: Sequence[Outcome]) -> float:
    """The best that hindsight can do with at most as many teacher calls."""
    gains = sorted((row.teacher - row.student for row in rows), reverse=True)
    calls = sum(row.asked_teacher for row in rows)
    return student_only(rows) + sum(gain for gain in gains[:calls] if gain > 0) / len(rows)


def gap_recovered(rows: Sequence[Outcome], reached: float | None = None) -> float:
    """PGR: (quality - student) / (teacher - student); 0 where there is no gap."""
    low, high = student_only(rows), teacher_only(rows)
    if high == low:
        return 0.0
    return ((quality(rows) if reached is None else reached) - low) / (high - low)


def gap_interval(rows: Sequence[Outcome]) -> Estimate:
    return bootstrap(rows, gap_recovered, draws=1000)
