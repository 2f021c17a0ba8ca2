"""The estimators on problems small enough to enumerate, and what they must not depend on."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.off_policy import (
    Design,
    Known,
    difference,
    doubly_robust,
    effective_sample_size,
    everything_known,
    importance,
    largest_part,
    self_normalised,
    student_t,
)

unit = st.floats(0.0, 1.0)
chances = st.floats(0.05, 0.95)


@st.composite
def problems(draw, count=4):
    """Per request: chance of arm 1 when logged and under the candidate, quality of both arms, what a model expects."""
    size = {"min_size": count, "max_size": count}
    return tuple(
        np.array(draw(st.lists(each, **size))) for each in (chances, unit, st.tuples(unit, unit), st.tuples(unit, unit))
    )


def logs(logged):
    """Every log that could have been written, with its probability: (probability, arms taken)."""
    for arms in itertools.product((0, 1), repeat=len(logged)):
        taken = np.array(arms)
        yield float(np.prod(np.where(taken == 1, logged, 1 - logged))), taken


def of(chance, taken):
    return np.where(taken == 1, chance, 1 - chance)


@settings(max_examples=50, deadline=None)
@given(problems())
def test_ips_and_dr_are_unbiased_whatever_the_model(problem):
    logged, candidate, quality, model = problem
    rows = np.arange(len(logged))
    truth = (candidate * quality[:, 1] + (1 - candidate) * quality[:, 0]).mean()
    by_model = candidate * model[:, 1] + (1 - candidate) * model[:, 0]
    ips = dr = 0.0
    known = everything_known(len(logged))
    for probability, taken in logs(logged):
        weight, outcome = of(candidate, taken) / of(logged, taken), quality[rows, taken]
        ips += probability * importance(weight, outcome, known).value
        expected = model[rows, taken]
        dr += probability * doubly_robust(weight, outcome, known, taken=expected, baseline=by_model).value
    assert ips == pytest.approx(truth, abs=1e-9)
    assert dr == pytest.approx(truth, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(problems(count=3), st.floats(0.2, 0.9))
def test_unknown_outcomes_bias_nothing_when_the_share_known_is_right(problem, told):
    logged, candidate, quality, _ = problem
    rows = np.arange(len(logged))
    truth = (candidate * quality[:, 1] + (1 - candidate) * quality[:, 0]).mean()
    found = 0.0
    for probability, taken in logs(logged):
        for heard in itertools.product((False, True), repeat=len(logged)):
            known = np.array(heard)
            chance = float(np.prod(np.where(known, told, 1 - told)))
            outcome = np.where(known, quality[rows, taken], np.nan)
            weight = of(candidate, taken) / of(logged, taken)
            all_alike = Known(known, np.zeros(len(known), dtype=np.int64), np.full(len(known), told))
            found += probability * chance * importance(weight, outcome, all_alike).value
    assert found == pytest.approx(truth, abs=1e-9)


@given(st.lists(unit, min_size=2, max_size=30))
def test_what_was_done_is_valued_at_what_was_got(outcomes):
    outcome = np.array(outcomes)
    weight, known = np.ones(len(outcome)), everything_known(len(outcome))
    constant = np.full(len(outcome), 0.3)
    assert importance(weight, outcome, known).value == pytest.approx(outcome.mean())
    assert self_normalised(weight, outcome, known).value == pytest.approx(outcome.mean())
    told = doubly_robust(weight, outcome, known, taken=constant, baseline=constant)
    assert told.value == pytest.approx(outcome.mean())


weighted = st.lists(st.tuples(st.floats(0.01, 20.0), unit), min_size=3, max_size=30)


@given(weighted, st.floats(0.1, 5.0), st.floats(-0.5, 0.5))
def test_snips_follows_the_outcomes_and_not_the_scale_of_weights(rows, scale, shift):
    weight, outcome = np.array(rows).T
    known = everything_known(len(weight))
    plain = self_normalised(weight, outcome, known)
    scaled = self_normalised(scale * weight, outcome + shift, known)
    assert scaled.value == pytest.approx(plain.value + shift, abs=1e-9)
    assert outcome.min() - 1e-9 <= plain.value <= outcome.max() + 1e-9


@given(weighted, st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(rows, rng):
    known = everything_known(len(rows))
    mixed = list(rows)
    rng.shuffle(mixed)
    for estimator in (importance, self_normalised):
        one, other = estimator(*np.array(rows).T, known), estimator(*np.array(mixed).T, known)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


@given(weighted)
def test_dr_with_a_model_that_expects_nothing_is_ips(rows):
    weight, outcome = np.array(rows).T
    known, nothing = everything_known(len(rows)), np.zeros(len(rows))
    one = importance(weight, outcome, known)
    other = doubly_robust(weight, outcome, known, taken=nothing, baseline=nothing)
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)


def test_a_model_that_knows_everything_leaves_no_noise_of_the_choices():
    rng = np.random.default_rng(0)
    quality = np.full((400, 2), [0.25, 0.75])
    taken = rng.integers(0, 2, 400)
    weight = np.where(taken == 1, 2.0, 0.0)
    outcome = quality[np.arange(400), taken]
    told = doubly_robust(weight, outcome, everything_known(400), taken=outcome, baseline=quality[:, 1])
    assert (told.value, told.low, told.high) == pytest.approx((0.75, 0.75, 0.75))


def test_unknown_outcomes_are_stood_in_for_by_their_own_stratum():
    outcome = np.array([1.0, np.nan, np.nan, np.nan, 0.0, 0.0, np.nan, 0.0])
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert importance(np.ones(8), outcome, Known.of(outcome, strata)).value == 0.5


def test_a_stratum_of_which_nothing_is_known_is_told():
    outcome = np.array([1.0, np.nan, np.nan, np.nan])
    known = Known.of(outcome, np.array([0, 0, 1, 1]))
    assert known.lost(np.array([1.0, 1.0, 3.0, 3.0])) == 0.75
    assert known.lost(np.zeros(4)) == 0.0


def test_the_share_known_being_estimated_makes_the_interval_narrower_and_not_wider():
    rng = np.random.default_rng(1)
    outcome = np.where(rng.random(2000) < 0.5, 0.9, np.nan)
    strata = np.zeros(2000, dtype=np.int64)
    told = importance(np.ones(2000), outcome, Known.of(outcome, strata))
    assert (told.low, told.high) == pytest.approx((0.9, 0.9))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = {"ips": 0, "snips": 0, "dr": 0}
    for _ in range(400):
        x = rng.random(800)
        logged = np.where(x > 0.8, 0.9, 0.1)
        taken = (rng.random(800) < logged).astype(int)
        right = rng.random(800) < np.where(taken == 1, 0.9, 0.9 - 0.6 * x)
        outcome = np.where(rng.random(800) < 0.5, right.astype(float), np.nan)
        known = Known.of(outcome, taken)
        candidate = (x > 0.5).astype(float)
        weight = of(candidate, taken) / of(logged, taken)
        truth = 0.5 * 0.9 + 0.5 * (0.9 - 0.6 * 0.25)
        model = np.column_stack([0.8 - 0.3 * x, np.full(800, 0.8)])
        found = {
            "ips": importance(weight, outcome, known),
            "snips": self_normalised(weight, outcome, known),
            "dr": doubly_robust(
                weight, outcome, known, taken=model[np.arange(800), taken],
                baseline=candidate * model[:, 1] + (1 - candidate) * model[:, 0],
            ),
        }  # fmt: skip
        for name, estimate in found.items():
            held[name] += estimate.low <= truth <= estimate.high
    assert all(0.92 <= each / 400 <= 0.985 for each in held.values()), held


@given(
    chance=chances, candidate=unit, right=st.tuples(unit, unit), model=st.tuples(unit, unit), told=st.floats(0.1, 1.0)
)
def test_the_variance_by_design_is_that_of_all_that_could_have_been(chance, candidate, right, model, told):
    """Requests all alike: side, right or wrong, and known or not, each with its probability."""
    weights = np.array([(1 - candidate) / (1 - chance), candidate / chance])
    worth = np.array(right)
    design = Design(
        chance=np.full((50, 2), [1 - chance, chance]),
        weight=np.full((50, 2), weights),
        mean=np.full((50, 2), worth),
        variance=np.full((50, 2), worth * (1 - worth)),
        strata=np.zeros((50, 2), dtype=np.int64),
    )
    known = Known(np.ones(50, dtype=bool), np.zeros(50, dtype=np.int64), np.array([told]))
    for centre in (np.zeros(2), np.array(model)):
        squares = first = 0.0
        mean = float(np.array([1 - chance, chance]) @ (weights * (worth - centre)))
        for side, quality, heard in itertools.product((0, 1), (0.0, 1.0), (False, True)):
            probability = (chance if side else 1 - chance) * (worth[side] if quality else 1 - worth[side])
            probability *= told if heard else 1 - told
            value = mean + (heard / told) * (weights[side] * (quality - centre[side]) - mean)
            squares, first = squares + probability * value**2, first + probability * value
        expected = design.variance_of(known, centre=np.full((50, 2), centre))
        assert expected == pytest.approx(squares - first**2, rel=1e-6, abs=1e-8)


def test_a_weight_that_happened_not_to_come_is_reckoned_with():
    """Nothing heavy was drawn, and by design it might have been."""
    weight, outcome, known = np.ones(100), np.full(100, 0.5), everything_known(100)
    design = Design(
        chance=np.full((100, 2), [0.99, 0.01]),
        weight=np.full((100, 2), [1.0, 20.0]),
        mean=np.full((100, 2), 0.5),
        variance=np.full((100, 2), 0.0),
        strata=np.zeros((100, 2), dtype=np.int64),
    )
    blind, told = importance(weight, outcome, known), importance(weight, outcome, known, design)
    assert (blind.low, blind.high) == (0.5, 0.5)
    assert told.high - told.low == pytest.approx(2 * 1.96 * np.sqrt(0.99 * 0.25 + 0.01 * 100 - 0.595**2) / 10, rel=1e-3)


def test_a_difference_on_the_same_requests_forgets_what_they_share():
    rng = np.random.default_rng(3)
    outcome, known = rng.random(500), everything_known(500)
    one = importance(np.ones(500), outcome + 0.1, known)
    other = importance(np.ones(500), outcome, known)
    change = difference(one, other)
    assert (change.value, change.low, change.high) == pytest.approx((0.1, 0.1, 0.1))


def test_rejected_requests_count_as_nothing():
    weight, outcome = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.5, 1.0, 1.0])
    assert self_normalised(weight, outcome, everything_known(4), mass=0.5).value == pytest.approx(0.375)


def test_snips_of_nothing_is_no_number():
    assert np.isnan(self_normalised(np.zeros(3), np.ones(3), everything_known(3)).value)


def test_effective_sample_size_and_the_heaviest_request():
    assert effective_sample_size(np.ones(10)) == 10
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == 1
    assert effective_sample_size(np.zeros(3)) == 0
    assert largest_part(np.array([3.0, 1.0])) == 0.75
    assert largest_part(np.zeros(3)) == 0.0


@pytest.mark.parametrize("freedom", [3, 4, 6, 10, 30, 1000])
def test_students_t(freedom):
    from scipy.stats import t

    assert student_t(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.02 if freedom < 4 else 0.005)


def test_an_interval_is_cut_to_what_is_possible():
    told = importance(np.array([0.0, 4.0, 0.0, 4.0]), np.ones(4), everything_known(4)).within(0.0, 1.0)
    assert (told.low, told.high) == (0.0, 1.0)
