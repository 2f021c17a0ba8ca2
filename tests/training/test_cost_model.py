"""What a teacher call will cost, learnt from tables whose bills follow from the prompt by construction."""

import random
from dataclasses import replace

import numpy as np
import pytest

from policies.cost import CostModel
from policies.features import prompt_of, read_prompt
from policies.outcomes import Outcome
from tests.training.tables import sums
from training.cost_model import CannotExpectCost, CostConfig, FittedCost, fit_cost
from training.dataset import Table, build_table


def billed(count: int) -> list[Outcome]:
    """Proofs cost ten times what sums cost, give or take a fifth."""
    rng = random.Random(1)
    rows = []
    for i, row in enumerate(sums(count)):
        proof = i % 3 == 0
        prompt = f"Prove it step by step. {row.prompt}" if proof else row.prompt
        cost = (0.02 if proof else 0.002) * float(np.exp(rng.gauss(0, 0.2)))
        rows.append(replace(row, prompt=prompt, teacher_cost=cost))
    return rows


@pytest.fixture(scope="module")
def rows() -> list[Outcome]:
    return billed(600)


@pytest.fixture(scope="module")
def table(rows: list[Outcome]) -> Table:
    return build_table(rows, "prompt")


@pytest.fixture(scope="module")
def fitted(table: Table) -> FittedCost:
    return fit_cost(table, table.teacher_cost)


def test_the_bill_is_foreseen_from_the_prompt(table: Table, fitted: FittedCost) -> None:
    test = table.split == "test"
    error = np.log(table.teacher_cost[test]) - np.log(fitted.expected[test])
    assert error.std() < 0.25
    assert fitted.expected[test].mean() == pytest.approx(table.teacher_cost[test].mean(), rel=0.05)


def test_nearly_all_calls_cost_less_than_the_most_that_is_expected(table: Table, fitted: FittedCost) -> None:
    over = table.teacher_cost > fitted.model.most * fitted.expected
    assert 1.2 < fitted.model.most < 2.5
    assert over[table.split == "test"].mean() < 0.03


def test_in_service_the_same_is_expected_as_in_training(rows: list[Outcome], table: Table, fitted: FittedCost) -> None:
    served = CostModel.from_arrays(fitted.model.arrays("cost"), "cost")
    later = np.flatnonzero(table.split != "train")
    views = [read_prompt(prompt_of(rows[row])) for row in later]
    expected = served.expected(np.stack([view.dense for view in views]), [view.ngrams for view in views])
    np.testing.assert_allclose(expected, fitted.expected[later], rtol=1e-5)


def test_rows_without_a_bill_are_left_out(rows: list[Outcome]) -> None:
    some = [replace(row, teacher_cost=None) if i % 2 else row for i, row in enumerate(rows)]
    table = build_table(some, "prompt")
    expected = fit_cost(table, table.teacher_cost).expected
    assert np.isfinite(expected).all()
    assert (expected > 0).all()


def test_too_few_bills_are_refused(rows: list[Outcome]) -> None:
    table = build_table(rows[:40], "prompt")
    with pytest.raises(CannotExpectCost, match=r"21 training rows say what the teacher cost .* 50 are needed"):
        fit_cost(table, table.teacher_cost, CostConfig())


def test_a_prompt_of_nothing_known_has_a_middling_cost(fitted: FittedCost) -> None:
    view = read_prompt(prompt_of(sums(1)[0]))
    none = fitted.model.expected(fitted.model.mean[None], [view.ngrams[:0]])
    assert none[0] == pytest.approx(np.exp(fitted.model.constants[0]) * fitted.model.constants[1])
