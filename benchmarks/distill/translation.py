"""Warm-up, ranking and features on Multi30k, each against its own ablations: same start, same teacher, same steps.

Every arm of a seed begins with the same student: one trained plainly on the data; for features one that has learned
nothing yet; for warm-up one that went on to learn from disfluent text (`arms.STARTS`). Curves, and whatever was tuned,
are of the validation split; final measurements are of the test split. With `after_kd` the start is the finished student
of the arm `kd` and arms are half as long, so that what differs is not how fast an arm gets somewhere. Results lie in
arm/seed-N/result.json; an arm that has one is not run again, and one that was interrupted goes on.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.distill.arms import FEATURES, METHODS, NEEDED, STARTS, Start, pairs
from benchmarks.distill.material import bf16, disfluent, first, save_fresh, trained, translation_pair
from benchmarks.distill.measuring import (
    distances,
    hidden_likeness,
    projection_of,
    rows_of,
    steps_to,
    translation_quality,
)
from benchmarks.distill.remembered import Remembered, in_place_of, remembered
from benchmarks.distill.sizes import Sizes
from benchmarks.distill.surroundings import surroundings
from training.distill.advise import own_text
from training.distill.checkpoint import latest
from training.distill.config import DistillConfig, FeaturesConfig
from training.distill.examples import Row
from training.distill.models import load_model, load_tokenizer
from training.distill.pair import Data, Pair, read_data
from training.distill.report import write_json
from training.distill.run import distil


def run(
    method: str,
    data: Path,
    work: Path,
    sizes: Sizes,
    seeds: int,
    only: str | None,
    say: Callable[[str], None],
    *,
    after_kd: bool = False,
) -> dict[str, Any]:
    """All arms of a method; returns arm -> results of its seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    start: Start = "after-kd" if after_kd else STARTS.get(method, "trained")
    for number, (arm, changes) in enumerate(METHODS[method].items()):
        if only is not None and arm not in (only, "kd", NEEDED.get(only)):
            continue
        count = seeds if number < 3 or method == "summary" or arm == only else 1
        for seed in range(count):
            say(f"{method}: {arm}, seed {seed}")
            found.setdefault(arm, []).append(one_arm(arm, changes, data, work, sizes, seed, start))
    for results in found.values():
        for seed, result in enumerate(results):
            baseline = found["kd"][seed]
            result["steps_to_kd"] = steps_to(result["curve"], baseline["curve"][-1]["val_kl"])
    if method == "summary":
        found |= ends(data, work, sizes, seeds, say)
    return found


def configuration(changes: dict[str, Any], pair: dict[str, Any], out: Path, sizes: Sizes, seed: int) -> DistillConfig:
    sections = {name: value for name, value in changes.items() if name != "extra"}
    if isinstance(kind := sections.get("features", {}).get("layers"), str):
        layers = pairs(kind, sizes.student.layers, sizes.teacher.layers)
        sections["features"] = {**sections["features"], "layers": layers}
    if "warmup" in sections:
        sections["warmup"] = {"prompts": sizes.warm_prompts, "max_new_tokens": 48, **sections["warmup"]}
    files = pair["files"]
    return DistillConfig.model_validate(
        {
            "out": str(out),
            "seed": seed,
            "student": {"path": str(pair["student"])},
            "teacher": {"path": str(pair["teacher"])},
            "data": {
                "train": [str(files["train"])], "validation": [str(files["val"])], "context": sizes.context,
                "validation_rows": sizes.validation_rows,
            },
            "training": {
                "epochs": sizes.distil_epochs, "rows": sizes.rows, "learning_rate": sizes.student_rate / 2,
                "warmup": 0.05, "bf16": bf16(), "evaluate_every": sizes.evaluate_every, "tokens_at_once": 4096,
                "optimizer": "muon" if sizes.muon else "adamw", "group_by_length": sizes.muon,
            },
            **sections,
        }
    )  # fmt: skip


def folder_of(arm: str) -> str:
    return arm.replace(" ", "-").replace(",", "").replace("+", "-")


FOLDERS: dict[Start, str] = {
    "trained": "arms",
    "after-kd": "arms-after-kd",
    "fresh": "arms-from-scratch",
    "disfluent": "arms-disfluent",
    "disfluent-short": "arms-disfluent-short",
    "disfluent-own": "arms-disfluent-own",
    "disfluent-few": "arms-disfluent-few",
}


def one_arm(
    arm: str, changes: dict[str, Any], data: Path, work: Path, sizes: Sizes, seed: int, start: Start
) -> dict[str, Any]:
    # By what it does, not by the method that asked for it: two methods share the arm `kd`.
    out = work / FOLDERS[start] / folder_of(arm) / f"seed-{seed}"
    file = out / "result.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    pair = translation_pair(data, work, sizes, 0 if sizes.one_start else seed)
    if start == "fresh":
        fresh = save_fresh(sizes.fresh, pair["tokenizer"], work / f"fresh-{seed}", seed)
        pair = {**pair, "student": fresh}
        sizes = replace(
            sizes, student=sizes.fresh, distil_epochs=sizes.fresh_epochs, student_rate=2 * sizes.student_rate
        )
    if start.startswith("disfluent"):
        number = 0 if sizes.one_start else seed
        taught = {split: disfluent(pair["files"][split]) for split in ("train", "val")}
        student, _ = trained(
            f"disfluent-{number}", sizes.student, taught, pair["tokenizer"], work, epochs=sizes.distil_epochs,
            rows=sizes.rows, rate=sizes.student_rate / 2, seed=number, start=pair["student"],
            validation_rows=sizes.validation_rows, context=sizes.context, muon=sizes.muon,
        )  # fmt: skip
        pair = {**pair, "student": student}
        if start != "disfluent":
            # Closer together: what a warm-up leaves shows in the first steps.
            every = max(1, round(sizes.evaluate_every * sizes.short / 4))
            sizes = replace(sizes, distil_epochs=sizes.distil_epochs * sizes.short, evaluate_every=every)
        if start == "disfluent-few":
            # As many steps, over the rows alone whose prompts are corrected.
            pair = {**pair, "files": {**pair["files"], "train": first(pair["files"]["train"], sizes.warm_prompts)}}
            sizes = replace(sizes, distil_epochs=sizes.distil_epochs * sizes.train_rows / sizes.warm_prompts)
    if start == "after-kd":
        one_arm("kd", {}, data, work, sizes, seed, "trained")
        pair = {**pair, "student": work / "arms" / "kd" / f"seed-{seed}" / "student"}
        sizes = replace(sizes, distil_epochs=sizes.distil_epochs / 2, student_rate=sizes.student_rate / 2)
    config = configuration(changes, pair, out, sizes, seed)
    if changes.get("extra"):
        config = config.model_copy(update={"training": _with_extra_steps(config, out, seed)})
    method = "warmup" if config.warmup else "kd"
    same = shared(config, pair, work / "few" if start == "disfluent-few" else work, sizes)
    memory = same.memory
    with in_place_of(memory, same.data):
        report = distil(config, method, surroundings(f"{arm} {seed}"), lambda _name: None)
    curve = [row for row in report["stages"]["kd"]["curves"] if "val_kl" in row]
    learned = report["stages"]["kd"]
    validated = len(curve) * sum(len(row.tokens) for row in same.data.validation_rows)
    # Texts of the student's own are not remembered: the teacher was asked for them.
    known = learned["tokens"] if config.loss.on_policy == 0 else 0
    learned["seconds"] += memory.seconds_per_token * (known + validated)
    result = {
        "arm": arm,
        "seed": seed,
        "steps": sum(stage["steps"] for stage in report["stages"].values()),
        "tokens": sum(stage["tokens"] for stage in report["stages"].values()),
        "seconds": sum(stage["seconds"] for stage in report["stages"].values())
        + report.get("warmup", {}).get("writing_seconds", 0.0),
        "stages": {n: {k: s[k] for k in ("steps", "tokens", "seconds")} for n, s in report["stages"].items()},
        "curve": curve,
        "kl_start": curve[0]["val_kl"],
        "kl_halfway": curve[len(curve) // 2]["val_kl"],
        "kl_best": min(row["val_kl"] for row in curve),
        "warmup": report.get("warmup"),
        "warmup_last": (report["stages"].get("warm-up", {}).get("curves") or [None])[-1],
        "collapse": report.get("collapse"),
        **measured(config, pair, out, sizes, same.data),
        "reports": pair["reports"],
    }
    write_json(file, result)
    return result


@dataclass(frozen=True, slots=True)
class Shared:
    """What is the same in every arm, so that it is read and computed once."""

    data: Data
    memory: Remembered


_SHARED: dict[Path, Shared] = {}


def shared(config: DistillConfig, pair: dict[str, Any], work: Path, sizes: Sizes) -> Shared:
    if work not in _SHARED:
        data = read_data(config)
        teacher = load_model(str(pair["teacher"]), "float32", "teacher").eval()
        shapes = {sizes.student.layers, sizes.fresh.layers}
        kinds = {one["features"]["layers"] for arms in METHODS.values() for one in arms.values() if "features" in one}
        layers = {b for kind in kinds for ours in shapes for _, b in pairs(kind, ours, sizes.teacher.layers)}
        memory = remembered(
            teacher, [*data.rows, *data.validation_rows], work / "teacher-states.safetensors",
            layers=tuple(sorted(layers)), bf16=bf16(),
        )  # fmt: skip
        _SHARED[work] = Shared(data, memory)
    return _SHARED[work]


def _with_extra_steps(config: DistillConfig, out: Path, seed: int) -> Any:
    """As many steps more as the warm-up of this seed took in time, writing included, so that both cost the same."""
    warmed = json.loads(
        (out.parents[1] / folder_of(NEEDED["kd, extra steps"]) / f"seed-{seed}" / "result.json").read_text()
    )
    stage = warmed["stages"]["kd"]
    extra = math.ceil((warmed["seconds"] - stage["seconds"]) / (stage["seconds"] / stage["steps"]))
    return config.training.model_copy(update={"epochs": None, "steps": stage["steps"] + extra})


def measured(config: DistillConfig, pair: dict[str, Any], out: Path, sizes: Sizes, data: Data) -> dict[str, Any]:
    tokenizer = load_tokenizer(str(pair["student"]), "student")
    teacher = load_model(str(pair["teacher"]), "float32", "teacher").eval()
    student = load_model(str(out / "student"), "float32", "student").eval()
    held = rows_of(pair["files"]["test"], config, tokenizer, sizes.measured_rows)
    train = rows_of(pair["files"]["train"], config, tokenizer, sizes.measured_rows)
    checkpoint = latest(out / "kd" / "checkpoints")
    assert checkpoint is not None
    # What a method is not about is not measured on its arms; plain distillation is what all are compared with.
    plain = config.ranking is None and config.features is None and config.warmup is None
    found: dict[str, Any] = {
        "held": distances(student, teacher, held, config, len(tokenizer)),
        "test": translation_quality(out / "student", pair["files"]["test"], sizes.test_rows),
    }
    if config.ranking is not None or plain:
        found["train"] = distances(student, teacher, train, config, len(tokenizer))
    if config.features is not None or plain:
        found["hidden"] = _hidden(config.features, checkpoint / "lesson.safetensors", student, teacher, train, held)
    if config.warmup is not None or plain:
        found["start"] = _at_step_0(config, pair, out, teacher, sizes, data)
        found["end"] = _on_own_text(config, student, teacher, sizes, data)
    return found


def _hidden(
    features: FeaturesConfig | None, checkpoint: Path, student: Any, teacher: Any, train: list[Row], held: list[Row]
) -> dict[str, Any]:
    """Of the first and of the last pair of layers that the method has here by default, in every arm, at answers."""
    ours, theirs = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    wanted = pairs(str(FEATURES["layers"]), ours, theirs)
    asked = (features.layers or ((ours, theirs),)) if features is not None else ()
    own = [(a % (ours + 1), b % (theirs + 1)) for a, b in asked]
    told = {}
    for name, pair in (("paired", wanted[0]), ("last", wanted[-1])):
        learned = projection_of(checkpoint, own.index(pair)) if pair in own else None
        told[name] = hidden_likeness(student, teacher, pair, learned, train, held)
    return told


def _at_step_0(
    config: DistillConfig, pair: dict[str, Any], out: Path, teacher: Any, sizes: Sizes, data: Data
) -> dict[str, float] | None:
    """On the student's own text, when distillation begins: after warm-up where there was one."""
    from safetensors.torch import load_file

    student = load_model(str(pair["student"]), "float32", "student").eval()
    warmed = latest(out / "warm-up" / "checkpoints")
    if warmed is not None:
        weights = load_file(warmed / "lesson.safetensors")
        student.load_state_dict({name.removeprefix("student."): value for name, value in weights.items()}, strict=False)
    return _on_own_text(config, student, teacher, sizes, data)


def _on_own_text(
    config: DistillConfig, student: Any, teacher: Any, sizes: Sizes, data: Data
) -> dict[str, float] | None:
    asked = config.model_copy(update={"warmup": config.warmup or _default_warmup(sizes)})
    both = Pair(student, teacher, len(data.tokenizer), None, None)
    torch.manual_seed(0)
    found: dict[str, Any] | None = own_text(asked, data, both, data.validation_rows, texts=128)
    return found


def _default_warmup(sizes: Sizes) -> Any:
    from training.distill.config import WarmupConfig

    return WarmupConfig(prompts=sizes.warm_prompts, max_new_tokens=48)


def ends(
    data: Path, work: Path, sizes: Sizes, seeds: int, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Student alone (trained on plainly for as long as the others are distilled), and the teacher."""
    found: dict[str, list[dict[str, Any]]] = {"student alone": [], "teacher": []}
    for seed in range(seeds):
        say(f"summary: student alone, seed {seed}")
        pair = translation_pair(data, work, sizes, 0 if sizes.one_start else seed)
        alone, report = trained(
            f"alone-{seed}", sizes.student, pair["files"], pair["tokenizer"], work, epochs=sizes.distil_epochs,
            rows=sizes.rows, rate=sizes.student_rate / 2, seed=seed, start=pair["student"],
            validation_rows=sizes.validation_rows, context=sizes.context, muon=sizes.muon,
        )  # fmt: skip
        config = configuration({}, pair, work / "unused", sizes, seed)
        for name, directory, told in (
            ("student alone", alone, report),
            ("teacher", pair["teacher"], pair["reports"]["teacher"]),
        ):
            if name == "teacher" and seed:
                continue
            teacher = load_model(str(pair["teacher"]), "float32", "teacher").eval()
            student = load_model(str(directory), "float32", "student").eval()
            held = rows_of(pair["files"]["test"], config, pair["tokenizer"], sizes.measured_rows)
            found[name].append(
                {
                    **{key: told[key] for key in ("steps", "tokens", "seconds")},
                    "held": distances(student, teacher, held, config, len(pair["tokenizer"])),
                    "test": translation_quality(directory, pair["files"]["test"], sizes.test_rows),
                }
            )
    return found
