"""Students that are compared: cross-entropy, distillation baselines, wheels, and wheels with a part left out. Each is
trained for the same steps from the same distilled student, and found again where it was made already.

Wheels spend the first of them on words alone, with a sentence before each prompt (`READING`): a student that meets
sentences for the first time when it learns to ask writes worse under some of them than under none.
"""

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.distill.material import bf16, trained, translation_pair
from benchmarks.distill.surroundings import surroundings
from benchmarks.wheels.sizes import WheelsSizes
from benchmarks.wheels.splices import spliced
from training.distill.config import DistillConfig
from training.distill.examples import read_rows
from training.distill.models import load_model
from training.distill.run import distil
from training.distill.wheels.prompts import room_for
from training.distill.wheels.restrictions import HELD_OUT, TRAINED
from training.distill.wheels.run import distil_wheels
from training.distill.writing import written

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
START, READING, WHEELS, CONSISTENCY = "start", "reading", "wheels", "path consistency without help"
LIKENESS = "likeness instead of regret"
HOT = "a temperature of 1"
PARTS: dict[str, dict[str, Any]] = {
    # What `wheels.sentence_steps` does in one run with the rest, made once for all that begin with it: words and the
    # level of the sentence, on the data's texts. Nothing is asked for yet, no row is settled.
    READING: {"consistency": 0.0, "critic": 0.0, "off_policy": 1.0, "teacher_text": 0.0, "settling": 0},
    CONSISTENCY: {"help": False, "decoding": "sampling", "distillation": 0.0},
}
# Chance must not decide which arm saw more: all have the steps and rows of `wheels`.
BASELINES: dict[str, dict[str, Any]] = {
    "word-level distillation": {},
    "on-policy distillation": {"on_policy": 0.5, "max_new_tokens": 40},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "no value function": {"value": False},
    "critic knows no more": {"informed": False},
    HOT: {"temperature": 1.0},
    "off-policy only": {"off_policy": 1.0},
    # Its words have no other text to be learned from.
    "on-policy only": {"off_policy": 0.0, "own_words": 1.0},
    "one multiplier": {"multipliers": "one"},
    LIKENESS: {"reward": "likeness"},
    "no consistency": {"consistency": 0.0},
}


# Those that need the teacher on other texts than the data's, or its log-probability of every word.
UNCACHED = ("on-policy distillation", CONSISTENCY)


def slug(arm: str) -> str:
    return arm.replace(" ", "-")


def configuration(arm: str, pair: dict[str, Any], out: Path, size: WheelsSizes, seed: int) -> DistillConfig:
    context = size.pair.context + room_for((*TRAINED, *HELD_OUT), pair["tokenizer"])
    asks = arm == WHEELS or arm in ABLATIONS
    rate, steps = size.pair.student_rate, size.reading + size.steps
    if arm == START:
        steps = size.start
    elif arm == READING:
        steps = size.reading
    elif asks:
        # Its words are there already, and a large step would cost some.
        rate, steps = rate / 2, size.steps
    raw: dict[str, Any] = {
        "out": str(out), "seed": seed,
        "student": {"path": str(pair["student"])},
        "teacher": {"path": str(pair["teacher"]), "top_k": 32, "cache": str(pair["cache"])},
        "data": {
            "train": [str(pair["files"]["train"])], "validation": [str(pair["files"]["val"])],
            "context": size.pair.context, "validation_rows": size.pair.validation_rows,
        },
        "training": {
            "steps": steps, "rows": size.pair.rows, "learning_rate": rate, "warmup": 0.05,
            # With sentences no two batches have one shape, and bfloat16 compiles each anew: it costs as much as it
            # saves.
            "bf16": bf16() and arm == START, "tokens_at_once": 4096,
            "evaluate_every": 500, "checkpoint_every": 250,
            "optimizer": "muon" if size.pair.muon else "adamw", "group_by_length": size.pair.muon,
        },
        # The wheels need logits that are log-probabilities; it is learned better in the first steps than in the last.
        "loss": {"normaliser": 1.0 if arm == START else 0.01, **BASELINES.get(arm, {})},
    }  # fmt: skip
    if arm in UNCACHED:
        raw["teacher"] = {"path": str(pair["teacher"])}
    if asks or arm in (READING, CONSISTENCY):
        # The row is settled on these; thresholds are found on the other half.
        raw["data"] |= {"context": context, "validation_rows": 64 if arm == READING else size.settled}
        raw["wheels"] = {
            "levels": SHARES, "prompts": [str(pair["prompts"])], "max_new_tokens": 48,
            "rounds": size.rounds, "trajectories": size.trajectories, "consistency": 1.0, "normaliser": 0.3,
            "reward": "regret",
            # Words are learned from the data's texts: on prompts spliced together the teacher writes less, and a
            # student that learns words there writes too little everywhere.
            "off_policy": 0.8, "teacher_text": 0.0, "own_words": 0.0,
            **PARTS.get(arm, {}), **ABLATIONS.get(arm, {}),
        }  # fmt: skip
    return DistillConfig.model_validate(raw)


def made(arm: str, pair: dict[str, Any], work: Path, size: WheelsSizes, seed: int) -> tuple[Path, dict[str, Any]]:
    """Directory of the finished student and what its training reported."""
    out = work / slug(arm) / f"seed-{seed}"
    if arm in ("cross-entropy", "sequence-level distillation"):
        files = pair["files"]
        if arm == "sequence-level distillation":
            files = {**files, "train": teachers_text(pair, work, size)}
        return trained(
            slug(arm), size.pair.student, files, pair["tokenizer"], out, steps=size.reading + size.steps,
            rows=size.pair.rows, rate=size.pair.student_rate / 2, seed=seed, start=pair["student"],
            validation_rows=size.pair.validation_rows, context=size.pair.context,
        )  # fmt: skip
    if arm == WHEELS or arm in ABLATIONS:
        pair = {**pair, "student": made(READING, pair, work, size, seed)[0]}
    report = out / "report.json"
    if not report.exists():
        config = configuration(arm, pair, out, size, seed)
        around = surroundings(f"{arm} {seed}")
        if config.wheels is not None:
            distil_wheels(config, around, lambda _name: None)
        else:
            distil(config, "kd", around, lambda _name: None)
    return out / "student", json.loads(report.read_text())


def teachers_text(pair: dict[str, Any], work: Path, size: WheelsSizes) -> Path:
    """The training prompts with the teacher's greedy answers (sequence-level distillation, Kim and Rush 2016)."""
    file = work / "teachers-text.jsonl"
    if file.exists():
        return file
    tokenizer, teacher = pair["tokenizer"], load_model(str(pair["teacher"]), "float32", "teacher").eval()
    config = configuration("word-level distillation", pair, work, size, 0)
    rows, _ = read_rows([pair["files"]["train"]], config.data, tokenizer)
    rows = rows[: (size.reading + size.steps) * size.pair.rows]
    rows = sorted(rows, key=lambda row: len(row.prompt))
    lines = []
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        answers = written(
            teacher, [row.prompt for row in some], limits=[48] * len(some), eos=1, pad_id=0,
            vocabulary=len(tokenizer), temperature=0.0, generator=torch.Generator(),
        )  # fmt: skip
        for row, answer in zip(some, answers, strict=True):
            told = {
                "prompt": tokenizer.decode(row.prompt),
                "answer": tokenizer.decode(answer, skip_special_tokens=True),
            }
            lines.append(json.dumps(told, ensure_ascii=False))
    beside = file.with_suffix(".part")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(file)
    return file


def pair_of(data: Path, pairs: Path, work: Path, size: WheelsSizes, seed: int) -> dict[str, Any]:
    """The pair of benchmarks/distill, or one on made-up text where `data` has no Multi30k; its student distilled word
    by word, which is where every arm begins: what is learned about asking must not pay for what is left to distil."""
    if (data / "text" / "multi30k.train.de.gz").exists():
        pair = translation_pair(data, pairs, size.pair, seed)
    else:
        from benchmarks.wheels.made_up import made_up

        pair = translation_pair(made_up(pairs / "made-up"), pairs / "made-up", size.pair, seed)
    files = pair["files"]
    pair["prompts"] = spliced(
        files["train"], size.rounds * size.trajectories, files["train"].with_name("spliced.jsonl")
    )
    # What the teacher says of the data's texts is the same for every arm and seed.
    pair["cache"] = work / "teacher-cache"
    pair["student"], _ = made(START, pair, work, size, seed)
    return pair
