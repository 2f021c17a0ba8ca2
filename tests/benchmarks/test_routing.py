"""The experiments on routing quality, on made-up tables: what they compare and how results are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import routing_folds
from benchmarks.routing import EXPERIMENTS, measure
from benchmarks.routing_cells import Bench, Learned, acting, config_of, learn, measured, prompts_only
from benchmarks.routing_experiments import (
    ABLATIONS,
    BARE,
    acts,
    asked_at,
    interval,
    pooled,
    standardised,
    two_step_areas,
)
from benchmarks.routing_report import markdown, plots
from tests.training.tables import sums, write
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, Fitted, fit_estimators

SMALL = EstimatorConfig(trees=10, folds=2, committee=0)


@pytest.fixture(scope="module")
def table() -> Table:
    return build_table(sums(300), "draft")


@pytest.fixture(scope="module")
def fitted(table: Table) -> Fitted:
    return fit_estimators(table, SMALL)


@pytest.fixture(scope="module")
def learned(table: Table, fitted: Fitted) -> Learned:
    return learn(table, fitted, config_of(0, steps=20, estimators=SMALL))


def test_a_result_is_measured_once(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", sums(3)).rename(tmp_path / "t.parquet")
    bench = Bench(tmp_path, tmp_path / "kept", 10, say=lambda _: None)
    made: list[int] = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"apgr": 0.5}

    first = bench.once("quality", "t:draft", 0, "wheels", make)
    assert bench.once("quality", "t:draft", 0, "wheels", make) == first
    assert len(made) == 1
    bench.once("quality", "t:draft", 1, "wheels", make)
    Bench(tmp_path, tmp_path / "kept", 20, say=lambda _: None).once("quality", "t:draft", 0, "wheels", make)
    assert len(made) == 3


def test_standardised_tables_have_one_gap_and_one_spread(table: Table) -> None:
    known = table.split != "test"
    for scale in (1.0, 0.2):
        gain = standardised(replace(table, student=table.student * scale, teacher=table.teacher * scale))
        values = (gain.teacher - gain.student)[known]
        assert values.mean() == pytest.approx(0.5)
        assert values.std() == pytest.approx(1.0)


def test_pooled_tables_stand_end_to_end_and_share_no_fold(table: Table) -> None:
    both = pooled([table, table.take(np.arange(10))])
    assert both.ids == table.ids + table.ids[:10]
    assert both.prompt_ngrams[303].tolist() == table.prompt_ngrams[3].tolist()
    assert both.draft is not None
    assert len(both.draft) == 310
    assert not set(both.fold[300:].tolist()) & set(both.fold[:300].tolist())


def test_acting_under_a_cap_never_asks_more_than_the_cap(learned: Learned) -> None:
    for share in (0.05, 0.2, 0.5):
        assert 0.0 <= acting(learned, share)[0] <= share + 1e-9


def test_costs_lie_between_a_draft_and_a_draft_with_a_call(table: Table, fitted: Fitted, learned: Learned) -> None:
    for kind, policy in (
        ("both", learned),
        ("defer", learned),
        ("route", learn(*prompts_only(table, fitted), config_of(0, steps=5, estimators=SMALL))),
    ):
        count = len(policy.student)
        found = acts(policy, kind)
        cost, recovered = found.spending(policy.teacher - policy.student, np.full(count, 1.0 / count), 0.1)
        assert cost[0] == pytest.approx(0.1)
        assert recovered[0] == 0.0
        assert cost[-1] <= (1.0 if kind == "route" else 1.1) + 1e-9


def test_what_is_blind_to_the_budget_ranks_alike_under_all(table: Table, fitted: Fitted) -> None:
    blind = learn(table, fitted, config_of(0, steps=20, sees_budget=False, estimators=SMALL))
    low, high = blind.scores(0.05), blind.scores(0.5)
    assert np.argsort(low, kind="stable").tolist() == np.argsort(high, kind="stable").tolist()


def test_every_experiment_has_a_table_in_the_report(learned: Learned) -> None:
    result = {**measured(learned, resamples=20), "cpu_s": 1.0}
    rival = {"apgr": 0.5, "pgr": result["pgr"], "curve": result["curve"]}
    quality = {"c": {"seeds": [result, result], "rivals": {"random": rival, "gbdt": rival}}}
    variants = {name: [result] for name in ("as it is", *ABLATIONS, *BARE)} | {
        "regression": [{"linear": rival, "network": rival}]
    }
    steps = {
        "cost": [0.1, 1.0],
        "curves": {"both": [0, 1], "route": [0, 1], "defer": [0, 1]},
        "won": 0.1,
        "won_ci95": [0.0, 0.2],
        "area": {"both": 0.6, "route": 0.5, "defer": 0.5},
    }
    budgets = {
        "one": [0.1, 0.2, 0.3, 0.4, 0.5],
        "many": [0.1, 0.2, 0.3, 0.4, 0.55],
        "lost": [0.0, 0.0, 0.0, 0.0, 0.05],
        "mean_lost_ci95": [-0.02, 0.03],
    }
    lost = {"area": 0.5, "whole_area": 0.6, "lost": 0.1, "lost_ci95": [0.0, 0.2]}
    found = {
        "quality": quality,
        "two-steps": {"c": {"0.1": [steps]}},
        "budgets": {"c": [budgets]},
        "transfer": {"c": [{**result, "rows_known": 7}]},
        "rows": {"c": {"500": [{**result, "count": 500}]}},
        "ablations": {"c": variants},
        "two-step-ablations": {"c": {"no entropy": [lost]}},
        "folds": {
            "c": [{"rows": 9, "found": {"blend": 0.6, "ridge": 0.55, "member: gain": 0.62, "member: error": 0.5}}]
        },
    }
    assert tuple(found) == EXPERIMENTS
    text = markdown(found)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {name}" for name in EXPERIMENTS]
    assert "| c | 0.1 | 0.500 | 0.500 | 0.600 | +0.100 [+0.000, +0.200] | +0.100 |" in text
    assert "|  | lost | +0.000 | +0.000 | +0.000 | +0.000 | +0.050 | +0.010 [-0.020, +0.030] |" in text
    assert "| c | no entropy | 0.500 | 0.600 | +0.100 [+0.000, +0.200] |" in text
    assert "| c | 0.600 | 0.550 | 0.620 (gain) |" in text
    assert {name: picture[:4] for name, picture in plots(found).items()} == dict.fromkeys(
        ("quality", "two-steps", "rows"), b"\x89PNG"
    )


def test_best_scored_rows_are_asked_up_to_the_share() -> None:
    assert asked_at(np.array([0.1, 0.9, 0.5, -1.0]), 0.375).tolist() == [0.0, 1.0, 0.5, 0.0]


def test_a_policy_compared_with_itself_wins_and_loses_nothing(learned: Learned) -> None:
    found = {name: acts(learned, "both") for name in ("one", "other")}
    grid, curves, spread = two_step_areas(found, learned.teacher - learned.student, 0.1)
    assert grid[[0, -1]].tolist() == [0.1, 1.0]
    assert curves["one"].tolist() == curves["other"].tolist()
    assert interval(spread[:, 0] - spread[:, 1]) == [0.0, 0.0]


def test_by_folds_every_row_but_the_tests_is_ranked_by_what_was_fitted_without_it(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.jsonl", sums(3)).rename(tmp_path / "t.parquet")
    bench = Bench(tmp_path, tmp_path / "kept", 10, say=lambda _: None)
    bench._tables["t:draft"] = table
    held: list[set[str]] = []

    def ranked(part: Table, seed: int) -> dict[str, np.ndarray]:
        held.append({part.ids[i] for i in np.flatnonzero(part.split == "test")})
        return {"oracle": part.teacher - part.student + 10.0 * len(held), "one alike": np.zeros(len(part))}

    monkeypatch.setattr(routing_folds, "_ranked", ranked)
    result = routing_folds.folds(bench, "t:draft", 0)
    learned_from = {table.ids[i] for i in np.flatnonzero(table.split != "test")}
    assert set().union(*held) == learned_from
    assert sum(map(len, held)) == len(learned_from) == result["rows"]
    assert result["found"]["oracle"] > 0.8
    assert result["found"]["one alike"] == pytest.approx(0.5, abs=0.1)


def test_blend_members_and_baselines_are_compared_on_the_same_rows(table: Table) -> None:
    scores = routing_folds._ranked(table, 0)
    assert {"blend", "member chosen", "ridge", "forest", "member: draft: gain by trees"} <= set(scores)
    assert all(len(each) == len(table) for each in scores.values())
    chosen = [
        name for name in scores if name.startswith("member: ") and (scores[name] == scores["member chosen"]).all()
    ]
    assert chosen


def test_an_experiment_leaves_out_cells_that_it_is_not_made_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tmp_path, 10)
    for name in ("two-steps", "rows", "two-step-ablations", "folds"):
        assert measure(bench, name, ("mmlu-mixtral-gpt4:prompt",), 1, 1) == {}
