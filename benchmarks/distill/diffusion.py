"""Self-distillation through time on tinyshakespeare (characters) and on generated sums, with its controls.

One base model per data set; three rounds (128 -> 64 -> 32 -> 16 steps) for every seed. Controls, without which a lower
likelihood proves nothing: the base at a temperature that gives the student's entropy; the base trained on for as many
seconds as all rounds took; one direct round with m = 8 for as many seconds. All of that with ancestral steps, and again
with dilated ones, as students are made and served by default: rounds, the base, the base at the student's entropy, and
trained on. `closed`: which share of the gap between few and many ancestral steps of the base a sampler closes.
`exact`: what can be reached on sums at best (exact_sums.py).
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.distill import exact_sums
from benchmarks.distill.diffusion_sizes import DiffusionSizes, Texts
from benchmarks.distill.material import SPECIAL, bf16, save_fresh, shakespeare, sums, trained
from benchmarks.distill.surroundings import surroundings
from training.distill.batches import collate
from training.distill.collapse import distinct_n
from training.distill.config import DistillConfig, Order
from training.distill.diffusion.model import Denoiser, marked
from training.distill.diffusion.sampler import sample
from training.distill.examples import Row
from training.distill.models import head_of, load_model, states
from training.distill.report import write_json
from training.distill.through_time import distil_through_time
from training.distill.writing import written

ROUNDS, M = 3, 2
NAMED: dict[Order, tuple[str, str]] = {"ancestral": ("", ""), "dilated": (", dilated", "-dilated")}
"""How arms and files of an order are called."""
COLUMNS = {
    "judge's NLL": ("judge_nll", 3), "closed": ("closed.judge_nll", 2), "valid words": ("valid_words", 3),
    "closed ": ("closed.valid_words", 2), "valid sums": ("valid_sums", 3), "closed  ": ("closed.valid_sums", 2),
    "line entropy": ("line_entropy", 2), "entropy": ("entropy", 3), "unigram entropy": ("unigram_entropy", 3),
    "self-BLEU": ("self_bleu", 3), "distinct-4": ("distinct_4", 3), "tokens/CPU s": ("tokens_per_second", 0),
    "training steps": ("steps", 0), "training CPU s": ("seconds", 0),
}  # fmt: skip
COMPARED = ("judge_nll", "valid_words", "valid_sums")


def run(
    data: Path, work: Path, sizes: DiffusionSizes, seeds: int, only: str | None, say: Callable[[str], None]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("exact", "sums", "shakespeare") if only is None else (only,):
        if name == "exact":
            say("sums: what rounds could reach")
            found |= exact_sums.run(sizes.sums.from_steps, ROUNDS, M, seeds, draws=sizes.exact_draws)
            continue
        for arm, results in of_data(name, data, work / name, sizes, seeds, say).items():
            found[f"{name}: {arm}"] = results
    return found


def of_data(
    name: str, data: Path, work: Path, all_sizes: DiffusionSizes, seeds: int, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    if name == "shakespeare":
        sizes = all_sizes.shakespeare
        files, tokenizer, words = shakespeare(data, work, sizes)
    else:
        sizes = all_sizes.sums
        (files, tokenizer), words = sums(work, sizes), set()
    say(f"{name}: judge")
    pieces = {split: files[f"{split}-pieces"] for split in ("train", "val")}
    judge_path, judge_report = trained(
        "judge", sizes.judge, pieces, tokenizer, work, steps=sizes.judge_steps, rows=sizes.rows, rate=sizes.base_rate,
        seed=100, muon=True,
    )  # fmt: skip
    judge = load_model(str(judge_path), "float32", "judge").eval()
    many, few = sizes.from_steps, sizes.from_steps // M**ROUNDS
    look = Look(name, judge, tokenizer, words, sizes)

    say(f"{name}: base")
    base_path, base_seconds = base(files, tokenizer, work, sizes)
    base_model = denoiser(base_path)
    found: dict[str, list[dict[str, Any]]] = {}

    def add(arm: str, result: dict[str, Any]) -> None:
        found.setdefault(arm, []).append(result)

    told_base = {"steps": sizes.base_steps, "seconds": base_seconds}
    for steps, order in product(halved(many), NAMED):
        said, slug = NAMED[order]
        look_again = partial(look, base_model, steps, 0, order=order)
        add(f"base{said}, {steps} steps", {**once(work / f"base{slug}-{steps}.json", look_again), **told_base})
    m, total_steps, total_seconds = M**ROUNDS, ROUNDS * sizes.round_steps, 0.0
    # A step of it runs the teacher m times where a step of a round runs it M times; forward and backward count thrice.
    direct_steps = max(1, round(total_steps * (M + 3) / (m + 3)))
    # All arms of a seed before the next seed: what is there when a run is stopped is whole.
    for seed, order in product(range(seeds), NAMED):
        said, slug = NAMED[order]
        say(f"{name}: rounds{said}, seed {seed}")
        make = partial(rounds, base_path, files, sizes=sizes, seed=seed, order=order)
        student, seconds = make(work / f"rounds{slug}-{seed}", substeps=M, count=ROUNDS, steps=sizes.round_steps)
        total_seconds = total_seconds or seconds
        told = once(work / f"rounds{slug}-{seed}.json", partial(look, denoiser(student), few, seed, order=order))
        add(f"rounds{said}, {few} steps", {**told, "steps": total_steps, "seconds": seconds})
        say(f"{name}: base at the student's entropy{said}, seed {seed}")
        cooled = once(
            work / f"cooled{slug}-{seed}.json",
            partial(look.at_entropy, base_model, few, seed, told["entropy"], order=order),
        )
        add(f"base at the student's entropy{said}, {few} steps", {**cooled, **told_base})
        # As many seconds as the rounds took: a step of base training is cheaper, so there are more of them.
        more = math.ceil(total_seconds / (base_seconds / sizes.base_steps) * sizes.rows / sizes.round_rows)
        if order == "ancestral":
            say(f"{name}: base trained on, seed {seed}")
        # One student, whatever the order.
        longer, seconds = rounds(base_path, files, work / f"longer-{seed}", sizes, seed, 1, 0, more)
        told = once(work / f"longer{slug}-{seed}.json", partial(look, denoiser(longer), few, seed, order=order))
        add(f"base trained on{said}, {few} steps", {**told, "steps": more, "seconds": seconds})
        say(f"{name}: direct, m = {m}{said}, seed {seed}")
        direct, seconds = make(work / f"direct{slug}-{seed}", substeps=m, count=1, steps=direct_steps)
        told = once(work / f"direct{slug}-{seed}.json", partial(look, denoiser(direct), few, seed, order=order))
        add(f"direct m = {m}{said}, {few} steps", {**told, "steps": direct_steps, "seconds": seconds})
    add(
        "autoregressive with cache",
        {
            **once(work / "autoregressive.json", lambda: look.autoregressive(judge)),
            "steps": sizes.judge_steps,
            "seconds": judge_report["seconds"],
        },
    )
    add("held-out text", once(work / "held-out.json", lambda: look.held_out(files["val"])))
    full, quick = found[f"base, {many} steps"][0], found[f"base, {few} steps"][0]
    for results in found.values():
        for one in results:
            one["closed"] = {key: closed(quick[key], full[key], one[key]) for key in COMPARED}
    return found


def halved(many: int) -> list[int]:
    """`many` steps, half of them, and so on down to two."""
    return [many] if many < 2 * M else [many, *halved(many // M)]


def closed(few: float | None, many: float | None, value: float | None) -> float | None:
    """0: no better than the base in few steps; 1: as good as the base in many."""
    if few is None or many is None or value is None or few == many:
        return None
    return (value - few) / (many - few)


def once(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not file.exists():
        write_json(file, measure())
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def denoiser(path: Path) -> Denoiser:
    model = load_model(str(path), "float32", "student").eval()
    return marked(model, model.config.vocab_size)


def base(files: dict[str, Path], tokenizer: Any, work: Path, sizes: Texts) -> tuple[Path, float]:
    fresh = save_fresh(sizes.denoiser, tokenizer, work / "fresh", 0)
    config = configuration(
        fresh, files, work / "base", sizes, 0,
        {
            "base_steps": sizes.base_steps, "base_learning_rate": sizes.base_rate, "rounds": 1, "steps_per_round": 1,
        },
        rows=sizes.rows, steps=sizes.base_steps,
    )  # fmt: skip
    report = ran(config)
    return work / "base" / "base-model", float(report["stages"]["base"]["seconds"])


def rounds(
    start: Path,
    files: dict[str, Path],
    out: Path,
    sizes: Texts,
    seed: int,
    substeps: int,
    count: int,
    steps: int,
    order: Order = "ancestral",
) -> tuple[Path, float]:
    """`count` rounds of m = `substeps`; 0 rounds: base training goes on for `steps` instead."""
    if count == 0:
        # At the rate of the rounds: that of base training would first undo what its decay has won.
        diffusion: dict[str, Any] = {"base_steps": steps, "base_learning_rate": sizes.round_rate}
        config = configuration(
            start,
            files,
            out,
            sizes,
            seed,
            {**diffusion, "rounds": 1, "steps_per_round": 1},
            rows=sizes.round_rows,
            steps=steps,
        )
        report = ran(config)
        return out / "base-model", float(report["stages"]["base"]["seconds"])
    diffusion = {"rounds": count, "substeps": substeps, "steps_per_round": steps, "order": order}
    report = ran(configuration(start, files, out, sizes, seed, diffusion, rows=sizes.round_rows, steps=steps))
    return out / "student", sum(stage["seconds"] for stage in report["stages"].values())


def ran(config: DistillConfig) -> dict[str, Any]:
    file = config.out / "report.json"
    if not file.exists():
        distil_through_time(config, surroundings(config.out.name), lambda _name: None)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def configuration(
    student: Path,
    files: dict[str, Path],
    out: Path,
    sizes: Texts,
    seed: int,
    diffusion: dict[str, Any],
    *,
    rows: int,
    steps: int,
) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "out": str(out), "seed": seed, "student": {"path": str(student)},
            "data": {"train": [str(files["train"])], "validation": [str(files["val"])], "validation_rows": 64},
            "training": {
                "rows": rows, "learning_rate": sizes.round_rate, "warmup": 0.05, "bf16": bf16(), "optimizer": "muon",
                "weight_decay": 0.01, "evaluate_every": max(1, steps // 4), "schedule": "linear",
                "checkpoint_every": 200,
            },
            "diffusion": {"length": sizes.length, "from_steps": sizes.from_steps, **diffusion},
        }
    )  # fmt: skip


class Look:
    """What is measured on sampled texts."""

    def __init__(self, name: str, judge: Any, tokenizer: Any, words: set[str], sizes: Texts) -> None:
        self._name, self._judge, self._tokenizer, self._words, self._sizes = name, judge, tokenizer, words, sizes
        self._begin = int(tokenizer.convert_tokens_to_ids(SPECIAL[1]))

    def __call__(
        self, model: Denoiser, steps: int, seed: int, temperature: float = 1.0, order: Order = "ancestral"
    ) -> dict[str, Any]:
        sizes = self._sizes
        rows: list[list[int]] = []
        entropies = []
        began = time.process_time()
        for start in range(0, sizes.sampled, 64):
            generator = torch.Generator().manual_seed(seed * 1_000 + start)
            made = sample(
                model, count=min(64, sizes.sampled - start), length=sizes.length, steps=steps, generator=generator,
                order=order, temperature=temperature,
            )  # fmt: skip
            rows += made.tokens.tolist()
            entropies.append(made.entropy)
        rate = sizes.sampled * sizes.length / (time.process_time() - began)
        return {
            **self._of(rows),
            "entropy": sum(entropies) / len(entropies),
            "tokens_per_second": rate,
            "temperature": temperature,
        }

    def at_entropy(
        self, model: Denoiser, steps: int, seed: int, wanted: float, order: Order = "ancestral"
    ) -> dict[str, Any]:
        """The temperature that gives the wanted mean entropy of what tokens are drawn from, by bisection; cooled
        logits are what a cooled model would be."""
        low, high = 0.2, 1.4
        for _ in range(6):
            middle = (low + high) / 2
            cooled = replace(model, model=_Cooled(model.model, middle))
            if self(cooled, steps, seed, order=order)["entropy"] > wanted:
                high = middle
            else:
                low = middle
        found = self(replace(model, model=_Cooled(model.model, high)), steps, seed, order=order)
        return {**found, "temperature": high}

    def autoregressive(self, model: LlamaForCausalLM) -> dict[str, Any]:
        sizes = self._sizes
        first = [[self._begin]] * min(64, sizes.sampled)
        began = time.process_time()
        answers = written(
            model, first, limits=[sizes.length] * len(first), eos=None, pad_id=0,
            vocabulary=len(self._tokenizer), temperature=1.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        rate = sum(map(len, answers)) / (time.process_time() - began)
        return {**self._of(answers), "tokens_per_second": rate}

    def held_out(self, file: Path) -> dict[str, Any]:
        """What real text scores, as pieces of the same length."""
        text = json.loads(file.read_text())["text"]
        length = self._sizes.length
        rows = [
            self._tokenizer.convert_tokens_to_ids(list(text[start : start + length]))
            for start in range(0, len(text) - length + 1, length)
        ][: self._sizes.sampled]
        return self._of(rows)

    def _of(self, rows: list[list[int]]) -> dict[str, Any]:
        texts = ["".join(self._tokenizer.convert_ids_to_tokens(row)) for row in rows]
        counts = Counter(token for row in rows for token in row)
        shares = torch.tensor([count / sum(counts.values()) for count in counts.values()])
        return {
            "judge_nll": self._nll(rows),
            "valid_words": valid_words(texts, self._words) if self._words else None,
            "valid_sums": valid_sums(texts) if self._name == "sums" else None,
            "line_entropy": line_entropy(texts) if self._name == "sums" else None,
            "unigram_entropy": float(-(shares * shares.log()).sum()),
            "self_bleu": self_bleu([text.split() if self._words else list(text) for text in texts[:64]]),
            "distinct_4": distinct_n(rows, 4),
            "example": texts[0],
        }

    def _nll(self, rows: list[list[int]]) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                some = [Row((self._begin, *row), 1, n) for n, row in enumerate(rows[start : start + 64])]
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
    """Share of lines that are right sums; every text begins with a line and ends with one."""
    lines = _lines(texts)
    return sum(_right(line) for line in lines) / max(1, len(lines))


def line_entropy(texts: Sequence[str]) -> float:
    """Entropy in nats of which right sum a right line is: it falls where a student writes few sums, but right ones."""
    counts = Counter(line for line in _lines(texts) if _right(line))
    return math.log(max(1, counts.total())) - sum(n * math.log(n) for n in counts.values()) / max(1, counts.total())


def _lines(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in text.removesuffix("\n").split("\n")]


def _right(line: str) -> bool:
    left, equals, right = line.partition("=")
    a, plus, b = left.partition("+")
    parts = (a, b, right)
    return bool(
        equals
        and plus
        and all(p.isdigit() for p in parts)
        and len(a) + 1 == len(b) + 1 == len(right)
        and int(a) + int(b) == int(right)
    )


def self_bleu(texts: Sequence[Sequence[str]], order: int = 4) -> float:
    """Mean BLEU of each text against all others (Texygen, 1802.01886): 1 where all say the same. A precision of zero
    counts as half a match, so that one missing order does not hide the others."""
    return sum(_bleu(text, [*texts[:i], *texts[i + 1 :]], order) for i, text in enumerate(texts)) / len(texts)


def _bleu(text: Sequence[str], others: Sequence[Sequence[str]], order: int) -> float:
    logs = 0.0
    for n in range(1, order + 1):
        own, best = _grams(text, n), Counter[tuple[str, ...]]()
        for other in others:
            best |= _grams(other, n)
        matched, count = (own & best).total(), own.total()
        logs += math.log(max(matched, 0.5) / max(count, 1))
    nearest = min((len(other) for other in others), key=lambda size: abs(size - len(text)), default=len(text))
    brevity = min(0.0, 1.0 - nearest / max(1, len(text)))
    return math.exp(logs / order + brevity)


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
