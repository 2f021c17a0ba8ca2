"""A table of exactly a thousand rows, through the command line: a policy, and a report that says how sure it is."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from policies.artifact import load_policy, read_manifest
from policies.observation import Observation
from server.cli import main
from tests.training.tables import sums, write
from training.evaluate import observations


def tw(*args: object) -> dict[str, object]:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("thousand") / "sums.jsonl", sums(1000, logprobs=False))


@pytest.fixture(scope="module")
def trained(table: Path) -> tuple[Path, dict[str, object]]:
    out = table.parent / "policy"
    return out, tw(
        "train", "policy", "--outcomes", table, "--out", out, "--steps", "20", "--signals", "prompt", "--json"
    )


def test_it_makes_a_policy_that_scores(trained: tuple[Path, dict[str, object]]) -> None:
    out, report = trained
    data = report["data"]
    assert isinstance(data, dict)
    assert (data["rows"], data["both_known"]) == (1000, 1000)
    # The rows go round by six: train three times, val once, test twice.
    assert data["splits"] == {"test": 332, "train": 501, "val": 167}
    assert report["policy_version"] == read_manifest(out).version
    policy = load_policy(out)
    look: Observation = observations(sums(1, seed=5), policy.steps[-1], 0.2)[0]
    assert policy.score(look) == policy.score(look)


def test_its_report_holds_intervals_and_what_they_cannot_say(
    trained: tuple[Path, dict[str, object]], table: Path
) -> None:
    out, _ = trained
    report = tw("evaluate", "--policy", out, "--outcomes", table, "--no-baselines", "--json")
    assert report["rows"] == 332
    apgr, interval, curve = report["apgr"], report["apgr_ci95"], report["curve"]
    assert isinstance(apgr, float)
    assert isinstance(interval, list)
    low, high = interval
    assert low < apgr < high
    # Large numbers are hard for this student and the prompt shows them; few rows leave it unsure by how much.
    assert low > 0.5
    assert high - low > 0.02
    assert isinstance(curve, list)
    for point in curve:
        assert point["quality_ci95"][0] <= point["quality"] <= point["quality_ci95"][1]
        assert point["share"] <= point["budget"]
    assert isinstance(report["notes"], list)
