"""`tw distill advise`: measures a pair on a sample, before a GPU-day is spent.

Everything under `measured` is measured on the given data and this machine. `advice` follows from it by rules of thumb
(advice.py); they are no results, and each says what to check.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from training.distill.advice import advice, diffusion_advice
from training.distill.config import (
    DiffusionConfig,
    DistillConfig,
    FeaturesConfig,
    RankingConfig,
    WarmupConfig,
)
from training.distill.diffusion.model import MARK, marked
from training.distill.diffusion.sampler import sample
from training.distill.errors import CannotDistill
from training.distill.examples import Row
from training.distill.frame import Surroundings, seeded
from training.distill.kd import DistillationLesson, compared
from training.distill.losses.blocks import by_blocks
from training.distill.losses.features import directions, linear_cka
from training.distill.models import head_of, parameters, states
from training.distill.pair import Data, Pair, course, load_pair, read_data, steps_of, validation_batches
from training.distill.writing import corrected, written

ROWS = 128
OWN_TEXTS = 32
TIMED_STEPS = 4


def advise(config: DistillConfig, around: Surroundings, stage: Callable[[str], None]) -> dict[str, Any]:
    """Raises CannotDistill as a run would."""
    if config.teacher is None or config.teacher.path is None or config.teacher.cache is not None:
        raise CannotDistill(
            "teacher: advise needs the teacher in process: [teacher] path = ..., without top_k and cache"
        )
    stage("reading")
    data = read_data(config)
    stage("loading")
    device = around.accelerator.device
    pair = load_pair(config, data, device, lambda name, done, of: around.tick(done, of, name))
    sampled = _sample(data)
    diffusion = getattr(pair.student.config, MARK, None)
    measured: dict[str, Any] = {
        "rows": len(sampled),
        "student_parameters": parameters(pair.student),
        "teacher_parameters": parameters(pair.teacher),
    }
    if diffusion is not None:
        stage("steps")
        measured["steps"] = step_hunger(pair, data, diffusion, config)
        return {"measured": measured, "advice": [diffusion_advice(measured["steps"])]}
    stage("distances")
    measured["distance"] = distances(config, data, pair, sampled)
    stage("own text")
    measured["own_text"] = own_text(config, data, pair, sampled)
    stage("hidden states")
    measured["hidden"] = hidden_states(config, data, pair, sampled)
    stage("cost")
    measured["cost"] = costs(config, data, pair, around.accelerator.num_processes)
    measured["serving"] = serving(config, data, pair, sampled)
    return {"measured": measured, "advice": advice(measured)}


def _sample(data: Data) -> list[Row]:
    """Held-out rows first, then training rows: nothing has been learned from either yet."""
    return [*data.validation_rows, *data.rows][:ROWS]


def _batches(config: DistillConfig, data: Data, rows: list[Row]) -> list[Any]:
    return validation_batches(config, Data(data.tokenizer, rows, rows, data.counted, None))


def distances(config: DistillConfig, data: Data, pair: Pair, rows: list[Row]) -> dict[str, float]:
    """On the data's own text, per answer token; and how many words the teacher wavers between."""
    sums: dict[str, float] = {}
    count = 0
    device = next(pair.student.parameters()).device
    with torch.no_grad():
        for batch in _batches(config, data, rows):
            moved = batch.to(device)
            place, targets = moved.predicting(), moved.targets()
            s = states(pair.student, moved).last[:, :-1][place]
            t = states(pair.teacher, moved).last[:, :-1][place]

            def per_token(ours: Any, theirs: Any, at: slice, targets: Any = targets) -> dict[str, Any]:
                p = torch.softmax(theirs.float(), -1)
                return {
                    **compared(theirs, ours, targets[at]),
                    "undecided": (p.max(-1).values < 0.5).float(),
                    "several_modes": ((p > 0.2).sum(-1) > 1).float(),
                }

            found = by_blocks(
                s,
                head_of(pair.student, pair.vocabulary),
                t,
                head_of(pair.teacher, pair.vocabulary),
                per_token,
                config.training.tokens_at_once,
            )
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value.sum())
            count += len(targets)
    return {"tokens": count, **{name: value / max(1, count) for name, value in sums.items()}}


def own_text(
    config: DistillConfig, data: Data, pair: Pair, rows: list[Row], texts: int = OWN_TEXTS
) -> dict[str, Any] | None:
    """Reverse KL on text that the student wrote, and how much of it the teacher refuses. None without prompts."""
    warmup = config.warmup or WarmupConfig()
    prompted = [row for row in rows if row.answer_from > 1 and len(row.prompt) < config.data.context][:texts]
    if not prompted:
        return None
    device = next(pair.student.parameters()).device
    limits = [min(warmup.max_new_tokens, config.data.context - len(row.prompt)) for row in prompted]
    common = {"limits": limits, "eos": data.eos, "pad_id": data.pad_id, "vocabulary": pair.vocabulary}
    generator = seeded(config.seed, 0, 0, device)
    answers = written(
        pair.student, [row.prompt for row in prompted], temperature=1.0, generator=generator, **common  # type: ignore[arg-type]
    )  # fmt: skip
    checked = corrected(
        pair.student, pair.teacher, [row.prompt for row in prompted], warmup, generator=generator, **common  # type: ignore[arg-type]
    )  # fmt: skip
    own = [
        Row((*row.prompt, *answer), len(row.prompt), row.number)
        for row, answer in zip(prompted, answers, strict=True)
        if answer
    ]
    found = distances(config, data, pair, own)
    ranks = teacher_ranks(config, data, pair, own)
    judged = sum(text.judged for text in checked)
    return {
        "texts": len(own),
        "reverse_kl": found["reverse_kl"],
        "kl": found["kl"],
        "refused_share": sum(text.corrections for text in checked) / max(1, judged),
        "texts_corrected": sum(text.first is not None for text in checked) / len(checked),
        "top_k": warmup.top_k,
        # What other settings of warmup.top_k would refuse; the text stays the student's own, uncorrected.
        "refused_by_top_k": {str(k): float((ranks > k).float().mean()) for k in (1, 5, 10, 25, 50, 100)},
    }


def teacher_ranks(config: DistillConfig, data: Data, pair: Pair, rows: list[Row]) -> torch.Tensor:
    """(N,) the rank, from 1, that the teacher gives each answer token."""
    found = []
    device = next(pair.teacher.parameters()).device
    with torch.no_grad():
        for batch in _batches(config, data, rows):
            moved = batch.to(device)
            targets = moved.targets()
            t = states(pair.teacher, moved).last[:, :-1][moved.predicting()]

            def rank(theirs: Any, _none: Any, at: slice, targets: Any = targets) -> dict[str, Any]:
                own = theirs.gather(-1, targets[at][:, None])
                return {"rank": (theirs > own).sum(-1) + 1}

            head = head_of(pair.teacher, pair.vocabulary)
            found.append(by_blocks(t, head, None, None, rank, config.training.tokens_at_once)["rank"].cpu())
    return torch.cat(found)


def hidden_states(config: DistillConfig, data: Data, pair: Pair, rows: list[Row]) -> dict[str, Any]:
    """CKA between the directions of the student's layers and the teacher's, and the ratio of norms of the last ones."""
    ours = int(pair.student.config.get_text_config().num_hidden_layers)
    theirs = int(pair.teacher.config.get_text_config().num_hidden_layers)
    student_layers = tuple(range(1, ours + 1))
    # At most eight of the teacher's, spread evenly, the last among them.
    chosen = sorted({max(1, round(theirs * part / 8)) for part in range(1, 9)})
    device = next(pair.student.parameters()).device
    kept: dict[str, dict[int, list[torch.Tensor]]] = {"student": {}, "teacher": {}}
    with torch.no_grad():
        for batch in _batches(config, data, rows[:64]):
            moved = batch.to(device)
            place = moved.predicting()
            for role, model, layers in (
                ("student", pair.student, student_layers),
                ("teacher", pair.teacher, tuple(chosen)),
            ):
                for number, value in states(model, moved, layers).layers.items():
                    kept[role].setdefault(number, []).append(value[:, :-1][place].float().cpu())
    whole = {role: {n: torch.cat(parts)[:4096] for n, parts in of.items()} for role, of in kept.items()}
    table = {
        a: {b: float(linear_cka(directions(whole["student"][a]), directions(whole["teacher"][b]))) for b in chosen}
        for a in student_layers
    }
    last_s, last_t = whole["student"][ours], whole["teacher"][theirs]
    return {
        "cka_last": table[ours][theirs],
        "cka_last_with_lengths": float(linear_cka(last_s, last_t)),
        "norm_ratio_last": float(last_s.norm(dim=-1).mean() / last_t.norm(dim=-1).mean()),
        "nearest_teacher_layer": {str(a): max(row, key=lambda b: row[b]) for a, row in table.items()},
        "cka": {str(a): {str(b): value for b, value in row.items()} for a, row in table.items()},
    }


def costs(config: DistillConfig, data: Data, pair: Pair, world: int) -> dict[str, Any]:
    """Seconds per step of each method, timed on a few steps without changing a weight, and what a run comes to."""
    source = course(config, data)
    steps = steps_of(config, source, world)
    device = next(pair.student.parameters()).device
    base = config.model_copy(update={"ranking": None, "features": None, "warmup": None})
    arms = {
        "kd": base,
        "ranking": base.model_copy(update={"ranking": config.ranking or RankingConfig()}),
        "features": base.model_copy(update={"features": config.features or FeaturesConfig()}),
    }
    arms["ranking"] = arms["ranking"].model_copy(
        update={"training": config.training.model_copy(update={"vocabulary_at_once": None})}
    )
    lessons = {
        name: DistillationLesson(
            pair.student, arm, vocabulary=pair.vocabulary, pad_id=data.pad_id, eos=data.eos, teacher=pair.teacher
        ).to(device)
        for name, arm in arms.items()
    }
    features = lessons["features"].features
    if features is not None and (config.features or FeaturesConfig()).target == "class-mean":
        # Only the time counts here; any rows will do.
        width = int(pair.teacher.config.get_text_config().hidden_size)
        features.set_class_means(torch.ones(pair.vocabulary, width, device=device))
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    tokens = 0
    # In turns, so that what else the machine does, or the first steps' warming up, falls on all alike.
    for step in range(TIMED_STEPS):
        batch = source.batch(step, 0, 0, 1).to(device)
        tokens += int((batch.owners > 0).sum()) if step else 0
        for name, lesson in lessons.items():
            began = time.perf_counter()
            lesson(batch, step)["loss"].backward()
            _finish(device)
            seconds[name].append(time.perf_counter() - began)
            lesson.zero_grad(set_to_none=True)
    found: dict[str, Any] = {"steps": steps, "devices": world}
    for name, took in seconds.items():
        # The first one warms up.
        per_step = sum(took[1:]) / (TIMED_STEPS - 1) * config.training.accumulate
        found[name] = {
            "seconds_per_step": per_step,
            "hours": per_step * steps / 3600,
            "tokens_per_second": tokens / sum(took[1:]),
        }
    return found


def _finish(device: torch.device) -> None:
    """Devices work on while Python reads the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def serving(config: DistillConfig, data: Data, pair: Pair, rows: list[Row]) -> dict[str, Any]:
    """Tokens per second of both, writing eight texts at a time with a cache, and memory."""
    found: dict[str, Any] = {}
    device = next(pair.student.parameters()).device
    prompts = [row.tokens[: max(1, min(len(row.tokens), config.data.context - 16))] for row in rows[:8]]
    for role, model in (("student", pair.student), ("teacher", pair.teacher)):
        common: dict[str, Any] = {
            "eos": None, "pad_id": data.pad_id, "vocabulary": pair.vocabulary, "temperature": 0.0,
            "generator": seeded(0, 0, 0, device),
        }  # fmt: skip
        written(model, prompts, limits=[2] * len(prompts), **common)
        began = time.perf_counter()
        answers = written(model, prompts, limits=[16] * len(prompts), **common)
        _finish(device)
        rate = sum(map(len, answers)) / (time.perf_counter() - began)
        text = model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        size = next(model.parameters()).element_size()
        found[role] = {
            "tokens_per_second": rate,
            "seconds_per_million_tokens": 1e6 / rate,
            "weights_mb": parameters(model) * size / 1e6,
            "cache_kb_per_token": 2 * text.num_hidden_layers * heads * head_dim * size / 1e3,
        }
    found["time_saved"] = (
        1 - found["student"]["seconds_per_million_tokens"] / found["teacher"]["seconds_per_million_tokens"]
    )
    found["memory_saved"] = 1 - found["student"]["weights_mb"] / found["teacher"]["weights_mb"]
    return found


def step_hunger(pair: Pair, data: Data, told: dict[str, Any], config: DistillConfig) -> dict[str, Any]:
    """How much worse a masked diffusion student writes in fewer steps, by the teacher's likelihood and by entropy."""
    from training.distill.batches import collate

    denoiser = marked(pair.student, pair.vocabulary)
    diffusion = config.diffusion or DiffusionConfig()
    length, most = int(told["length"]), diffusion.from_steps
    device = next(pair.student.parameters()).device
    found: dict[str, Any] = {}
    for steps in sorted({max(1, most // 8), max(1, most // 2), most}):
        made = sample(
            denoiser, count=OWN_TEXTS, length=length, steps=steps, order=diffusion.order,
            generator=seeded(config.seed, 0, 0, device),
        )  # fmt: skip
        rows = [Row(tuple(tokens), 1, number) for number, tokens in enumerate(made.tokens.tolist())]
        batch = collate([(row,) for row in rows], data.pad_id).to(device)
        with torch.no_grad():
            t = states(pair.teacher, batch).last[:, :-1][batch.predicting()]
            log_p = torch.log_softmax(head_of(pair.teacher, pair.vocabulary).logits(t), -1)
        nll = -log_p.gather(-1, batch.targets()[:, None]).mean()
        found[str(steps)] = {"teacher_nll": float(nll), "entropy": made.entropy}
    return found
