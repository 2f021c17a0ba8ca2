"""The tables of perfect denoisers that say what rounds could reach on sums."""

import numpy as np
import pytest

from benchmarks.distill.exact_sums import (
    MASKS,
    SHAPE,
    STATES,
    Tables,
    at_entropy,
    cooled,
    distilled,
    distilled_dilated,
    perfect,
    sampled,
)


@pytest.fixture(scope="module")
def base() -> Tables:
    return perfect(np.full(10, 0.1))


def row(*line: int | None) -> int:
    return int(np.ravel_multi_index([m if v is None else v for v, m in zip(line, MASKS, strict=True)], SHAPE))


def test_the_perfect_base_is_bayes_rule(base: Tables) -> None:
    nothing = row(None, None, None, None)
    assert STATES[nothing].tolist() == MASKS.tolist()
    assert base.of[0][nothing] == pytest.approx(np.full(10, 0.1), abs=2e-3)
    # 45 of the 100 sums are ten or more.
    assert base.of[2][nothing] == pytest.approx([0.55, 0.45], abs=2e-3)
    assert base.of[1][row(7, None, 1, 2)].argmax() == 5
    assert base.of[1][row(7, None, 1, 2)].max() > 0.98
    assert base.possible[row(7, 5, 1, 2)]
    assert not base.possible[row(7, 5, 1, 3)]


def test_a_round_of_one_teacher_step_changes_nothing(base: Tables) -> None:
    student = distilled(base, 0.1, 1, "reverse", np.random.default_rng(0), draws=2)
    assert all(np.allclose(ours, theirs) for ours, theirs in zip(student.of, base.of, strict=True))


def test_a_dilated_round_of_one_teacher_step_changes_nothing(base: Tables) -> None:
    student = distilled_dilated(base, 4, 1, "reverse", np.random.default_rng(0), 3, np.full(10, 0.1))
    assert all(np.allclose(ours, theirs) for ours, theirs in zip(student.of, base.of, strict=True))


def test_steps_that_lie_apart_make_more_right_sums_and_a_round_on_them_more_still(base: Tables) -> None:
    chance = np.random.default_rng(0)
    student = distilled_dilated(base, 4, 2, "reverse", chance, 200, np.full(10, 0.1))
    chanced, apart, taught = (
        sampled(tables, 4, chance, 8_000, order)["valid_sums"]
        for tables, order in ((base, "ancestral"), (base, "dilated"), (student, "dilated"))
    )
    assert chanced + 0.15 < apart
    assert apart + 0.02 < taught


def test_more_steps_make_more_right_sums_and_cooling_fewer_kinds_of_them() -> None:
    base, chance = perfect(1.0 / np.arange(1, 11) / np.sum(1.0 / np.arange(1, 11))), np.random.default_rng(0)
    few, many = (sampled(base, steps, chance, 4_000) for steps in (4, 32))
    assert few["valid_sums"] + 0.1 < many["valid_sums"] > 0.9
    cold = sampled(cooled(base, 0.3), 4, chance, 4_000)
    assert cold["line_entropy"] < few["line_entropy"] - 1
    matched = at_entropy(base, 4, 0.9, chance, 4_000)
    assert matched["entropy"] == pytest.approx(0.9, abs=0.05)


def test_forward_rounds_keep_the_mean_and_reverse_ones_sharpen() -> None:
    base, chance = perfect(1.0 / np.arange(1, 11) / np.sum(1.0 / np.arange(1, 11))), np.random.default_rng(0)
    nothing = row(None, None, None, None)

    def entropy(tables: Tables) -> float:
        return float(-sum((of[nothing] * np.log(of[nothing])).sum() for of in tables.of))

    forward, reverse = (distilled(base, 0.5, 2, kind, chance, draws=300) for kind in ("forward", "reverse"))
    assert entropy(forward) == pytest.approx(entropy(base), abs=0.2)
    assert entropy(reverse) < entropy(base) - 0.2
