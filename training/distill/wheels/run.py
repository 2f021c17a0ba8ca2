"""A whole run of `tw distill wheels`: pair, rounds, calibration, export, report."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.distill.cached import CachedTeacher, open_cache
from training.distill.config import DistillConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Row
from training.distill.frame import Surroundings, Trained, train
from training.distill.models import check_head, export, load_model, load_tokenizer, parameters, shared_vocabulary
from training.distill.pair import check_context
from training.distill.report import claim, curves_png, versions, write_json
from training.distill.teachers import LocalTeacher
from training.distill.wheels.asking import better, compared, share_of
from training.distill.wheels.collecting import Models, Rounds
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.lora import merged, with_lora
from training.distill.wheels.mixing import Mixed, by_help
from training.distill.wheels.prompts import Example, read_examples, read_prompts, room_for
from training.distill.wheels.reading import begin_reading, sentences_read
from training.distill.wheels.restrictions import Restriction
from training.distill.wheels.row import as_served, begin_row, decide_row, offset_of, settle_row
from training.distill.wheels.trajectories import WheelsBatch

CALIBRATED = 480
"""Held-out prompts: of a third of them, some 2,000 tokens, a share of a half is known to a point."""
BEGUN = 512


@dataclass(frozen=True, slots=True)
class Loaded:
    models: Models
    train: list[Example]
    held: list[Example]
    prompts: list[Example]
    """What texts are written for; the data's own where no others were given."""
    told: dict[str, Any]


def load(config: DistillConfig, device: torch.device) -> Loaded:
    """Raises CannotDistill where the two do not share a tokenizer or the data does not fit."""
    assert config.wheels is not None
    assert config.teacher is not None
    wheels = config.wheels
    if config.teacher.path is None:
        raise CannotDistill("teacher: wheels needs the teacher in process (path)")
    if config.teacher.cache is not None and (wheels.decoding == "sampling" or config.teacher.top_k != wheels.top_k):
        raise CannotDistill(
            "teacher.cache: wheels reads the data's texts from it with decoding greedy and teacher.top_k = wheels.top_k"
        )
    tokenizer = load_tokenizer(config.student.path, "student")
    theirs = load_tokenizer(config.teacher.path, "teacher")
    student = load_model(config.student.path, config.student.dtype, "student")
    teacher = load_model(config.teacher.path, config.teacher.dtype, "teacher").eval().requires_grad_(False)
    rows, teacher_rows = (int(m.get_output_embeddings().weight.shape[0]) for m in (student, teacher))
    check_head(student, "student")
    check_head(teacher, "teacher")
    for model, role in ((student, "student"), (teacher, "teacher")):
        check_context(model, config.data.context, role)
    try:
        vocabulary = shared_vocabulary(tokenizer, theirs, rows, teacher_rows)
    except CannotDistill as error:
        raise CannotDistill(
            f"student {config.student.path} and teacher {config.teacher.path} have different tokenizers: {error}"
        ) from None
    help_id = add_help(student, tokenizer, wheels.token, vocabulary) if wheels.help else None
    if help_id is not None:
        vocabulary = min(vocabulary, help_id)
    eos = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    models = Models(
        student.to(device), teacher.to(device), tokenizer, vocabulary, help_id, int(tokenizer.pad_token_id), eos
    )
    room = room_for((*wheels.phrasings, *wheels.held_out), tokenizer) if wheels.help else 0
    examples, counted = read_examples(config.data.train, config.data, tokenizer, room)
    if config.data.validation:
        held, _ = read_examples(config.data.validation, config.data, tokenizer, room)
        held = held[: config.data.validation_rows]
    else:
        count = min(config.data.validation_rows, len(examples) // 10)
        every = len(examples) // count if count else 0
        held = examples[::every][:count] if count else []
        away = {one.number for one in held}
        examples = [one for one in examples if one.number not in away]
    worst = max(max((*one.prompt, *one.answer)) for one in [*examples, *held])
    if worst >= vocabulary:
        raise CannotDistill(f"data: token {worst} is beyond the {vocabulary} words that both models share")
    if config.teacher.cache is not None:
        models = replace(models, cached=_cached(config, config.teacher.cache, models, examples))
    told = {"train": counted.as_dict() | {"used_rows": len(examples)}, "validation": {"rows": len(held)}}
    prompts = examples
    if wheels.prompts:
        longest = max(len(one.prompt) for one in examples)
        prompts, left_out = read_prompts(wheels.prompts, config.data, tokenizer, longest, len(examples))
        told["prompts"] = {"used": len(prompts), "left_out": left_out}
    return Loaded(models, examples, held, prompts, told)


def _cached(config: DistillConfig, folder: Path, models: Models, examples: Sequence[Example]) -> CachedTeacher:
    """What the teacher says of the data's texts, kept as `tw distill kd` keeps it: the same folder does for both."""
    assert config.teacher is not None
    assert config.wheels is not None
    rows = [Row((*one.prompt, *one.answer), len(one.prompt), one.number) for one in examples]
    training = config.training
    source = LocalTeacher(models.teacher, models.vocabulary, models.pad_id, training.rows, training.tokens_at_once)
    return open_cache(folder / "train", rows, config.wheels.top_k, source, lambda _done, _of: None)


def add_help(student: Any, tokenizer: Any, token: str, vocabulary: int) -> int:
    """`<help>`'s id, behind the words that the teacher knows. Added to the tokenizer and, where the student's matrix
    has no row for it, to the student."""
    if token not in tokenizer.get_vocab():
        tokenizer.add_tokens([token], special_tokens=True)
    found = int(tokenizer.convert_tokens_to_ids(token))
    if found < vocabulary:
        raise CannotDistill(f"wheels.token: {token!r} is a word of the teacher's (id {found}); choose one that is not")
    if found >= student.get_output_embeddings().weight.shape[0]:
        student.resize_token_embeddings(found + 1, mean_resizing=False)
        with torch.no_grad():
            weight = student.get_output_embeddings().weight
            weight[found] = weight[:vocabulary].mean(0)
    return found


def distil_wheels(config: DistillConfig, around: Surroundings, stage: Callable[[str], None]) -> dict[str, Any]:
    """Runs to the end and returns the report. Raises as `distil` does."""
    assert config.wheels is not None
    wheels = config.wheels
    if around.accelerator.num_processes > 1 or config.training.sharding != "none":
        raise CannotDistill("wheels writes its texts in one process: run it without torchrun and without sharding")
    stage("reading")
    torch.manual_seed(config.seed)
    loaded = load(config, around.accelerator.device)
    models = loaded.models
    config.out.mkdir(parents=True, exist_ok=True)
    claim(config.out, {"method": "wheels", **config.model_dump(mode="json")})
    if wheels.lora is not None:
        with_lora(models.student, wheels.lora)
    training = config.training
    steps = training.steps or max(1, round((training.epochs or 1.0) * len(loaded.train) / training.rows))
    stages: dict[str, Trained] = {}
    if wheels.sentence_steps:
        stage("sentences")
        stages["sentences"] = _sentences(config, loaded, around)
    work = config.out / "wheels"
    work.mkdir(parents=True, exist_ok=True)
    source = Rounds(config, models, loaded.train, work / "rounds", steps=steps, prompts=loaded.prompts)
    fresh = not (work / "checkpoints").exists()
    if models.help_id is not None and fresh:
        # As a threshold on the largest logit that asks about as often as the middle level.
        begin_row(models, config, loaded.train[:BEGUN], wheels.levels[len(wheels.levels) // 2])
    lesson = WheelsLesson(models.student, config, vocabulary=models.vocabulary, help_id=models.help_id, eos=models.eos)
    if fresh:
        begin_reading(models, config, lesson, loaded.train)
    stage("wheels")
    batches = _held(source, config, loaded)
    trained = stages["wheels"] = train(
        lesson, source, batches, training, steps=steps, seed=config.seed, work=work, around=around
    )
    # The newest multipliers, also where a resumed run collected nothing more.
    source.batch(steps - 1, 0, 0, 1)
    read = sentences_read(models, config, lesson, loaded.held)
    stage("shares")
    if wheels.judged and wheels.decided:
        own = sorted(source.own(), key=lambda one: one.length)
        at = range(0, len(own), training.rows)
        device = around.accelerator.device
        decide_row(models, lesson, [source.collated(own[i : i + training.rows]).to(device) for i in at])
    if models.help_id is not None and loaded.held:
        for _ in range(wheels.settling):
            settle_row(models, config, loaded.held[:CALIBRATED])
    realised: list[dict[str, Any]] = []
    offsets: dict[str, float] = {}
    asking: dict[str, Any] | None = None
    if models.help_id is not None and loaded.held:
        realised, offsets, asking = calibrated(config, loaded)
    told = {
        "token": wheels.token, "token_id": models.help_id, "segment": wheels.segment, "levels": list(wheels.levels),
        "phrasings": list(wheels.phrasings), "held_out": list(wheels.held_out), "separator": "\n",
        "offsets": offsets, "by": (asking and better(asking)) or "student",
    }  # fmt: skip
    weights = merged(models.student) if wheels.lora is not None else None
    export(models.student, weights, models.tokenizer, config.out / "student", config.student.export_dtype)
    if models.help_id is not None:
        write_json(config.out / "student" / "wheels.json", told)
    report = {
        "method": "wheels", "config": config.model_dump(mode="json"), "versions": versions(), "devices": 1,
        "device": str(around.accelerator.device), "data": loaded.told, "vocabulary": models.vocabulary,
        "student_parameters": parameters(models.student), "teacher_parameters": parameters(models.teacher),
        "stages": {name: _told(one) for name, one in stages.items()}, "validation": trained.final,
        "rounds": source.history, "restrictions": realised, "asking": asking,
        "sentences_read": read, "wheels": told,
    }  # fmt: skip
    curves_png({name: one.curves for name, one in stages.items()}, config.out / "curves.png")
    if source.history and models.help_id is not None:
        from training.distill.wheels.figures import rounds_png

        rounds_png(source.history, wheels.levels, config.out / "rounds.png")
    write_json(config.out / "report.json", report)
    return report


def _sentences(config: DistillConfig, loaded: Loaded, around: Surroundings) -> Trained:
    """Words with sentences before the prompts, and the level of the sentence, from the data's texts alone."""
    assert config.wheels is not None
    wheels, models = config.wheels, loaded.models
    alone = wheels.model_copy(update={"consistency": 0.0, "critic": 0.0, "off_policy": 1.0, "teacher_text": 0.0})
    rate = wheels.sentence_rate or config.training.learning_rate
    training = config.training.model_copy(update={"learning_rate": rate})
    config = config.model_copy(update={"wheels": alone, "training": training})
    work = config.out / "sentences"
    source = Rounds(config, models, loaded.train, work, steps=wheels.sentence_steps)
    lesson = WheelsLesson(models.student, config, vocabulary=models.vocabulary, help_id=models.help_id, eos=models.eos)
    if not (work / "checkpoints").exists():
        begin_reading(models, config, lesson, loaded.train)
    return train(
        lesson, source, _held(source, config, loaded), training, steps=wheels.sentence_steps, seed=config.seed,
        work=work, around=around,
    )  # fmt: skip


def _held(source: Rounds, config: DistillConfig, loaded: Loaded) -> list[WheelsBatch]:
    held, rows = source.read(loaded.held, random.Random(config.seed), held=True), config.training.rows
    return [source.collated(held[i : i + rows]) for i in range(0, len(held), rows)]


def _told(trained: Trained) -> dict[str, Any]:
    progress = trained.progress
    return {
        "steps": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 3),
        "curves": trained.curves,
    }  # fmt: skip


def calibrated(config: DistillConfig, loaded: Loaded) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, Any]]:
    """Requested and realised share on held-out prompts, per level and phrasing; for each level the offset on `<help>`'s
    logit at which the share is met, what pacing starts from: a quantile of its score, taken again on the texts that
    the first one gives; and whether asking by the sentence is worth it (`compared`)."""
    assert config.wheels is not None
    wheels, some = config.wheels, loaded.held[:CALIBRATED]
    rows, offsets = [], {}
    asked: list[tuple[float, list[Mixed]]] = []
    for level in wheels.levels:
        for phrasing in (wheels.phrasings[0], *wheels.held_out[:1]):
            restriction = Restriction(level, phrasing)
            _, texts = as_served(loaded.models, some, config, restriction)
            held = phrasing not in wheels.phrasings
            rows.append({"requested": level, "realised": share_of(texts), "phrasing": phrasing, "held_out": held})
            if held:
                continue
            offset = offset_of(texts, level, wheels.segment)
            asked.append((level, texts))
            _, again = as_served(loaded.models, some, config, restriction, by_help(offset))
            offsets[f"{level:g}"] = round(offset_of(again, level, wheels.segment), 3)
    return rows, offsets, compared(loaded.models, config, some, asked)
