"""Tables, training, artifacts and reports with more than one teacher."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.action import Step
from policies.artifact import ArtifactCorrupted, ArtifactTooNew, load_policy, read_manifest
from policies.conformance import check_policy
from policies.outcomes import read_outcomes
from policies.wheels import WheelsPolicy
from tests.training import several
from tests.training.tables import sums
from training.choice import bear_out_choice
from training.dataset import build_table
from training.estimators import EstimatorConfig
from training.evaluate import CannotEvaluate, observations
from training.evaluate_several import LEARNED, evaluate_several
from training.evaluation_run import evaluation_run
from training.learner import PathConsistencyConfig
from training.train_policy import CannotTrain, describe, train_policy

QUICK = PathConsistencyConfig(
    steps=60,
    batch=64,
    evaluate_every=20,
    knots=9,
    estimators=EstimatorConfig(trees=15, folds=2, least_leaf_rows=10, committee=0),
)


@pytest.fixture(scope="module", params=["prompt", "draft"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """(directory with the table and the policy, the report)"""
    directory = tmp_path_factory.mktemp("several")
    table = several.write(directory / "table.jsonl", several.specialists(400, drafts=request.param == "draft"))
    config = replace(QUICK, draft_cost=0.1 if request.param == "draft" else 0.0)
    report = train_policy([table], directory / "policy", config, signals=request.param, created="2026-11-21")
    return directory, report


def test_the_policy_asks_each_teacher_what_it_is_good_at(trained: tuple[Path, Any]) -> None:
    directory, _ = trained
    policy = load_policy(directory / "policy")
    rows = [row for row in read_outcomes(directory / "table.jsonl") if row.split == "test"]
    asked: dict[str, list[str]] = {"code": [], "history": []}
    for row, observation in zip(rows, observations(rows, policy.steps[-1], 0.3), strict=True):
        if row.group in asked:
            best = max(policy.score(observation).teachers, key=lambda each: each.score)
            asked[row.group].append(best.name)
    assert asked["code"].count("coder") > 0.9 * len(asked["code"])
    assert asked["history"].count("scholar") > 0.9 * len(asked["history"])


def test_the_choice_buys_more_than_either_teacher_alone_by_calls_and_by_money(trained: tuple[Path, Any]) -> None:
    report = trained[1]
    assert report["best_teacher"] == "scholar"
    for by in (report["by_calls"], report["by_usd"]["compared"]):
        for name in ("coder", "scholar"):
            assert by[name]["learned_more"] > 0
            assert by[LEARNED]["apgr"] == pytest.approx(by[name]["apgr"] + by[name]["learned_more"], abs=1e-5)
    assert report["by_calls"]["scholar"]["learned_more_ci95"][0] > 0
    usd = report["by_usd"]["quality"]
    assert usd[LEARNED][-1] >= max(usd["coder"][-1], usd["scholar"][-1])
    assert all(best >= other - 1e-9 for best, other in zip(usd["hindsight"], usd[LEARNED], strict=True))


def test_the_manifest_names_the_teachers_and_what_a_call_costs(trained: tuple[Path, Any]) -> None:
    manifest = read_manifest(trained[0] / "policy")
    assert (manifest.format_version, manifest.teacher_names, manifest.teacher_model) == (
        2,
        ("coder", "scholar"),
        "coder",
    )
    assert manifest.teachers is not None
    prices = [teacher["usd_per_call"] for teacher in manifest.teachers]
    assert prices == pytest.approx([0.002, 0.008], rel=0.05)


def test_the_policy_keeps_the_contract_and_says_what_each_call_will_cost(trained: tuple[Path, Any]) -> None:
    policy = load_policy(trained[0] / "policy")
    check_policy(policy)
    rows = [row for row in read_outcomes(trained[0] / "table.jsonl") if row.split == "test"]
    said = [policy.score(each).teachers for each in observations(rows, policy.steps[-1], 0.2)]
    expected = np.array([[teacher.usd for teacher in teachers] for teachers in said]).mean(axis=0)
    assert expected == pytest.approx([0.002, 0.008], rel=0.1)


def test_a_program_of_before_refuses_the_artifact_with_one_clear_line(
    trained: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.artifact.NEWEST_FORMAT", 1)
    with pytest.raises(ArtifactTooNew, match="format version 2, and this program knows versions up to 1; update"):
        load_policy(trained[0] / "policy")


@pytest.mark.parametrize(
    "change",
    [
        {"teachers": [{"name": "coder"}]},
        {"teachers": [{"name": "coder"}, {"name": "coder"}]},
        {"teachers": [{"name": "coder"}, {"name": "scholar"}, {"name": "third"}]},
        {"teachers": [{"title": "coder"}, {"title": "scholar"}]},
        {"teachers": None},
        {"format_version": 1},
    ],
)
def test_a_manifest_whose_teachers_do_not_fit_is_refused(
    trained: tuple[Path, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(trained[0] / "policy", tmp_path / "policy")
    path = tmp_path / "policy" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactCorrupted):
        load_policy(tmp_path / "policy")


def test_the_same_data_and_seed_give_the_same_policy(trained: tuple[Path, Any], tmp_path: Path) -> None:
    directory, report = trained
    signals = report["signals"]
    config = replace(QUICK, draft_cost=0.1 if signals == "draft" else 0.0)
    again = train_policy(
        [directory / "table.jsonl"], tmp_path / "x", config, signals=signals, created="2030", name="policy"
    )
    assert again["policy_version"] == report["policy_version"]


def test_evaluation_wants_a_table_with_the_policys_teachers(trained: tuple[Path, Any]) -> None:
    policy = load_policy(trained[0] / "policy")
    with pytest.raises(CannotEvaluate, match=r"does not hold coder, scholar .it holds one teacher"):
        evaluate_several(policy, sums(20))
    rows = read_outcomes(trained[0] / "table.jsonl")
    turned = [replace(row, teachers=row.teachers[::-1]) for row in rows if row.split == "test"]
    straight = evaluate_several(policy, [row for row in rows if row.split == "test"])
    assert evaluate_several(policy, turned) == straight
    report, pictures = evaluation_run(policy, rows, plot=True)
    assert report == straight
    assert pictures["plot"].startswith(b"\x89PNG")


def test_a_long_table_with_one_teacher_trains_the_very_policy_of_the_wide_one(tmp_path: Path) -> None:
    rows = sums(300)
    wide = [
        {"id": row.id, "prompt": row.prompt, "split": row.split, "student_quality": row.student_quality,
         "teacher_quality": row.teacher_quality, "student_response": row.student_response,
         "student_logprobs": row.student_logprobs, "student_model": "s", "teacher_model": "t"}
        for row in rows
    ]  # fmt: skip
    long: list[dict[str, Any]] = []
    for row in rows:
        same = {"id": row.id, "prompt": row.prompt, "split": row.split}
        student = {"model": "s", "role": "student", "response": row.student_response, "logprobs": row.student_logprobs}
        long += [
            {**same, **student, "quality": row.student_quality},
            {**same, "model": "t", "quality": row.teacher_quality},
        ]
    reports = []
    for name, table in (("wide", wide), ("long", long)):
        path = several.write(tmp_path / f"{name}.jsonl", table)
        reports.append(train_policy([path], tmp_path / name, QUICK, signals="draft", created="2026", name="same"))
    weights = [(tmp_path / name / "weights.npz").read_bytes() for name in ("wide", "long")]
    assert weights[0] == weights[1]
    assert [read_manifest(tmp_path / name).format_version for name in ("wide", "long")] == [1, 1]
    assert "teachers" not in json.loads((tmp_path / "wide" / "manifest.json").read_text())


def test_where_the_choice_says_nothing_the_teacher_that_is_better_on_the_whole_is_asked() -> None:
    rng = np.random.default_rng(0)
    rows = several.specialists(200, drafts=False)
    for row in rows:  # whom to ask is chance; the scholar is better by a tenth on the whole
        row["quality"] = float(rng.random() < {"small": 0.3, "coder": 0.6, "scholar": 0.7}[row["model"]])
    table_rows = _read(rows)
    table = build_table(table_rows, "prompt")
    from training.estimators import fit_estimators
    from training.learner import begin, finish, run
    from training.lessons import prepare

    fitted = fit_estimators(table, QUICK.estimators)
    lessons = prepare(table, fitted)
    loop = begin(lessons, QUICK)
    run(loop, lessons, QUICK)
    policy = finish(loop, lessons, fitted.estimators, table, QUICK, "p")
    assert isinstance(policy, WheelsPolicy)
    said = [policy.score(each).teachers for each in observations(table_rows, Step.ROUTE, 0.3)]
    chosen = [max(teachers, key=lambda each: each.score).name for teachers in said]
    assert chosen.count("scholar") > 0.9 * len(chosen)
    features = {Step.ROUTE: lessons.route.numpy()}
    gains = np.column_stack(table.teacher_qualities) - table.student[:, None]
    _, parts = bear_out_choice(policy, features, gains[:, ::-1], doubt=1.5)
    assert parts == [0.0]


def _read(rows: list[dict[str, Any]]) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return read_outcomes(several.write(Path(directory) / "t.jsonl", rows))


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    rows = several.specialists(100)
    for row in rows:
        if row["model"] == "scholar":
            row["quality"] = None
    with pytest.raises(CannotTrain, match="no row has a quality of the teacher scholar"):
        describe(_read(rows), "prompt")
    with pytest.raises(CannotTrain, match="coder, scholar in one, one teacher in another"):
        describe([*_read(several.specialists(100)), *sums(10)], "prompt")
    described = describe(_read(several.specialists(200)), None).as_dict()
    assert list(described["teachers"]) == ["coder", "scholar"]
    assert "teachers" not in describe(sums(200), None).as_dict()
