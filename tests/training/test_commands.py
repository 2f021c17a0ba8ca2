"""`tw train policy` and `tw evaluate` as a user types them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.artifact import load_artifact, load_policy
from policies.conformance import check_policy
from policies.wheels import WheelsPolicy
from server.cli import main
from tests.training.tables import as_dict, sums, write
from training import learner
from training.evaluate import observations
from training.learner import PathConsistencyConfig
from training.train_policy import Progress, train_policy

QUICK = ("--steps", "30")


def tw(*args: object):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tables") / "sums.jsonl", sums(300))


@pytest.fixture(scope="module")
def trained(table: Path) -> Path:
    out = table.parent / "policy"
    result = tw("train", "policy", "--outcomes", table, "--out", out, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    (table.parent / "printed.json").write_text(result.stdout)
    return out


def test_training_leaves_a_policy_a_report_and_pictures(trained: Path, table: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "manifest.json",
        "weights.npz",
        "report.json",
        "curve.png",
        "regret.png",
        "calibration.png",
        "training.png",
    }
    assert (trained / "curve.png").read_bytes()[:4] == b"\x89PNG"
    manifest, _ = load_artifact(trained)
    assert manifest.signals == "draft"
    assert (manifest.student_model, manifest.teacher_model) == ("small", "big")
    assert list(manifest.data_sha256) == ["sums.jsonl"]
    assert manifest.seed == 0
    assert manifest.settings["steps"] == 30
    assert {"python", "numpy", "torch", "scikit-learn"} <= set(manifest.libraries)
    printed = json.loads((table.parent / "printed.json").read_text())
    assert printed["policy_version"] == manifest.version
    assert printed["data"]["rows"] == 300
    assert abs(sum(candidate["part"] for candidate in printed["blend"]["defer"].values()) - 1) < 0.01


def test_the_report_of_an_evaluation_has_the_promised_shape(trained: Path, table: Path) -> None:
    result = tw("evaluate", "--policy", trained, "--outcomes", table, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"] == 100
    for name in ("student_quality", "teacher_quality", "apgr", "cpt50", "cpt80"):
        assert isinstance(report[name], float), name
    low, high = report["apgr_ci95"]
    assert low < report["apgr"] < high
    assert {0.05, 0.1, 0.2, 0.3, 0.5} <= {point["budget"] for point in report["curve"]}
    for point in report["curve"]:
        assert {"budget", "share", "quality"} <= set(point)
        assert point["share"] <= point["budget"]
    assert set(report["baselines"]) == {
        "random", "length", "logistic", "factorisation", "ridge", "knn", "gbdt", "cascade", "forest", "mlp", "oracle"
    }  # fmt: skip
    assert report["baselines"]["random"]["apgr"] == pytest.approx(0.5)
    assert report["baselines"]["oracle"]["apgr"] >= report["apgr"]


def test_an_evaluation_in_words_with_pictures(trained: Path, table: Path, tmp_path: Path) -> None:
    result = tw(
        "evaluate", "--policy", trained, "--outcomes", table, "--split", "all", "--no-baselines",
        "--plot", tmp_path / "p.png", "--calibration", tmp_path / "c.png", "--regret", tmp_path / "r.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "300 rows: student" in result.stdout
    for name in ("p", "c", "r"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG", name


def test_an_interrupted_run_goes_on_to_the_same_weights(
    trained: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "policy"
    config = PathConsistencyConfig(steps=30, checkpoint_every=10)
    steps = 0
    inner = learner.losses

    def interrupted(*args):
        nonlocal steps
        steps += 1
        if steps == 18:
            raise KeyboardInterrupt
        return inner(*args)

    monkeypatch.setattr(learner, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_policy([table], out, config, signals=None, created="")
    assert not (out / "manifest.json").exists()
    monkeypatch.setattr(learner, "losses", inner)
    seen: list[str] = []
    progress = Progress(tick=lambda _, note: seen.append(note))
    train_policy([table], out, config, signals=None, created="", resume=True, progress=progress)
    assert "resumed" in seen
    _, expected = load_artifact(trained)
    _, found = load_artifact(out)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_resumed_run_must_have_the_same_data_and_settings(table: Path, tmp_path: Path) -> None:
    work = tmp_path / "policy" / ".training"
    work.mkdir(parents=True)
    (work / "key").write_text("something else")
    result = tw("train", "policy", "--outcomes", table, "--out", tmp_path / "policy", *QUICK, "--resume")
    assert result.exit_code == 2
    assert "other data, settings or versions" in result.stderr


def test_a_dry_run_describes_and_writes_nothing(table: Path, tmp_path: Path) -> None:
    result = tw("train", "policy", "--outcomes", table, "--out", tmp_path / "p", "--dry-run", "--json")
    assert result.exit_code == 0
    described = json.loads(result.stdout)
    assert described["splits"] == {"test": 100, "train": 150, "val": 50}
    assert (described["signals"], described["with_logprobs"]) == ("draft", 300)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        ("", (), "the table has no rows"),
        ("{]", (), "row 1: not JSON"),
        ('{"id": "a", "prompt": "b", "student_quality": 1}', (), "column 'teacher_quality'"),
        ('{"id": "a", "prompt": "b", "student_quality": 7, "teacher_quality": 1}', (), "7 is out of range"),
        ('{"id": "a", "prompt": "b", "student_quality": 1, "teacher_quality": 1}', (), "at least 50 are needed"),
        (
            '{"id": "a", "prompt": "b", "student_quality": 1, "teacher_quality": 1}',
            ("--signals", "draft"),
            "no row has one; use --signals prompt",
        ),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_one_clear_error(tmp_path: Path, rows: str, flags, said: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(rows)
    result = tw("train", "policy", "--outcomes", path, "--out", tmp_path / "p", *flags)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher_quality": None}, "no row has a teacher_quality: the table knows one model only"),
        ({"student_quality": None}, "no row has a student_quality: the table knows one model only"),
        ({"student_quality": 0.5, "teacher_quality": 0.5}, "the teacher's quality is the student's +0 in all 300 rows"),
        ({"student_quality": 0.25, "teacher_quality": 1.0}, "the teacher's quality is the student's +0.75 in all"),
        ({"id": "same"}, "id 'same' occurs twice"),
    ],
)
def test_a_table_with_nothing_to_choose_from_is_one_clear_error(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = write(tmp_path / "t.jsonl", [replace(row, **change) for row in sums(300)])  # type: ignore[arg-type]
    result = tw("train", "policy", "--outcomes", path, "--out", tmp_path / "p", *QUICK)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "p").exists()


def test_ids_must_differ_over_all_tables(trained: Path, table: Path, tmp_path: Path) -> None:
    result = tw("train", "policy", "--outcomes", table, "--outcomes", table, "--out", tmp_path / "p", *QUICK)
    assert result.exit_code == 2
    assert "occurs in more than one" in result.stderr
    result = tw("evaluate", "--policy", trained, "--outcomes", table, "--outcomes", table)
    assert result.exit_code == 2
    assert "occurs in more than one" in result.stderr


def test_a_teacher_that_is_not_better_is_said_and_asked_only_where_it_is(tmp_path: Path) -> None:
    """Right where the student is wrong, and wrong more often where the student is right."""
    rows = [
        replace(row, student_quality=quality, teacher_quality=0.9 - quality)
        for row in sums(300)
        for quality in [0.9 if len(row.prompt) % 4 else 0.0]
    ]
    path = write(tmp_path / "t.jsonl", rows)
    result = tw("train", "policy", "--outcomes", path, "--out", tmp_path / "p", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["apgr"] is None
    assert "not better than the student" in report["data"]["warnings"][0]
    (wanted,) = [point for point in report["curve"] if point["budget"] == 0.2]
    assert wanted["quality"] > report["student_quality"] + 0.1


def test_a_policy_that_is_none_is_said(table: Path, tmp_path: Path) -> None:
    result = tw("evaluate", "--policy", tmp_path, "--outcomes", table)
    assert result.exit_code == 2
    assert "manifest.json: no such file" in result.stderr


def test_a_policy_for_other_models_than_the_tables_is_measured_and_warned_of(trained: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [replace(row, student_model="another") for row in sums(120, seed=5)])
    result = tw("evaluate", "--policy", trained, "--outcomes", path, "--no-baselines", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "Warning: the policy was trained for the student small, and the table holds answers of another; it may rank"
        " them badly: train one on this table\n"
    )
    assert json.loads(result.stdout)["apgr"] is not None


def test_a_split_without_rows_is_named_with_those_that_have_some(trained: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [replace(row, split="train") for row in sums(120)])
    result = tw("evaluate", "--policy", trained, "--outcomes", path)
    assert result.exit_code == 2
    assert "no row of the test split has both qualities (120 in train)" in result.stderr
    assert tw("evaluate", "--policy", trained, "--outcomes", path, "--split", "train", "--no-baselines").exit_code == 0


def test_a_decision_log_is_not_trained_on_and_what_reads_it_is_named(tmp_path: Path) -> None:
    rows = [
        replace(row, **{"student_quality" if i % 5 else "teacher_quality": None}) for i, row in enumerate(sums(120))
    ]
    result = tw("train", "policy", "--outcomes", write(tmp_path / "t.jsonl", rows), "--out", tmp_path / "p")
    assert result.exit_code == 2
    assert "120 rows know one side only, as a decision log does: tw collect asks both, tw what-if reads logs" in (
        result.stderr
    )


def test_a_draft_policy_wants_drafts(trained: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [replace(row, student_response=None) for row in sums(60)])
    result = tw("evaluate", "--policy", trained, "--outcomes", path)
    assert result.exit_code == 2
    assert "no row has a student_response" in result.stderr


def test_without_the_extra_the_error_says_what_to_install(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    inner = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else inner(name, *rest)
    )
    result = tw("train", "policy", "--outcomes", table, "--out", tmp_path / "p")
    assert result.exit_code == 1
    assert "torch is not installed: pip install 'training-wheels[train]'" in result.stderr


def test_help_needs_no_heavy_package() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from server.cli import main\n"
        "for verb in (['train', 'policy'], ['evaluate'], ['collect'], []):\n"
        "    try: main([*verb, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'pyarrow', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_policy_learns_what_the_teacher_costs_where_the_table_says_so(tmp_path: Path) -> None:
    rows = [replace(row, teacher_cost=len(row.prompt) * 1e-5, student_cost=0.0) for row in sums(300)]
    path = tmp_path / "billed.jsonl"
    path.write_text(
        "".join(json.dumps({**as_dict(row), "teacher_cost": row.teacher_cost}) + "\n" for row in rows), encoding="utf-8"
    )
    out = tmp_path / "policy"
    assert tw("train", "policy", "--outcomes", path, "--out", out, *QUICK).exit_code == 0
    policy = load_policy(out)
    scores = [policy.score(one) for one in observations(rows[:60], policy.steps[-1], 0.2)]
    expected = [each.details["expected_teacher_usd"] for each in scores]
    assert expected == pytest.approx([row.teacher_cost for row in rows[:60]], rel=0.2)
    assert all(each.details["most_teacher_usd"] >= each.details["expected_teacher_usd"] for each in scores)
    assert isinstance(policy, WheelsPolicy)
    assert policy.typical is not None
    assert policy.typical.shape == (64, 2)
    check_policy(policy)


def test_a_table_without_bills_gives_a_policy_that_says_nothing_of_them(trained: Path) -> None:
    policy = load_policy(trained)
    (observation,) = observations(sums(1), policy.steps[-1], 0.2)
    assert "expected_teacher_usd" not in policy.score(observation).details


def test_of_a_large_table_a_sample_is_learnt_from_and_the_report_says_so(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    result = tw("train", "policy", "--outcomes", table, "--out", out, "--most-rows", "200", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)["data"]
    assert data["rows"] == 200
    assert any("200 of 300 rows" in warning for warning in data["warnings"])
    result = tw("evaluate", "--policy", out, "--outcomes", table, "--most-rows", "200", "--no-baselines", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == data["splits"]["test"]
    assert result.stderr == "Warning: 200 of 300 rows are measured, chosen by a hash\n"
