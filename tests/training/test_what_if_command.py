"""`tw what-if` as a user types it, on logs that the gateway's own writer has written."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from policies.artifact import Manifest, save_artifact
from server.cli import main
from server.decision_log import DecisionLog
from tests.training.decisions import Traffic, feedback, record, step, traffic, write_log
from training.decision_rows import read_decisions


def tw(*args: object):
    return CliRunner().invoke(main, ["what-if", *(str(arg) for arg in args)])


@pytest.fixture(scope="module")
def log() -> Traffic:
    return traffic(800, told=0.5)


@pytest.fixture(scope="module")
def directory(log: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("state") / "decisions", log.rows)


def test_the_report_has_its_promised_shape(directory: Path, log: Traffic):
    result = tw("--log", directory, "--budget", "At most 10% of requests.", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report) == [
        "rows", "budget", "policy", "answerable", "quality", "quality_ci95", "share", "share_ci95", "usd_per_request",
        "usd_per_request_ci95", "refused", "change", "estimators", "effective_sample_size", "smallest_propensity",
        "largest_weight_part", "unsupported", "logged", "references", "curve", "warnings", "notes",
    ]  # fmt: skip
    assert report["rows"] == 800
    assert set(report["estimators"]) == {"ips", "snips", "dr"}
    low, high = report["quality_ci95"]
    assert low < log.best(0.1) < high
    assert report["share"] <= 0.1
    assert report["logged"]["policies"] == {"one": 800}
    assert report["budget"]["text"] == "At most 10% of requests."


def test_no_quality_is_reported_beyond_what_qualities_can_be(tmp_path: Path):
    """More requests were asked than their chance says, and the teacher was always right, so weighed sums pass 1. What
    is read stays within 0..1, as the interval does."""
    rows: list[object] = []
    for number in range(200):
        asks = number % 15 == 0
        chance = 0.05
        decided = step(
            "teacher" if asks else "student",
            chance if asks else 1 - chance,
            score=1.0,
            expected_student_quality=0.5,
            expected_gain=0.0,
        )
        rows += [record(number, decided), feedback(number, 1.0 if asks else number % 2)]
    directory = write_log(tmp_path / "decisions", rows)  # type: ignore[arg-type]
    result = tw("--log", directory, "--budget", "At most 100% of requests.", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["estimators"]["ips"] == {"quality": 1.0, "quality_ci95": [pytest.approx(0.75, abs=0.2), 1.0]}
    found = [report["quality"], *(point["quality"] for point in report["curve"])]
    found += [each["quality"] for each in report["estimators"].values()]
    assert all(0.0 <= each <= 1.0 for each in found), found


def test_in_words(directory: Path):
    result = tw("--log", directory.parent, "--budget", "At most 10% of requests.")
    assert result.exit_code == 0, result.output
    for words in ("800 requests", "what if", "as it was", "student only", "missing at random", "other shares"):
        assert words in " ".join(result.stdout.split()), words


def test_a_picture(directory: Path, tmp_path: Path):
    for budget, name in (("At most 10% of requests.", "one.png"), ("No more than 5 calls a day.", "two.png")):
        result = tw("--log", directory, "--budget", budget, "--plot", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_a_log_without_qualities(tmp_path: Path):
    rows = traffic(100, told=0.0).rows
    result = tw(
        "--log", write_log(tmp_path / "log", rows), "--budget", "Half of requests.", "--plot", tmp_path / "x.png"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert "No quality is known" in " ".join(result.stdout.split())


def test_what_the_gateway_writes_is_what_is_read(tmp_path: Path, log: Traffic):
    written = DecisionLog(tmp_path, segment_bytes=100_000, segments=64)
    for row in log.rows:
        if isinstance(row, dict):
            written.append_feedback(row["feedback_on"], row["quality"], row["at"], row["key_id"])
        else:
            written.append(row)
    written.close()
    read = read_decisions(tmp_path)
    assert read.files > 1
    assert len(read.rows) == 800
    assert sum(row.quality is not None for row in read.rows) == sum(isinstance(row, dict) for row in log.rows)
    first = log.rows[0]
    assert not isinstance(first, dict)
    assert read.rows[0].steps == first.steps


def test_a_torn_line_is_passed_over_and_counted(tmp_path: Path, log: Traffic):
    directory = write_log(tmp_path, log.rows)
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes() + b'{"id": "dec_9')
    report = json.loads(tw("--log", directory, "--budget", "Half of requests.", "--json").stdout)
    assert report["logged"]["torn_lines"] == 1
    assert "1 torn lines were passed over." in report["notes"]


@pytest.fixture
def always_teacher(tmp_path: Path) -> Path:
    manifest = Manifest(kind="always-teacher", name="always-teacher", signals="prompt")
    save_artifact(tmp_path / "policy", manifest, {})
    return tmp_path / "policy"


def test_another_policy_without_logged_prompts(directory: Path, always_teacher: Path):
    result = tw("--log", directory, "--policy", always_teacher)
    assert result.exit_code == 2
    assert "800 of 800 requests were logged without their prompt" in result.output
    assert "Switch log_text on" in result.output


def test_another_policy_alone_is_asked_at_the_share_that_was_asked(tmp_path: Path, always_teacher: Path):
    directory = write_log(tmp_path / "log", traffic(400, text=True).rows)
    result = tw("--log", directory, "--policy", always_teacher, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["share"] == pytest.approx(report["logged"]["share"], abs=0.03)
    assert not report["policy"]["as_logged"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path / "none", "no such directory"),
        (lambda path: path, "no decision log here"),
        (lambda path: write_log(path / "log", []), "the decision log is empty"),
        (lambda path: write_log(path / "log", [record(0)]), "none was routed by a policy"),
        (lambda path: write_log(path / "log", [{"id": "dec_0", "version": 1, "at": 1.0}]), "line 1: not a decision"),
        (lambda path: write_log(path / "log", [[1, 2]]), "line 1: not a decision record but list"),  # type: ignore[list-item]
    ],
)
def test_a_log_that_cannot_be_read(tmp_path: Path, make, said: str):
    result = tw("--log", make(tmp_path), "--budget", "Half of requests.")
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_sentence_that_cannot_be_read(directory: Path):
    result = tw("--log", directory, "--budget", "paint the door green")
    assert result.exit_code == 2
    assert "--budget" in result.output
    result = tw("--log", directory, "--budget", "paint the door green", "--json")
    assert result.exit_code == 2
    assert set(json.loads(result.stdout)["error"]) == {"phrase", "at", "message", "hint"}


def test_wrong_use(directory: Path, tmp_path: Path):
    assert tw("--log", directory).exit_code == 2
    assert "--budget TEXT, --policy DIR, or both" in tw("--log", directory).output
    assert tw("--budget", "Half of requests.").exit_code == 2
    nowhere = tw("--log", directory, "--budget", "Half of requests.", "--plot", tmp_path / "no" / "x.png")
    assert nowhere.exit_code == 2
    assert "no such directory" in nowhere.output
    assert tw("--log", directory, "--policy", tmp_path / "none").exit_code == 2
