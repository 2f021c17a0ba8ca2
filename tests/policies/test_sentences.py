"""The optional sentence encoder: named by hash, found or refused with one line, the same in training and in service."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.action import Step
from policies.artifact import ArtifactError, load_policy, read_manifest
from policies.prompt_features import PROMPT_FEATURES
from policies.sentences import VARIABLE, EncoderMissing, encoder_sha256, find_encoder
from policies.wheels import WheelsPolicy
from tests.policies.encoders import tiny_encoder
from tests.training.tables import sums, write
from training.cli import train
from training.dataset import build_table
from training.evaluate import observations
from training.widening import widen

SIZE = 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained by the command, with the encoder."""
    folder = tmp_path_factory.mktemp("trained")
    table = write(folder / "sums.jsonl", sums(180))
    arguments = ["policy", "--outcomes", str(table), "--out", str(folder / "policy"), "--steps", "5"]
    done = CliRunner().invoke(train, [*arguments, "--encoder", str(encoder), "--encoder-size", str(SIZE)])
    assert done.exit_code == 0, done.output
    return folder / "policy"


def test_service_reads_what_training_read(trained: Path, encoder: Path) -> None:
    rows = [replace(row, prompt=row.prompt * (1 + i % 3)) for i, row in enumerate(sums(40))]
    policy = load_policy(trained)
    assert isinstance(policy, WheelsPolicy)
    table, looks = widen(build_table(rows, "draft"), rows, encoder=find_encoder(str(encoder)), size=SIZE)
    assert looks.sentences is not None
    ours = replace(policy, estimators=looks.given_to(policy.estimators))
    estimates = 7
    at_route = ours.prepare(observations(rows, Step.ROUTE))
    assert (at_route[:, estimates:] == table.prompt).all()
    one_by_one = np.concatenate([ours.prepare([each]) for each in observations(rows, Step.DEFER)])
    prompt_part = slice(2 * estimates, 2 * estimates + len(PROMPT_FEATURES) + SIZE)
    assert (one_by_one[:, prompt_part] == table.prompt).all()


def test_scores_do_not_depend_on_what_is_scored_beside(trained: Path) -> None:
    policy = load_policy(trained)
    assert isinstance(policy, WheelsPolicy)
    asked = observations(sums(12), Step.DEFER, 0.2)
    together = [each.score for each in policy.score_batch(asked)]
    assert together == pytest.approx([policy.score(each).score for each in asked], abs=1e-9)


def test_the_artifact_names_the_encoder_and_holds_none_of_its_weights(trained: Path, encoder: Path) -> None:
    described = {"name": str(encoder), "sha256": encoder_sha256(encoder), "size": SIZE}
    assert read_manifest(trained).encoder == described
    assert read_manifest(trained).settings["encoder"] == described
    with np.load(trained / "weights.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays if name.startswith("sentences")} == {
            "sentences.mean": (16,),
            "sentences.axes": (16, SIZE),
        }


def test_loading_imports_no_torch(trained: Path) -> None:
    code = (
        "import sys; from policies.artifact import load_policy; load_policy(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(trained)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_its_packages_the_extra_is_named(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else there(name))
    with pytest.raises(
        ArtifactError, match=r"needs transformers, which is not installed: .*training-wheels\[encoder\]"
    ):
        load_policy(trained)


def test_an_encoder_that_moved_is_found_by_the_variable(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = copy_that_names(trained, tmp_path / "policy", tmp_path / "nowhere")
    with pytest.raises(EncoderMissing, match=f"no such directory; .*name it in {VARIABLE}"):
        load_policy(gone)
    monkeypatch.setenv(VARIABLE, str(tiny_encoder(tmp_path / "moved")))
    assert load_policy(gone).name == "policy"


def test_another_encoder_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tiny_encoder(tmp_path / "other", seed=1)))
    with pytest.raises(EncoderMissing, match="another encoder"):
        load_policy(trained)


def test_an_encoder_that_cannot_be_read_is_one_line(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderMissing, match="the sentence encoder cannot be loaded"):
        find_encoder(str(tmp_path / "broken")).warm()


def test_a_folder_without_a_model_is_refused_before_training(tmp_path: Path) -> None:
    table = write(tmp_path / "sums.jsonl", sums(180))
    arguments = ["policy", "--outcomes", str(table), "--out", str(tmp_path / "policy"), "--encoder", str(tmp_path)]
    done = CliRunner().invoke(train, arguments)
    assert (done.exit_code, "no sentence encoder" in done.output) == (2, True)
    assert not (tmp_path / "policy").exists()


def test_any_text_can_be_read(encoder: Path) -> None:
    texts = ["", "x" * 100_000, "\ud800 lone", "多言語 text 😀"]
    vectors = find_encoder(str(encoder)).read(texts)
    assert vectors.shape == (4, 16)
    assert np.allclose((vectors**2).sum(axis=1), 1.0)


def test_policies_without_an_encoder_leave_no_trace_of_it(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "server" / "shipped" / "policy"
    manifest = read_manifest(shipped)
    assert manifest.version == json.loads((shipped / "manifest.json").read_text())["version"]
    assert {"encoder", "samples"} & manifest.content().keys() == set()


def copy_that_names(artifact: Path, target: Path, encoder: Path) -> Path:
    """The same policy, whose encoder lay somewhere else."""
    shutil.copytree(artifact, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["encoder"]["name"] = str(encoder)
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target
