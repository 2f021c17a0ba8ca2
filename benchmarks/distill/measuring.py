"""What is measured on a finished student: distances, order, translations, hidden states, the cost of serving."""

import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from training.distill.batches import collate
from training.distill.config import DistillConfig
from training.distill.examples import Row, read_rows
from training.distill.kd import DistillationLesson
from training.distill.losses.features import centred_cosine, directions, linear_cka
from training.distill.models import load_model, load_tokenizer, states
from training.distill.writing import written


def rows_of(file: Path, config: DistillConfig, tokenizer: Any, limit: int) -> list[Row]:
    """The first `limit` that fit the context."""
    # Reading all would cost seconds of every arm for a few hundred rows.
    with file.open(encoding="utf-8") as lines:
        some = [json.loads(line) for line in islice(lines, limit + limit // 8)]
    with TemporaryDirectory() as folder:
        head = Path(folder) / "head.jsonl"
        head.write_text("".join(json.dumps(row) + "\n" for row in some))
        return read_rows([head], config.data, tokenizer)[0][:limit]


def distances(
    student: Any, teacher: Any, rows: Sequence[Row], config: DistillConfig, vocabulary: int
) -> dict[str, float]:
    """Everything that validation reports, per token, over `rows`."""
    plain = config.model_copy(update={"features": None, "ranking": None, "warmup": None})
    lesson = DistillationLesson(student, plain, vocabulary=vocabulary, pad_id=0, eos=1, teacher=teacher).eval()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            batch = collate([(row,) for row in rows[start : start + 64]], 0)
            for name, value in lesson(batch, 0, measure=True).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    weight = sums.pop("weight")
    return {name: value / weight for name, value in sums.items()}


def translations(model: Any, rows: Sequence[Row], tokenizer: Any, vocabulary: int) -> tuple[list[str], float]:
    """Greedy translations and tokens per second of the processor."""
    found: list[str] = []
    tokens = 0
    began = time.process_time()
    for start in range(0, len(rows), 50):
        some = rows[start : start + 50]
        answers = written(
            model, [row.prompt for row in some], limits=[60] * len(some), eos=1, pad_id=0, vocabulary=vocabulary,
            temperature=0.0, generator=torch.Generator(),
        )  # fmt: skip
        found += [tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]
        tokens += sum(map(len, answers))
    return found, tokens / (time.process_time() - began)


def bleu_and_chrf(found: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """None of both where sacrebleu is not installed (the extra `bench`)."""
    try:
        import sacrebleu  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return {"bleu": None, "chrf": None}
    return {
        "bleu": sacrebleu.corpus_bleu(list(found), [list(references)]).score,
        "chrf": sacrebleu.corpus_chrf(list(found), [list(references)]).score,
    }


def translation_quality(directory: Path, test: Path, limit: int) -> dict[str, Any]:
    model, tokenizer = (
        load_model(str(directory), "float32", "student").eval(),
        load_tokenizer(str(directory), "student"),
    )
    records = [json.loads(line) for line in test.read_text().splitlines()][:limit]
    prompts = [tokenizer(record["prompt"])["input_ids"] for record in records]
    rows = [Row(tuple(prompt), len(prompt), number) for number, prompt in enumerate(prompts)]
    found, rate = translations(model, rows, tokenizer, len(tokenizer))
    return {
        **bleu_and_chrf(found, [record["answer"].strip() for record in records]),
        "tokens_per_second": rate,
        "weights_mb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
    }


def hidden_likeness(
    student: Any,
    teacher: Any,
    layers: tuple[int, int],
    learned: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    train: Sequence[Row],
    held: Sequence[Row],
) -> dict[str, float]:
    """How alike the states of two layers are on held-out text, where answer tokens are predicted: with the projection
    that was `learned` (matrix, constant, the teacher's mean), where one was; with the best affine one fitted on
    training rows, which every arm can have; and what no student of this width can exceed, the teacher's own states
    through as many principal directions."""

    def of(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        kept: dict[str, list[torch.Tensor]] = {"s": [], "t": []}
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                batch = collate([(row,) for row in rows[start : start + 64]], 0)
                place = torch.nn.functional.pad(batch.predicting(), (0, 1))
                for key, model, number in (("s", student, layers[0]), ("t", teacher, layers[1])):
                    kept[key].append(states(model, batch, (number,)).layers[number][place].float())
        return torch.cat(kept["s"]), torch.cat(kept["t"])

    s_train, t_train = of(train)
    s, t = of(held)
    s_mean, t_mean = s_train.mean(0), t_train.mean(0)
    fitted = torch.linalg.lstsq(s_train - s_mean, t_train - t_mean).solution
    principal = torch.linalg.svd(t_train - t_mean, full_matrices=False).Vh[: s.shape[1]]
    found = {
        "raw_norm_ratio": float(s.norm(dim=-1).mean() / t.norm(dim=-1).mean()),
        "cka": float(linear_cka(directions(s), directions(t))),
        "cka_with_lengths": float(linear_cka(s, t)),
        "fitted_centred_cosine": float(centred_cosine(s @ fitted, t)),
        "width_ceiling": float(centred_cosine((t - t_mean) @ principal.T @ principal, t)),
        "shared_direction": float(t_mean.square().sum() / t_train.square().sum(-1).mean()),
    }
    if learned is not None:
        matrix, constant, mean = learned
        projected, aim = s @ matrix + constant, t - mean
        found |= {
            "centred_cosine": float(centred_cosine(projected, t)),
            "cosine": float(torch.nn.functional.cosine_similarity(projected, aim, dim=-1).mean()),
            "norm_ratio": float(projected.norm(dim=-1).mean() / aim.norm(dim=-1).mean()),
        }
    return found


def projection_of(checkpoint: Path, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Matrix, constant and the teacher's mean of one pair of layers; None where none was learned."""
    saved = load_file(checkpoint)
    matrix = saved.get(f"features.projections.{index}.weight")
    if matrix is None:
        return None
    mean = saved["features.centres"][index]
    return matrix, saved.get(f"features.projections.{index}.bias", torch.zeros_like(mean)), mean


def steps_to(curve: Sequence[dict[str, float]], goal: float) -> float | None:
    """Where validation KL first came down to `goal`, on the straight line between two validations; None where it never
    did."""
    before: dict[str, float] | None = None
    for row in curve:
        if "val_kl" not in row:
            continue
        if row["val_kl"] <= goal:
            if before is None:
                return float(row["step"])
            part = (before["val_kl"] - goal) / (before["val_kl"] - row["val_kl"])
            return before["step"] + part * (row["step"] - before["step"])
        before = row
    return None
