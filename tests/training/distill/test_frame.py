"""The trainer: stopping and resuming, disks that fill up, several devices, what is left for others to load."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import save_model, settings, toml
from training.distill import checkpoint
from training.distill.errors import CannotDistill, DistillationFailed, Stopped
from training.distill.frame import learning_rate
from training.distill.run import describe, distil

ROOT = Path(__file__).parents[3]


def run(folder: Path, method: str = "kd", stop_at: int | None = None, **sections: Any) -> dict[str, Any]:
    return distil(config_of(settings(folder, **sections)), method, surroundings(stop_at), lambda _name: None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


# Random models are nearly uniform: their probabilities lie close together, their logarithms less so.
RANKING = {"on": "log-probability", "temperature": 1.0}
COMBINED: dict[str, Any] = {
    "loss": {"on_policy": 0.5, "max_new_tokens": 4},
    "ranking": {"shuffled": True},
    "features": {"layers": [[1, 2]]},
    "warmup": {"max_new_tokens": 6, "top_k": 3, "prompts": 8},
}
MUON: dict[str, Any] = {"features": {}, "training": {"optimizer": "muon", "group_by_length": True}}


@pytest.mark.parametrize("sections", [{}, COMBINED, MUON], ids=["kd", "everything", "muon"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(folder: Path, sections: dict[str, Any]) -> None:
    sections = {**sections, "training": {"steps": 8, "rows": 2, **sections.get("training", {})}}
    run(folder, "warmup" if "warmup" in sections else "kd", out=str(folder / "whole"), **sections)
    stops = 0
    for stop_at in (2, 3, 4, None):
        try:
            run(folder, "warmup" if "warmup" in sections else "kd", stop_at, out=str(folder / "parts"), **sections)
        except Stopped:
            stops += 1
    assert stops >= 2
    whole, parts = weights(folder / "whole"), weights(folder / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_leaves_a_student_that_transformers_loads_a_report_and_curves(folder: Path) -> None:
    report = run(folder)
    out = folder / "out"
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((out / "report.json").read_text())
    assert told["stages"]["kd"]["steps"] == 4
    assert told["stages"]["kd"]["tokens"] == report["stages"]["kd"]["tokens"] > 0
    assert {"val_kl", "val_reverse_kl", "val_nll", "val_cr5", "val_mor10"} <= told["validation"].keys()
    student = AutoModelForCausalLM.from_pretrained(out / "student")
    words = AutoTokenizer.from_pretrained(out / "student")
    asked = words("1 and 2 make", return_tensors="pt")
    answer = student.generate(
        **{n: asked[n] for n in ("input_ids", "attention_mask")}, max_new_tokens=3, do_sample=False
    )
    assert answer.shape[1] > asked["input_ids"].shape[1]
    before = AutoModelForCausalLM.from_pretrained(folder / "student").state_dict()
    assert not torch.equal(before["model.norm.weight"], student.state_dict()["model.norm.weight"])


def test_projections_are_dropped_at_export(folder: Path) -> None:
    run(folder, "features", features={})
    assert not [name for name in weights(folder / "out") if "projection" in name]
    saved = load_file(next((folder / "out/kd/checkpoints").iterdir()) / "lesson.safetensors")
    assert {name for name in saved if name.startswith("features.")} == {
        "features.centres", "features.projections.0.bias", "features.projections.0.weight"
    }  # fmt: skip


def test_the_students_distance_shrinks(folder: Path) -> None:
    report = run(folder, training={"steps": 40, "evaluate_every": 40})
    curve = [row["val_kl"] for row in report["stages"]["kd"]["curves"] if "val_kl" in row]
    assert curve[-1] < 0.6 * curve[0]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({}, {"loss": {"shuffled_teacher": True}}),
        (
            {"features": {"projection": "orthogonal", "weight": 20.0}, "loss": {"weight": 0.0}},
            {"features": {"projection": "orthogonal", "weight": 20.0, "shuffled": True}, "loss": {"weight": 0.0}},
        ),
        (
            {"ranking": RANKING, "loss": {"weight": 0.0}},
            {"ranking": {**RANKING, "shuffled": True}, "loss": {"weight": 0.0}},
        ),
    ],
    ids=["divergence", "features", "ranking"],
)  # fmt: skip
def test_a_shuffled_teacher_loses(folder: Path, good: dict[str, Any], bad: dict[str, Any]) -> None:
    found = []
    for name, sections in (("good", good), ("bad", bad)):
        report = run(folder, out=str(folder / name), training={"steps": 60, "evaluate_every": 60}, **sections)
        key = "features" if "features" in sections else "ranking" if "ranking" in sections else "divergence"
        found.append([row[key] for row in report["stages"]["kd"]["curves"] if key in row][-1])
        found.append(report["validation"]["val_mor10"])
    loss, overlap, shuffled_loss, shuffled_overlap = found
    if "ranking" in good:
        assert overlap > shuffled_overlap
    else:
        assert loss < shuffled_loss


def test_a_cached_teacher_is_made_once_and_learned_from(folder: Path) -> None:
    sections = {"teacher": {"top_k": 8, "cache": str(folder / "cache")}}
    report = run(folder, **sections)
    assert report["teacher_parameters"] is None
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.safetensors")}
    run(folder, out=str(folder / "again"), **sections)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.safetensors")} == stamps
    torch.testing.assert_close(weights(folder / "out"), weights(folder / "again"), atol=0, rtol=0)
    with pytest.raises(CannotDistill, match=r"made of something else \(different: k\)"):
        run(folder, out=str(folder / "other"), teacher={"top_k": 9, "cache": str(folder / "cache")})


def test_a_cache_belongs_to_the_teachers_weights_wherever_they_lie(folder: Path) -> None:
    run(folder, teacher={"top_k": 8, "cache": str(folder / "cache")})
    (folder / "teacher").rename(folder / "moved")
    sections = {"teacher": {"path": str(folder / "moved"), "top_k": 8, "cache": str(folder / "cache")}}
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.safetensors")}
    run(folder, out=str(folder / "again"), **sections)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.safetensors")} == stamps
    (folder / "moved").unlink()
    save_model(folder / "moved", seed=3, hidden=24, layers=2)
    with pytest.raises(CannotDistill, match=r"made of something else \(different: teacher\)"):
        run(folder, out=str(folder / "trained-anew"), **sections)


def test_other_settings_are_not_mixed_into_a_run(folder: Path) -> None:
    run(folder)
    with pytest.raises(CannotDistill, match=r"other settings \(different: loss\)"):
        run(folder, loss={"kind": "reverse"})


def test_a_full_disk_leaves_the_last_good_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    save_file = checkpoint.save_file

    def fails_later(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            Path(arguments[1]).write_bytes(b"half of i")
            raise OSError(28, "No space left on device")
        save_file(*arguments)

    monkeypatch.setattr(checkpoint, "save_file", fails_later)
    with pytest.raises(DistillationFailed, match=r"No space left on device.*the last good one is .*step-00000002"):
        run(folder)
    assert [path.name for path in (folder / "out/kd/checkpoints").iterdir()] == ["step-00000002"]
    run(folder)
    run(folder, out=str(folder / "whole"))
    torch.testing.assert_close(weights(folder / "out"), weights(folder / "whole"), atol=0, rtol=0)


def test_a_damaged_checkpoint_is_told(folder: Path) -> None:
    run(folder)
    next(path for path in (folder / "out/kd/checkpoints").iterdir() if "4" in path.name).joinpath(
        "lesson.safetensors"
    ).write_bytes(b"nonsense")
    with pytest.raises(CannotDistill, match="cannot go on from it"):
        run(folder)


def test_a_loss_that_is_no_number_stops_the_run(folder: Path) -> None:
    with pytest.raises(DistillationFailed, match=r"the loss is .*Lower training\.learning_rate"):
        run(folder, training={"learning_rate": 1e20, "clip": 1e20, "steps": 20})


def test_pairs_that_do_not_fit_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotDistill, match="100 tokens, and the student knows 64 positions"):
        run(folder, data={"context": 100})
    save_model(tmp_path / "other", size=270, seed=2)
    words = AutoTokenizer.from_pretrained(tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    moved = json.loads(file.read_text())
    a, b = words.convert_ids_to_tokens([40, 41])
    vocabulary = moved["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    file.write_text(json.dumps(moved))
    with pytest.raises(CannotDistill, match=r"2 of the first \d+ ids have another meaning \(id 40 is"):
        run(folder, out=str(folder / "swapped"), teacher={"path": str(tmp_path / "other")})


def test_packing_and_accumulation_and_class_means_run(folder: Path) -> None:
    report = run(
        folder,
        training={"accumulate": 2, "rows": 2, "gradient_checkpointing": True, "bf16": True},
        data={"packing": True},
        features={"target": "class-mean", "projection": "low-rank", "rank": 4},
    )  # fmt: skip
    assert report["stages"]["kd"]["steps"] == 4


def test_accumulating_halves_is_the_same_step(folder: Path) -> None:
    run(folder, out=str(folder / "whole"))
    run(folder, out=str(folder / "halves"), training={"rows": 2, "accumulate": 2})
    torch.testing.assert_close(weights(folder / "whole"), weights(folder / "halves"), atol=2e-4, rtol=1e-3)


def test_a_dry_run_counts_without_training(folder: Path) -> None:
    told = describe(config_of(settings(folder)), "kd")
    assert (told["steps"], told["rows_per_step"], told["data"]["train"]["examples"]) == (4, 4, 24)
    assert told["student_parameters"] < told["teacher_parameters"]
    assert not (folder / "out").exists()


def test_rates_rise_and_fall() -> None:
    training = config_of(settings(Path("x"), training={"warmup": 0.2, "schedule": "linear"})).training
    rates = [learning_rate(training, step, 10) / training.learning_rate for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)


def torchrun(folder: Path, name: str, **sections: Any) -> dict[str, torch.Tensor]:
    file = folder / f"{name}.toml"
    file.write_text(toml(settings(folder, out=str(folder / name), **sections)))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
        "-m", "training.distill", "kd", "--config", str(file),
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return weights(folder / name)


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_learn_what_one_does(folder: Path, sharding: str) -> None:
    run(folder, out=str(folder / "one"))
    two = torchrun(folder, "two", training={"rows": 2, "sharding": sharding})
    torch.testing.assert_close(two, weights(folder / "one"), atol=2e-4, rtol=1e-3)
    if sharding == "fsdp":
        # As if the machine had died after the checkpoint of step 2.
        shutil.rmtree(folder / "two/kd/checkpoints/step-00000004")
        shutil.rmtree(folder / "two/student")
        again = torchrun(folder, "two", training={"rows": 2, "sharding": sharding})
        torch.testing.assert_close(again, two, atol=0, rtol=0)
