"""The sentence at the end of a report: what it asks for, what it says it buys, and what is said instead of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.artifact import Manifest, save_artifact
from policies.baselines import AlwaysStudent, Levels, Threshold
from policies.outcomes import Outcome
from router.language import canonical, parse
from server.cli import main
from tests.training.tables import sums, write
from training.budget_sentences import sentence, shares_wanted
from training.evaluate import evaluate
from training.metrics import SHARES, bootstrap_apgr, bootstrap_points


def by_length(directory: Path) -> Path:
    """A policy that asks for the longest prompts."""
    policy = Threshold("log_bytes", 1.0, Levels(np.linspace(8.0, 0.0, 201)))
    save_artifact(directory, Manifest(kind=policy.kind, name="length", signals="prompt"), policy.arrays())
    return directory


def foreseen(count: int = 400) -> list[Outcome]:
    """The student fails where the prompt is long, the teacher never."""
    return [
        Outcome(
            id=f"r{i}",
            prompt="word " * (1 + i % 10),
            student_quality=float(i % 10 < 8),
            teacher_quality=1.0,
            split="test",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("per_cent", [1, 14, 28, 50, 99])
def test_every_sentence_reads_back_as_the_share_that_it_names(per_cent: int) -> None:
    said = sentence(per_cent / 100)
    budget = parse(said).budget
    assert [limit.at_most for limit in budget.limits] == [per_cent / 100]
    assert parse(canonical(budget)).budget == budget


def test_the_shares_are_the_smallest_that_recover_half_and_four_fifths() -> None:
    assert shares_wanted(SHARES) == [0.5, 0.8]
    assert shares_wanted(np.minimum(4 * SHARES, 1.0)) == [0.13, 0.2]


def test_a_part_that_is_never_recovered_or_only_by_asking_always_has_no_sentence() -> None:
    assert shares_wanted(np.full(101, np.nan)) == []
    assert shares_wanted((SHARES == 1.0).astype(float)) == []
    assert shares_wanted(np.minimum(SHARES, 0.6)) == [0.5]


def test_the_report_says_what_to_write_and_what_that_buys_with_intervals(tmp_path: Path) -> None:
    table = write(tmp_path / "t.jsonl", foreseen())
    result = CliRunner().invoke(
        main, ["evaluate", "--policy", str(by_length(tmp_path / "p")), "--outcomes", str(table), "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    half, most = report["sentences"]
    assert (half["sentence"], half["budget"], half["pgr"]) == ("At most 10% of requests.", 0.1, 0.5)
    assert (most["sentence"], most["budget"]) == ("At most 16% of requests.", 0.16)
    assert most["pgr_ci95"][0] < most["pgr"] < most["pgr_ci95"][1]
    assert report["notes"] == []
    for point in report["curve"]:
        for name in ("quality", "pgr"):
            low, high = point[f"{name}_ci95"]
            assert low <= point[name] <= high, point


def test_in_words_the_sentence_stands_last(tmp_path: Path) -> None:
    table = write(tmp_path / "t.jsonl", foreseen())
    result = CliRunner().invoke(
        main, ["evaluate", "--policy", str(by_length(tmp_path / "p")), "--outcomes", str(table), "--no-baselines"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().splitlines()[-2].startswith('  "At most 10% of requests."     50.0% [')


def test_a_policy_that_ranks_like_chance_is_told() -> None:
    report = evaluate(AlwaysStudent(), foreseen())
    assert report["notes"] == [
        "These rows do not show that the policy ranks better than chance (APGR 0.5 is in its interval)."
    ]


def test_where_the_teacher_is_not_better_no_sentence_is_given() -> None:
    rows = [replace(row, student_quality=1.0, teacher_quality=float(i % 2)) for i, row in enumerate(foreseen(100))]
    report = evaluate(AlwaysStudent(), rows)
    assert report["sentences"] == []
    assert report["notes"] == [
        "The teacher is not better than the student on these rows, so asking everywhere is a waste.",
        "Only 100 rows were measured on; the intervals say how little that tells.",
    ]


def test_the_intervals_of_a_budget_hold_what_resampling_by_hand_holds() -> None:
    """Four kinds of rows, many times over: PGR at 50% of a perfect ranking is gain of the first half over the gap."""
    student = np.tile([0.0, 0.0, 1.0, 1.0], 100)
    teacher = np.tile([1.0, 1.0, 1.0, 0.0], 100)
    quality, recovered = bootstrap_points(teacher - student, student, teacher, np.array([0.0, 0.5, 1.0]))
    assert recovered[0].tolist() == [0.0, 0.0]
    assert recovered[2] == pytest.approx([1.0, 1.0])
    assert recovered[1][0] < 2.0 < recovered[1][1]
    rng = np.random.default_rng(1)
    drawn = [student[rng.integers(400, size=400)].mean() for _ in range(2000)]
    assert quality[0] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.012)


def test_one_ranking_or_one_for_each_share_gives_the_same_intervals() -> None:
    rows = sums(200)
    student = np.array([row.student_quality for row in rows], dtype=np.float64)
    teacher = np.array([row.teacher_quality for row in rows], dtype=np.float64)
    scores = np.random.default_rng(0).random(len(rows))
    shares = np.array([0.1, 0.4])
    one = bootstrap_points(scores, student, teacher, shares)
    many = bootstrap_points(np.stack([scores, scores]), student, teacher, shares)
    np.testing.assert_allclose(one[0], many[0])
    np.testing.assert_allclose(one[1], many[1])
    assert bootstrap_apgr(scores, student, teacher) is not None
