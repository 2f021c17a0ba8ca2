import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from policies.artifact import (
    ArtifactCorrupted,
    ArtifactError,
    ArtifactMissing,
    ArtifactTooNew,
    ArtifactUnknown,
    Manifest,
    load_artifact,
    load_policy,
    read_manifest,
    save_artifact,
)
from policies.baselines import AlwaysTeacher

MANIFEST = Manifest(kind="always-teacher", name="always-teacher", signals="prompt", created="2026-11-21T00:00:00+00:00")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_artifact(tmp_path / "p", MANIFEST, {"nothing": np.zeros(3)}, {"report.json": b"{}"})
    return tmp_path / "p"


def change_manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_saved_is_loaded(saved: Path) -> None:
    manifest, arrays = load_artifact(saved)
    policy = load_policy(saved)
    assert isinstance(policy, AlwaysTeacher)
    assert policy.version == manifest.version == json.loads((saved / "manifest.json").read_text())["version"]
    assert arrays["nothing"].tolist() == [0, 0, 0]
    assert (saved / "report.json").read_bytes() == b"{}"
    assert [entry.name for entry in saved.parent.iterdir()] == ["p"]


def test_the_version_depends_on_weights_and_settings_and_not_on_the_date(tmp_path: Path) -> None:
    def version(weights: float = 0.0, **changes: object) -> str:
        manifest = Manifest(**{"kind": "random", "name": "r", "signals": "prompt", **changes})
        return save_artifact(tmp_path / "p", manifest, {"w": np.array(weights)}).version

    first = version()
    assert len(first) == 12
    assert version(created="2030-01-01") == first
    assert version(weights=1.0) != first
    assert version(seed=4) != first


def test_saving_again_replaces_and_keeps_other_files(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    written = save_artifact(saved, MANIFEST, {"nothing": np.ones(3)})
    assert load_policy(saved).version == written.version
    assert (saved / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["manifest.json", "weights.npz"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ArtifactMissing, match=str(saved / name)):
        load_policy(saved)


def test_no_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="tw train policy"):
        load_policy(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactMissing):
        load_policy(tmp_path / "file")


def test_damaged_weights_are_found_by_their_hash(saved: Path) -> None:
    raw = bytearray((saved / "weights.npz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (saved / "weights.npz").write_bytes(raw)
    with pytest.raises(ArtifactCorrupted, match="SHA-256"):
        load_policy(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format_version": "1"}', '{"format_version": 1}'])
def test_a_damaged_manifest_is_said(saved: Path, content: str) -> None:
    (saved / "manifest.json").write_text(content)
    with pytest.raises(ArtifactCorrupted, match=r"manifest\.json"):
        load_policy(saved)


def test_a_newer_format_is_refused_before_its_fields_are_looked_at(saved: Path) -> None:
    change_manifest(saved, format_version=3, a_field_of_the_future=1)
    with pytest.raises(ArtifactTooNew, match="format version 3, and this program knows versions up to 2"):
        load_policy(saved)


def test_other_features_are_refused(saved: Path) -> None:
    change_manifest(saved, features_hash="0" * 16)
    with pytest.raises(ArtifactUnknown, match="train the policy again"):
        load_policy(saved)


def test_an_unknown_kind_is_refused(saved: Path) -> None:
    change_manifest(saved, kind="crystal-ball")
    with pytest.raises(ArtifactUnknown, match="unknown kind of policy 'crystal-ball'; this version knows always-"):
        load_policy(saved)


@pytest.mark.parametrize("kind", ["wheels", "logistic", "knn", "threshold"])
def test_weights_of_another_kind_are_refused(saved: Path, kind: str) -> None:
    change_manifest(saved, kind=kind)
    with pytest.raises(ArtifactError, match="do not fit"):
        load_policy(saved)


def test_signals_of_the_future_are_refused(saved: Path) -> None:
    change_manifest(saved, signals="telepathy")
    with pytest.raises(ArtifactUnknown, match="looks at the signals 'telepathy', and this program knows prompt, draft"):
        load_policy(saved)


def test_weights_that_are_none_are_said_in_words_of_ours(saved: Path) -> None:
    (saved / "weights.npz").write_bytes(b"no weights")
    change_manifest(saved, weights_sha256=hashlib.sha256(b"no weights").hexdigest())
    with pytest.raises(ArtifactCorrupted, match="not a file of weights; copy or train the policy again"):
        load_policy(saved)


def test_pickles_are_never_opened(saved: Path) -> None:
    import hashlib

    np.savez(saved / "weights.npz", evil=np.array([{"a": 1}], dtype=object))
    change_manifest(saved, weights_sha256=hashlib.sha256((saved / "weights.npz").read_bytes()).hexdigest())
    with pytest.raises(ArtifactCorrupted):
        load_policy(saved)


def test_a_failed_save_leaves_the_old_policy(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_manifest(saved).version

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        save_artifact(saved, MANIFEST, {"nothing": np.ones(3)})
    assert load_policy(saved).version == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["p"]
