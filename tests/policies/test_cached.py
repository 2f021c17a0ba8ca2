"""What prefix caches hold as features: worked out by hand, alike in training and in service, absent without columns."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.action import Step
from policies.artifact import ArtifactCorrupted, load_policy, read_manifest
from policies.cached import CACHE_FEATURES, read_cached
from policies.conformance import check_policy
from policies.features import DRAFT_FEATURES, PROMPT_FEATURES
from policies.observation import Prompt
from policies.outcomes import Outcome, read_outcomes
from policies.wheels import ESTIMATES, WheelsPolicy, feature_names
from server.frames import Frames
from server.scoring.wire import batch_frame, observation_of
from tests.training.tables import as_dict, sums
from training.cli import train
from training.dataset import build_table
from training.evaluate import observations
from training.widening import knows_cached, widen

COLUMNS = ("student_cached_tokens", "teacher_cached_tokens")


def test_tokens_are_read_by_hand() -> None:
    text = "x" * 400  # about a hundred tokens
    found = dict(zip(CACHE_FEATURES, read_cached(Prompt(text, text, 2, "student", 25, 900)).tolist(), strict=True))
    assert found == {
        "student_cached_known": 1.0,
        "log_student_cached_tokens": pytest.approx(np.log(26)),
        "student_cached_part": 0.25,
        "teacher_cached_known": 1.0,
        "log_teacher_cached_tokens": pytest.approx(np.log(901)),
        "teacher_cached_part": 1.0,
    }


def test_none_held_is_something_else_than_unknown() -> None:
    assert read_cached(Prompt("", "", 2, None, 0, None)).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_they_are_no_part_of_what_every_policy_looks_at() -> None:
    """So the hash of the features, and with it every artifact from before, stays good."""
    assert not {*CACHE_FEATURES} & {*PROMPT_FEATURES, *DRAFT_FEATURES}
    assert feature_names(Step.ROUTE, cached=True)[: -len(CACHE_FEATURES)] == feature_names(Step.ROUTE)


def test_columns_that_are_not_there_change_no_array() -> None:
    rows = sums(30)
    held = [replace(row, student_cached_tokens=7, teacher_cached_tokens=None) for row in rows]
    assert (knows_cached(rows), knows_cached(held)) == (False, True)
    plain, looks = widen(build_table(rows, "draft"), rows, cached=knows_cached(rows))
    told, _ = widen(build_table(held, "draft"), held, cached=knows_cached(held))
    assert looks.described()["cached"] is None
    assert plain.prompt.shape[1] == len(PROMPT_FEATURES)
    assert (told.prompt[:, : len(PROMPT_FEATURES)] == plain.prompt).all()
    assert plain.draft is not None
    assert told.draft is not None
    assert (told.draft == plain.draft).all()


# Through training


def conversations(count: int, *, seed: int = 0) -> list[Outcome]:
    """The teacher bills a tenth of a turn whose beginning it holds; at first turns nothing is known."""
    found = []
    for i, row in enumerate(sums(count, seed=seed)):
        student, teacher = ((None, None), (40, 0), (0, 5000))[i % 3]
        cost = 0.001 if teacher else 0.01
        held = {"student_cached_tokens": student, "teacher_cached_tokens": teacher}
        found.append(replace(row, teacher_cost=cost, **held))
    return found


def write(path: Path, rows: list[Outcome], *, columns: bool = True) -> Path:
    lines = []
    for row in rows:
        held = {name: getattr(row, name) for name in COLUMNS} if columns else {}
        lines.append(json.dumps(as_dict(row) | {"teacher_cost": row.teacher_cost} | held))
    path.write_text("\n".join(lines) + "\n")
    return path


def trained_on(table: Path, out: Path, *more: str) -> Path:
    done = CliRunner().invoke(train, ["policy", "--outcomes", str(table), "--out", str(out), "--steps", "5", *more])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cached")
    return trained_on(write(folder / "t.jsonl", conversations(240)), folder / "policy")


def test_service_reads_what_training_read(trained: Path) -> None:
    rows = conversations(45, seed=3)
    policy = load_policy(trained)
    assert isinstance(policy, WheelsPolicy)
    table, _ = widen(build_table(rows, "draft"), rows, cached=policy.estimators.cached)
    looks = observations(rows, Step.DEFER)
    (sent,) = Frames().feed(batch_frame(looks))
    served = np.concatenate([policy.prepare([observation_of(each)]) for each in sent])
    names = feature_names(Step.DEFER, cached=True)
    assert served.shape[1] == len(names)
    wanted = slice(names.index(CACHE_FEATURES[0]), names.index(CACHE_FEATURES[-1]) + 1)
    assert (served[:, wanted] == table.prompt[:, len(PROMPT_FEATURES) :]).all()
    assert (served[:, 2 * len(ESTIMATES) : wanted.stop] == table.prompt).all()


def test_the_manifest_names_them(trained: Path) -> None:
    manifest = read_manifest(trained)
    assert manifest.cached == manifest.settings["cached"] == list(CACHE_FEATURES)


def test_such_a_policy_passes_the_kit(trained: Path) -> None:
    check_policy(load_policy(trained), most_ms=200.0)


def test_a_bill_is_expected_from_what_the_teacher_holds(trained: Path) -> None:
    policy = load_policy(trained)
    row = sums(1, seed=9)[0]
    bills = [
        policy.score(observations([replace(row, student_cached_tokens=s, teacher_cached_tokens=t)], Step.DEFER, 0.2)[0])
        for s, t in ((40, 0), (0, 5000))
    ]
    dear, cheap = [each.details["expected_teacher_usd"] for each in bills]
    assert 3 < dear / cheap < 30


def test_a_column_of_nulls_is_no_column(tmp_path: Path) -> None:
    """And a policy without these features is the same to the bit."""
    rows = [replace(row, student_cached_tokens=None, teacher_cached_tokens=None) for row in sums(120)]
    with_nulls = trained_on(write(tmp_path / "nulls.jsonl", rows), tmp_path / "nulls", "--signals", "prompt")
    without = trained_on(write(tmp_path / "t.jsonl", rows, columns=False), tmp_path / "none", "--signals", "prompt")
    digests = {hashlib.sha256((each / "weights.npz").read_bytes()).hexdigest() for each in (with_nulls, without)}
    assert len(digests) == 1
    assert "cached" not in json.loads((with_nulls / "manifest.json").read_text())
    assert all(row.student_cached_tokens is None for row in read_outcomes(tmp_path / "nulls.jsonl"))


def test_features_that_this_version_does_not_know_are_refused(trained: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "weights.npz").write_bytes((trained / "weights.npz").read_bytes())
    manifest = json.loads((trained / "manifest.json").read_text())
    (policy / "manifest.json").write_text(json.dumps(manifest | {"cached": ["age_of_the_cache"]}))
    with pytest.raises(ArtifactCorrupted, match=r"it looks at \['age_of_the_cache'\] of prefix caches"):
        load_policy(policy)
