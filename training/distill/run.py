"""A whole run of kd, ranking, features or warmup: data, pair, stages, export, report."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from training.distill.collapse import alarms, distinct_n, mean_length
from training.distill.config import DistillConfig
from training.distill.examples import Row
from training.distill.features import FeatureTerm, Moments
from training.distill.frame import Surroundings, Trained, seeded, train
from training.distill.kd import DistillationLesson
from training.distill.models import export, load_tokenizer, parameters, shared_vocabulary, states
from training.distill.pair import Data, Pair, course, load_pair, read_data, steps_of, validation_batches
from training.distill.report import claim, curves_png, versions, write_json
from training.distill.warmup import PreferenceSource, WarmupLesson, corrections, described
from training.distill.writing import written

SAMPLED = 32


def distil(config: DistillConfig, method: str, around: Surroundings, stage: Callable[[str], None]) -> dict[str, Any]:
    """Runs to the end and returns the report, which also lies in `out` with the curves and the student.

    Raises CannotDistill for what the user can put right, DistillationFailed for what the machine did, Stopped.
    """
    stage("reading")
    data = read_data(config)
    if around.main:
        config.out.mkdir(parents=True, exist_ok=True)
        claim(config.out, {"method": method, **config.model_dump(mode="json")})
    stage("loading")
    torch.manual_seed(config.seed)
    device = around.accelerator.device
    pair = load_pair(config, data, device, lambda name, done, of: around.tick(done, of, name), main=around.main)
    stages: dict[str, Trained] = {}
    report: dict[str, Any] = {
        "method": method,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "device": str(device),
        "devices": around.accelerator.num_processes,
        "data": data.as_dict(),
        **pair.as_dict(),
    }
    if config.warmup is not None:
        stage("warm-up")
        warmed = warm_up(config, data, pair, around)
        stages["warm-up"], report["warmup"] = warmed
        pair.student.load_state_dict(_student_weights(stages["warm-up"].weights, pair.student))
    stage(method if config.warmup is None else "kd")
    stages["kd"] = distillation(config, data, pair, around)
    weights = _student_weights(stages["kd"].weights, pair.student) if around.main else {}
    report["stages"] = {name: _told(of) for name, of in stages.items()}
    report["validation"] = stages["kd"].final
    if around.main:
        if config.training.sharding == "none":
            report["collapse"] = look_for_collapse(config, data, pair, stages["kd"].final)
        export(pair.student, weights, data.tokenizer, config.out / "student", config.student.export_dtype)
        curves_png({name: of.curves for name, of in stages.items()}, config.out / "curves.png")
        write_json(config.out / "report.json", report)
    around.accelerator.wait_for_everyone()
    return report


def _told(trained: Trained) -> dict[str, Any]:
    progress = trained.progress
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "curves": trained.curves,
    }


def _student_weights(weights: dict[str, torch.Tensor], student: Any) -> dict[str, torch.Tensor]:
    """The student's own, without what learned beside it (projections)."""
    prefix = "student."
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    # Tied weights are given by one name only in some versions of torch's gathering.
    whole = student.state_dict()
    for name in whole:
        if name not in found:
            twin = next((n for n, v in whole.items() if n in found and v.data_ptr() == whole[name].data_ptr()), None)
            if twin is not None:
                found[name] = found[twin]
    return found


def distillation(config: DistillConfig, data: Data, pair: Pair, around: Surroundings) -> Trained:
    lesson = DistillationLesson(
        pair.student,
        config,
        vocabulary=pair.vocabulary,
        pad_id=data.pad_id,
        eos=data.eos,
        teacher=pair.teacher,
        cached=pair.cached,
        cached_validation=pair.cached_validation,
    )
    source = course(config, data)
    if lesson.features is not None and config.features is not None and config.features.target == "class-mean":
        lesson.features.set_class_means(class_means(pair, lesson.features, data, config))
    if lesson.features is not None and config.features is not None:
        lesson.features.fit(moments(pair, lesson.features, data, config))
    return train(
        lesson,
        source,
        validation_batches(config, data),
        config.training,
        steps=steps_of(config, source, around.accelerator.num_processes),
        seed=config.seed,
        work=config.out / "kd",
        around=around,
    )


def class_means(pair: Pair, term: FeatureTerm, data: Data, config: DistillConfig, rows: int = 2048) -> torch.Tensor:
    """(V, width) mean teacher state per next token over at most `rows` training rows; where a token was never seen, the
    mean over all."""
    some = replace(data, rows=data.rows[:rows], validation_rows=data.rows[:rows])
    layer = term.teacher_layers[-1]
    width = int(pair.teacher.config.get_text_config().hidden_size)
    device = next(pair.teacher.parameters()).device
    sums, counts = torch.zeros(pair.vocabulary, width, device=device), torch.zeros(pair.vocabulary, device=device)
    with torch.no_grad():
        for batch in validation_batches(config, some):
            moved = batch.to(device)
            found = states(pair.teacher, moved, (layer,)).layers[layer][:, :-1][moved.predicting()].float()
            sums.index_add_(0, moved.targets(), found)
            counts.index_add_(0, moved.targets(), torch.ones(len(found), device=device))
    overall = sums.sum(0) / counts.sum().clamp_min(1)
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], overall)


def moments(pair: Pair, term: FeatureTerm, data: Data, config: DistillConfig) -> list[Moments]:
    """Of both models' states over training rows, one per pair of layers: 4,096 tokens or eight per number of the
    student's state, whichever is more, where there are so many. A resumed run makes them anew, and its checkpoint
    overrides what follows from them."""
    width = int(pair.student.config.get_text_config().hidden_size)
    wide = int(pair.teacher.config.get_text_config().hidden_size)
    found = [Moments(width, wide) for _ in term.pairs]
    device = next(pair.student.parameters()).device
    was = pair.student.training
    pair.student.eval()
    with torch.no_grad():
        for start in range(0, len(data.rows), 8 * config.training.rows):
            some = replace(data, validation_rows=data.rows[start : start + 8 * config.training.rows])
            for batch in validation_batches(config, some):
                moved = batch.to(device)
                place = term.places(moved)
                ours = states(pair.student, moved, term.student_layers).layers
                theirs = states(pair.teacher, moved, term.teacher_layers).layers
                for (a, b), one in zip(term.pairs, found, strict=True):
                    one.add(ours[a][place], theirs[b][place])
            if found[0].count >= max(4096, 8 * width):
                break
    pair.student.train(was)
    return found


def warm_up(config: DistillConfig, data: Data, pair: Pair, around: Surroundings) -> tuple[Trained, dict[str, Any]]:
    assert config.warmup is not None
    warmup, training = config.warmup, config.training
    work = config.out / "warm-up"
    device = around.accelerator.device
    if around.accelerator.num_processes > 1:
        from training.distill.errors import CannotDistill

        raise CannotDistill("warm-up writes its texts in one process; run it with one, then tw distill kd with several")
    began = around.clock()
    found = corrections(
        pair.student,
        pair.teacher,
        data.rows,
        warmup,
        context=config.data.context,
        eos=data.eos,
        pad_id=data.pad_id,
        vocabulary=pair.vocabulary,
        batch=4 * training.rows,
        seed=config.seed,
        file=work / "corrections.jsonl",
        tick=lambda done, of: around.tick(done, of, "corrected texts"),
        stop=around.stop,
    )
    seconds = around.clock() - began
    rows = warmup.rows or max(1, training.rows // 2)
    source = PreferenceSource(found, rows=rows, accumulate=training.accumulate, seed=config.seed, pad_id=data.pad_id)
    lesson = WarmupLesson(pair.student, warmup, pair.vocabulary, training.tokens_at_once)
    # Of the student as it was loaded: a resumed run loads it anew before its checkpoint is put in.
    lesson.remember(source.all(), device)
    settings = training.model_copy(update={"learning_rate": warmup.learning_rate or training.learning_rate})
    trained = train(
        lesson, source, [], settings, steps=source.steps(warmup.epochs, 1), seed=config.seed, work=work, around=around
    )
    return trained, {**described(found), "writing_seconds": round(seconds, 3)}


def look_for_collapse(config: DistillConfig, data: Data, pair: Pair, final: dict[str, float]) -> dict[str, Any]:
    """A few answers of the student to held-out prompts beside the data's own."""
    rows: list[Row] = [row for row in data.validation_rows if row.answer_from > 1][:SAMPLED]
    if not rows:
        return {"sampled": 0, "alarms": []}
    device = next(pair.student.parameters()).device
    limit = max(len(row.answer) for row in rows) * 2
    answers = written(
        pair.student,
        [row.prompt for row in rows],
        limits=[min(limit, config.data.context - len(row.prompt)) for row in rows],
        eos=data.eos,
        pad_id=data.pad_id,
        vocabulary=pair.vocabulary,
        temperature=1.0,
        generator=seeded(config.seed, 0, 0, device),
    )
    references = [row.answer for row in rows]
    return {
        "sampled": len(rows),
        "distinct_2": distinct_n(answers, 2),
        "reference_distinct_2": distinct_n(references, 2),
        "tokens": mean_length(answers),
        "reference_tokens": mean_length(references),
        "alarms": alarms(answers, references, final.get("val_entropy"), final.get("val_teacher_entropy")),
    }


def describe(config: DistillConfig, method: str, world: int = 1) -> dict[str, Any]:
    """What a run would do, without loading weights: data, sizes, steps. Raises CannotDistill as the run would."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from training.distill.errors import CannotDistill

    length = config.diffusion.length if method == "through-time" and config.diffusion is not None else None
    data = read_data(config, length=length)
    sizes: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for role, name in (("student", config.student.path), ("teacher", config.teacher.path if config.teacher else None)):
        if name is None:
            continue
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))  # type: ignore[no-untyped-call]
        except (OSError, ValueError, KeyError) as error:
            raise CannotDistill(
                f"{role}.path: {name!r} cannot be read ({' '.join(str(error).split())[:200]})"
            ) from None
        sizes[f"{role}_parameters"] = parameters(model)
        shapes[role] = int(model.get_output_embeddings().weight.shape[0])
    if config.teacher is not None and config.teacher.path is not None:
        theirs = load_tokenizer(config.teacher.path, "teacher")
        sizes["vocabulary"] = shared_vocabulary(data.tokenizer, theirs, shapes["student"], shapes["teacher"])
    source = course(config, data)
    steps = steps_of(config, source, world)
    rows_per_step = config.training.rows * config.training.accumulate * world
    mean = sum(len(row.tokens) for pack in source.packs for row in pack) / len(source.packs)
    return {
        "method": method,
        "out": str(config.out),
        **sizes,
        "data": data.as_dict(),
        "rows_per_step": rows_per_step,
        "steps": steps,
        "tokens": round(steps * rows_per_step * mean),
    }
