import numpy as np
import pytest

from training.metrics import SHARES, apgr, bootstrap_apgr, cpt, oracle, pgr, quality_at

STUDENT = np.array([0.0, 1.0, 0.0, 1.0])
TEACHER = np.array([1.0, 1.0, 1.0, 1.0])


def test_quality_by_hand() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    shares = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert quality_at(scores, STUDENT, TEACHER, shares).tolist() == [0.5, 0.75, 0.75, 1.0, 1.0]


def test_equal_scores_count_as_their_mean() -> None:
    shares = np.array([0.0, 0.25, 0.5, 1.0])
    assert quality_at(np.zeros(4), STUDENT, TEACHER, shares).tolist() == [0.5, 0.625, 0.75, 1.0]
    assert apgr(np.zeros(4), STUDENT, TEACHER) == pytest.approx(0.5)


def test_the_oracle_is_above_and_its_opposite_below() -> None:
    best = oracle(STUDENT, TEACHER)
    assert apgr(best, STUDENT, TEACHER) == pytest.approx(0.75)
    assert apgr(-best, STUDENT, TEACHER) == pytest.approx(0.25)


def test_a_ranking_for_each_share() -> None:
    scores = np.tile(np.array([4.0, 3.0, 2.0, 1.0]), (101, 1))
    assert apgr(scores, STUDENT, TEACHER) == pytest.approx(apgr(scores[0], STUDENT, TEACHER))


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    assert np.isnan(apgr(np.arange(4.0), TEACHER, TEACHER))
    assert np.isnan(pgr(np.array([0.5]), 0.7, 0.6)).all()
    assert bootstrap_apgr(np.arange(4.0), TEACHER, TEACHER) is None


def test_call_share_that_reaches_a_level() -> None:
    assert cpt(SHARES, 0.5) == pytest.approx(0.5)
    assert cpt(np.minimum(SHARES * 2, 1.0), 0.8) == pytest.approx(0.4)
    assert cpt(SHARES * 0.3, 0.5) is None


def test_the_interval_holds_the_estimate_and_shrinks_with_rows() -> None:
    rng = np.random.default_rng(0)

    def sample(count: int):
        student, teacher = rng.random(count) < 0.5, rng.random(count) < 0.8
        scores = rng.normal(size=count) - student
        found = student.astype(float), teacher.astype(float)
        low, high = bootstrap_apgr(scores, *found)
        assert low < apgr(scores, *found) < high
        return high - low

    assert sample(4000) < sample(400)


def test_the_interval_is_the_same_for_one_ranking_and_for_101_equal_ones() -> None:
    rng = np.random.default_rng(1)
    student, teacher = (rng.random(200) < 0.5).astype(float), (rng.random(200) < 0.8).astype(float)
    scores = rng.normal(size=200)
    one = bootstrap_apgr(scores, student, teacher, resamples=50)
    assert bootstrap_apgr(np.tile(scores, (101, 1)), student, teacher, resamples=50) == pytest.approx(one)
