"""Self-distillation through time on tinyshakespeare (characters) and on generated sums, with its controls.

One base model per data set; rounds 128 -> 64 -> 32 -> 16 for every seed. Controls, without which a lower likelihood
proves nothing: the base at a temperature that gives the student's entropy; the base trained on for as many steps as all
rounds; one direct round with m = 8 for as many steps as all rounds together.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.distill.material import bf16, save_fresh, shakespeare, sums, trained
from benchmarks.distill.sizes import Sizes
from benchmarks.distill.surroundings import surroundings
from training.distill.batches import collate
from training.distill.collapse import distinct_n
from training.distill.config import DistillConfig
from training.distill.diffusion.model import MARK, Denoiser
from training.distill.diffusion.sampler import sample
from training.distill.examples import Row
from training.distill.models import head_of, load_model, states
from training.distill.report import write_json
from training.distill.through_time import distil_through_time
from training.distill.writing import written

FROM, ROUNDS, M = 128, 3, 2
COLUMNS = {
    "judge's NLL": ("judge_nll", 3), "valid words": ("valid_words", 3), "valid sums": ("valid_sums", 3),
    "entropy": ("entropy", 3), "unigram entropy": ("unigram_entropy", 3), "self-BLEU": ("self_bleu", 3),
    "tokens/s": ("tokens_per_second", 0), "training s": ("seconds", 0),
}  # fmt: skip


def run(data: Path, work: Path, sizes: Sizes, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("shakespeare", "sums"):
        for arm, results in of_data(name, data, work / name, sizes, seeds, say).items():
            found[f"{name}: {arm}"] = results
    return found


def of_data(
    name: str, data: Path, work: Path, sizes: Sizes, seeds: int, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    if name == "shakespeare":
        files, tokenizer, words = shakespeare(data, work, sizes)
    else:
        (files, tokenizer), words = sums(work, sizes), set()
    say(f"{name}: judge")
    judge_path, judge_report = trained(
        "judge", sizes.judge, files, tokenizer, work, steps=sizes.judge_steps, rows=sizes.diffusion_rows, rate=2e-3,
        seed=100,
    )  # fmt: skip
    judge = load_model(str(judge_path), "float32", "judge").eval()
    few = FROM // M**ROUNDS
    look = Look(name, judge, tokenizer, words, sizes)

    say(f"{name}: base")
    base_path, base_seconds = base(files, tokenizer, work, sizes)
    base_model = denoiser(base_path)
    found: dict[str, list[dict[str, Any]]] = {}

    def add(arm: str, result: dict[str, Any]) -> None:
        found.setdefault(arm, []).append(result)

    for steps in sorted({FROM, 64, 32, few}, reverse=True):
        result = once(work / f"base-{steps}.json", lambda steps=steps: look(base_model, steps, 0))  # type: ignore[misc]
        add(f"base, {steps} steps", {**result, "seconds": base_seconds})
    for seed in range(seeds):
        say(f"{name}: rounds, seed {seed}")
        student, seconds = rounds(base_path, files, work / f"rounds-{seed}", sizes, seed, M, ROUNDS, sizes.round_steps)
        told = once(work / f"rounds-{seed}.json", lambda s=student, n=seed: look(denoiser(s), few, n))  # type: ignore[misc]
        add(f"rounds, {few} steps", {**told, "seconds": seconds})
        cooled = once(
            work / f"cooled-{seed}.json",
            lambda t=told, n=seed: look.at_entropy(base_model, few, n, t["entropy"]),  # type: ignore[misc]
        )
        add(f"base at the student's entropy, {few} steps", {**cooled, "seconds": base_seconds})
    say(f"{name}: base trained on")
    longer, seconds = rounds(base_path, files, work / "longer", sizes, 0, 1, 0, ROUNDS * sizes.round_steps)
    add(
        f"base trained on, {few} steps",
        {**once(work / "longer.json", lambda: look(denoiser(longer), few, 0)), "seconds": seconds},
    )
    say(f"{name}: direct, m = {M**ROUNDS}")
    direct, seconds = rounds(base_path, files, work / "direct", sizes, 0, M**ROUNDS, 1, ROUNDS * sizes.round_steps)
    add(
        f"direct m = {M**ROUNDS}, {few} steps",
        {**once(work / "direct.json", lambda: look(denoiser(direct), few, 0)), "seconds": seconds},
    )
    add(
        "autoregressive with cache",
        {**once(work / "judge.json", lambda: look.autoregressive(judge)), "seconds": judge_report["seconds"]},
    )
    return found


def once(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not file.exists():
        write_json(file, measure())
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def denoiser(path: Path) -> Denoiser:
    model = load_model(str(path), "float32", "student").eval()
    return Denoiser(model, int(getattr(model.config, MARK)["mask_token_id"]), model.config.vocab_size)


def base(files: dict[str, Path], tokenizer: Any, work: Path, sizes: Sizes) -> tuple[Path, float]:
    fresh = save_fresh(sizes.denoiser, tokenizer, work / "fresh", 0)
    config = configuration(
        fresh, files, work / "base", sizes, 0, {"base_steps": sizes.base_steps, "rounds": 1, "steps_per_round": 1}
    )
    report = ran(config)
    return work / "base" / "base-model", float(report["stages"]["base"]["seconds"])


def rounds(
    start: Path, files: dict[str, Path], out: Path, sizes: Sizes, seed: int, substeps: int, count: int, steps: int
) -> tuple[Path, float]:
    """`count` rounds of m = `substeps`; 0 rounds: base training goes on for `steps` instead."""
    if count == 0:
        config = configuration(start, files, out, sizes, seed, {"base_steps": steps, "rounds": 1, "steps_per_round": 1})
        report = ran(config)
        return out / "base-model", float(report["stages"]["base"]["seconds"])
    diffusion = {"rounds": count, "substeps": substeps, "steps_per_round": steps}
    report = ran(configuration(start, files, out, sizes, seed, diffusion))
    return out / "student", sum(stage["seconds"] for stage in report["stages"].values())


def ran(config: DistillConfig) -> dict[str, Any]:
    file = config.out / "report.json"
    if not file.exists():
        distil_through_time(config, surroundings(config.out.name), lambda _name: None)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def configuration(
    student: Path, files: dict[str, Path], out: Path, sizes: Sizes, seed: int, diffusion: dict[str, Any]
) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "out": str(out), "seed": seed, "student": {"path": str(student)},
            "data": {"train": [str(files["train"])], "validation": [str(files["val"])], "validation_rows": 128},
            "training": {
                "rows": sizes.diffusion_rows, "learning_rate": 3e-4, "warmup": 0.1, "bf16": bf16(),
                "evaluate_every": max(1, sizes.round_steps // 2), "schedule": "linear",
            },
            "diffusion": {"length": sizes.length, "from_steps": FROM, "base_learning_rate": 2e-3, **diffusion},
        }
    )  # fmt: skip


class Look:
    """What is measured on sampled texts."""

    def __init__(self, name: str, judge: Any, tokenizer: Any, words: set[str], sizes: Sizes) -> None:
        self._name, self._judge, self._tokenizer, self._words, self._sizes = name, judge, tokenizer, words, sizes

    def __call__(self, model: Denoiser, steps: int, seed: int, temperature: float = 1.0) -> dict[str, Any]:
        sizes = self._sizes
        rows: list[list[int]] = []
        entropies = []
        began = time.perf_counter()
        for start in range(0, sizes.sampled, 64):
            generator = torch.Generator().manual_seed(seed * 1_000 + start)
            made = sample(
                model, count=min(64, sizes.sampled - start), length=sizes.length, steps=steps, generator=generator,
                temperature=temperature,
            )  # fmt: skip
            rows += made.tokens.tolist()
            entropies.append(made.entropy)
        rate = sizes.sampled * sizes.length / (time.perf_counter() - began)
        return {
            **self._of(rows),
            "entropy": sum(entropies) / len(entropies),
            "tokens_per_second": rate,
            "temperature": temperature,
        }

    def at_entropy(self, model: Denoiser, steps: int, seed: int, wanted: float) -> dict[str, Any]:
        """The temperature that gives the wanted mean entropy of what tokens are drawn from, by bisection; cooled
        logits are what a cooled model would be."""
        low, high = 0.2, 1.0
        for _ in range(6):
            middle = (low + high) / 2
            cooled = Denoiser(_Cooled(model.model, middle), model.mask_id, model.vocabulary)
            if self(cooled, steps, seed)["entropy"] > wanted:
                high = middle
            else:
                low = middle
        found = self(Denoiser(_Cooled(model.model, high), model.mask_id, model.vocabulary), steps, seed)
        return {**found, "temperature": high}

    def autoregressive(self, model: LlamaForCausalLM) -> dict[str, Any]:
        sizes = self._sizes
        first = [[self._tokenizer.convert_tokens_to_ids("\n" if self._name == "shakespeare" else "1")]] * min(
            64, sizes.sampled
        )
        began = time.perf_counter()
        answers = written(
            model, first, limits=[sizes.length - 1] * len(first), eos=None, pad_id=0,
            vocabulary=len(self._tokenizer), temperature=1.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        rate = sum(map(len, answers)) / (time.perf_counter() - began)
        return {**self._of([[*a, *b] for a, b in zip(first, answers, strict=True)]), "tokens_per_second": rate}

    def _of(self, rows: list[list[int]]) -> dict[str, Any]:
        texts = ["".join(self._tokenizer.convert_ids_to_tokens(row)) for row in rows]
        counts = Counter(token for row in rows for token in row)
        shares = torch.tensor([count / sum(counts.values()) for count in counts.values()])
        return {
            "judge_nll": self._nll(rows),
            "valid_words": valid_words(texts, self._words) if self._words else None,
            "valid_sums": valid_sums(texts) if self._name == "sums" else None,
            "unigram_entropy": float(-(shares * shares.log()).sum()),
            "self_bleu": self_bleu(texts),
            "distinct_4": distinct_n(rows, 4),
            "example": texts[0],
        }

    def _nll(self, rows: list[list[int]]) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                some = [Row(tuple(row), 1, n) for n, row in enumerate(rows[start : start + 64])]
                batch = collate([(row,) for row in some], 0)
                last = states(self._judge, batch).last[:, :-1][batch.predicting()]
                log_p = torch.log_softmax(head_of(self._judge).logits(last), -1)
                total -= float(log_p.gather(-1, batch.targets()[:, None]).sum())
                count += len(batch.targets())
        return total / count


class _Cooled(torch.nn.Module):
    """A model whose logits are divided by a temperature, as `log_x` reads them."""

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__()
        import copy

        self.config = copy.copy(model.config)
        # head_of reads it and divides logits by it.
        self.config.logits_scaling = temperature
        self.base_model, self._head = model.base_model, model.get_output_embeddings()

    def get_output_embeddings(self) -> Any:
        return self._head


def valid_words(texts: Sequence[str], words: set[str]) -> float:
    """Share of whole words (those not cut off at either end) that occur in the training text."""
    found = [
        w for text in texts for w in "".join(c.lower() if c.isalpha() or c == "'" else " " for c in text).split()[1:-1]
    ]
    return sum(word in words for word in found) / max(1, len(found))


def valid_sums(texts: Sequence[str]) -> float:
    """Share of whole lines that are right sums."""
    lines = [line for text in texts for line in text.split("\n")[1:-1]]
    return sum(_right(line) for line in lines) / max(1, len(lines))


def _right(line: str) -> bool:
    left, equals, right = line.partition("=")
    a, plus, b = left.partition("+")
    parts = (a, b, right)
    return bool(
        equals and plus and all(p.isdigit() for p in parts) and len(right) == 3 and int(a) + int(b) == int(right)
    )


def self_bleu(texts: Sequence[str], order: int = 4) -> float:
    """Mean share of a text's character n-grams that occur in another one: 1 where all say the same."""
    grams = [{text[i : i + order] for i in range(len(text) - order + 1)} for text in texts[:64]]
    owners = Counter(gram for of in grams for gram in of)
    return sum(sum(owners[g] > 1 for g in of) / max(1, len(of)) for of in grams) / len(grams)
