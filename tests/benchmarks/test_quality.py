"""The figures of the benchmarks, on rows worked out by hand."""

import pytest

from benchmarks.estimates import bootstrap, median_difference, median_ratio
from benchmarks.quality import (
    Outcome,
    at_random,
    gap_recovered,
    oracle,
    quality,
    share,
    student_only,
    teacher_only,
)

# Student right on 1 of 4, teacher on 3 of 4; the one call went to a row that gained by it.
ROWS = [Outcome(0, 1, True), Outcome(0, 1, False), Outcome(1, 0, False), Outcome(0, 1, False)]


def test_quality_is_that_of_the_answer_delivered() -> None:
    assert (student_only(ROWS), teacher_only(ROWS), share(ROWS), quality(ROWS)) == (0.25, 0.75, 0.25, 0.5)


def test_chance_gets_its_share_of_the_gap() -> None:
    assert at_random(ROWS) == 0.375
    assert gap_recovered(ROWS, at_random(ROWS)) == share(ROWS)


def test_the_oracle_spends_its_calls_where_they_gain_and_no_more() -> None:
    assert oracle(ROWS) == 0.5
    everything = [Outcome(row.student, row.teacher, True) for row in ROWS]
    assert (oracle(everything), quality(everything)) == (1.0, 0.75)


def test_the_gap_recovered_is_one_for_the_teacher_and_nothing_where_there_is_no_gap() -> None:
    assert gap_recovered(ROWS) == 0.5
    assert gap_recovered([Outcome(row.student, row.teacher, True) for row in ROWS]) == 1.0
    assert gap_recovered([Outcome(1, 1, True), Outcome(0, 0, False)]) == 0.0


def test_rounds_are_compared_in_pairs() -> None:
    pairs = [(100.0, 50.0), (10.0, 6.0), (1000.0, 400.0)]
    assert (median_ratio(pairs), median_difference(pairs)) == (0.5, -50.0)


def test_the_interval_holds_the_figure_and_is_the_same_every_time() -> None:
    estimate = bootstrap(list(range(100)), lambda rows: sum(rows) / len(rows))
    assert estimate.value == 49.5
    assert estimate.low < 49.5 < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 28.9 / 10, rel=0.1)
    assert estimate == bootstrap(list(range(100)), lambda rows: sum(rows) / len(rows))
