"""Data, tokenizers and starting models, made once under the work directory and found again by the next run."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.distill.diffusion_sizes import Texts
from benchmarks.distill.sizes import Shape, Sizes
from benchmarks.distill.surroundings import surroundings
from training.distill.config import DataConfig, TrainingConfig
from training.distill.examples import read_rows
from training.distill.frame import train
from training.distill.kd import LanguageLesson
from training.distill.models import export, load_tokenizer
from training.distill.pair import Data, validation_batches

SPECIAL = ["<|pad|>", "<|end|>", "<|mask|>"]
CONTEXT = 128


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def multi30k(data: Path, work: Path, sizes: Sizes) -> dict[str, Path]:
    """train, val and test as JSONL: prompt `German =>`, answer ` English`."""
    names = {"train": "train", "val": "val", "test": "test_2016_flickr"}
    found = {}
    for split, name in names.items():
        file = work / f"multi30k-{split}.jsonl"
        found[split] = file
        if file.exists():
            continue
        german, english = (_lines(data / "text" / f"multi30k.{name}.{language}.gz") for language in ("de", "en"))
        limit = {"train": sizes.train_rows, "val": min(sizes.train_rows, 1_014), "test": 1_000}[split]
        rows = [{"prompt": f"{a} =>", "answer": f" {b}"} for a, b in zip(german, english, strict=True)][:limit]
        _write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return found


def disfluent(file: Path, share: float = 0.2) -> Path:
    """A copy whose answers are as people speak: after a fifth of the words the same word once more, and so on."""
    beside = file.with_name(f"{file.stem}-disfluent.jsonl")
    if not beside.exists():
        draw = random.Random(0)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        told = [{**row, "answer": stuttered(row["answer"], share, draw)} for row in rows]
        _write(beside, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told))
    return beside


def first(file: Path, count: int) -> Path:
    """A copy of its first `count` lines."""
    beside = file.with_name(f"{file.stem}-first-{count}.jsonl")
    if not beside.exists():
        _write(beside, "".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:count]))
    return beside


def stuttered(text: str, share: float, draw: random.Random) -> str:
    found = []
    for word in text.split(" "):
        found.append(word)
        while word and draw.random() < share:
            found.append(word)
    return " ".join(found)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def subwords(files: Sequence[Path], size: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        f"{row['prompt']}{row['answer']}" for file in files for row in map(json.loads, file.read_text().splitlines())
    )
    backend.train_from_iterator(texts, trainer)
    return _fast(backend)


def characters(text: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *sorted(set(text))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|pad|>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return _fast(backend)


def _fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token=SPECIAL[1], pad_token=SPECIAL[0], mask_token=SPECIAL[2]
    )


def llama(shape: Shape, words: int, seed: int, *, dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=max(CONTEXT, 256),
            attention_dropout=dropout,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def save_fresh(shape: Shape, tokenizer: Any, directory: Path, seed: int) -> Path:
    if not (directory / "config.json").exists():
        export(llama(shape, len(tokenizer), seed), None, tokenizer, directory, "float32")
    return directory


def trained(
    name: str,
    shape: Shape,
    files: dict[str, Path],
    tokenizer: Any,
    work: Path,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    rows: int,
    rate: float,
    seed: int,
    smoothing: float = 0.0,
    dropout: float = 0.0,
    start: Path | None = None,
    evaluate_every: int = 200,
    validation_rows: int = 512,
    context: int = CONTEXT,
    muon: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """A model trained with plain cross-entropy; found again where it was made already. `start`: from this model."""
    folder = work / name
    report_file = folder / "report.json"
    if report_file.exists():
        return folder / "model", json.loads(report_file.read_text())
    config = DataConfig(train=(files["train"],), validation=(files["val"],), context=context)
    train_rows, counted = read_rows([files["train"]], config, tokenizer)
    held, held_counted = read_rows([files["val"]], config, tokenizer)
    data = Data(tokenizer, train_rows, held[:validation_rows], counted, held_counted)
    training = TrainingConfig(
        steps=steps, epochs=epochs, rows=rows, learning_rate=rate, warmup=0.05, bf16=bf16(),
        evaluate_every=evaluate_every, checkpoint_every=200, weight_decay=0.01,
        optimizer="muon" if muon else "adamw", group_by_length=muon,
    )  # fmt: skip
    arguments = _Arguments(config, training)
    model: Any = (
        llama(shape, len(tokenizer), seed, dropout=dropout)
        if start is None
        else LlamaForCausalLM.from_pretrained(start)
    )
    lesson = LanguageLesson(model, tokens_at_once=4096, smoothing=smoothing)
    source = course_of(data, training, seed)
    total = steps or source.steps(epochs or 1.0, 1)
    done = train(
        lesson, source, validation_batches(arguments, data), training,  # type: ignore[arg-type]
        steps=total, seed=seed, work=folder, around=surroundings(name),
    )  # fmt: skip
    export(model, None, tokenizer, folder / "model", "float32")
    report = {
        "name": name,
        "steps": done.progress.step,
        "tokens": done.progress.tokens,
        "seconds": done.progress.seconds,
        "validation": done.final,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    _write(report_file, json.dumps(report, indent=2))
    return folder / "model", report


class _Arguments:
    """As much of a DistillConfig as `validation_batches` reads."""

    def __init__(self, data: DataConfig, training: TrainingConfig) -> None:
        self.data, self.training = data, training


def course_of(data: Data, training: TrainingConfig, seed: int) -> Any:
    from training.distill.batches import Course

    packs = [(row,) for row in data.rows]
    return Course(
        packs, rows=training.rows, accumulate=1, seed=seed, pad_id=data.pad_id, padding="right",
        by_length=training.group_by_length,
    )  # fmt: skip


def bf16() -> bool:
    """bfloat16 pays where the processor computes in it."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def translation_pair(
    data: Path, work: Path, sizes: Sizes, seed: int, teachers: dict[str, Path] | None = None
) -> dict[str, Any]:
    """Teacher (one for all seeds), student of `seed` after plain training, files. `teachers`: what the teacher learns
    from, where that is not what the student does."""
    files = multi30k(data, work, sizes)
    words = work / "tokenizer"
    if not (words / "tokenizer.json").exists():
        tokenizer = subwords([files["train"]], sizes.vocabulary)
        tokenizer.save_pretrained(words)
        (words / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = load_tokenizer(str(words), "student")
    teacher, teacher_report = trained(
        "teacher", sizes.teacher, teachers or files, tokenizer, work, epochs=sizes.teacher_epochs,
        rows=sizes.teacher_rows or sizes.rows, rate=sizes.teacher_rate, seed=0, smoothing=sizes.smoothing, dropout=0.1,
        validation_rows=sizes.validation_rows, context=sizes.context, muon=sizes.muon,
    )  # fmt: skip
    student, student_report = trained(
        f"student-{seed}", sizes.student, files, tokenizer, work, epochs=sizes.student_epochs, rows=sizes.rows,
        rate=sizes.student_rate, seed=seed, validation_rows=sizes.validation_rows,
        context=sizes.context, muon=sizes.muon,
    )  # fmt: skip
    return {
        "files": files, "teacher": teacher, "student": student, "tokenizer": tokenizer,
        "reports": {"teacher": teacher_report, "student": student_report},
    }  # fmt: skip


def shakespeare(data: Path, work: Path, of: Texts) -> tuple[dict[str, Path], Any, set[str]]:
    """Text as JSONL (nine tenths, one tenth), a tokenizer of characters, the words of the nine tenths."""
    text = (data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    if of.length < 64:
        text = text[:20_000]
    cut = len(text) * 9 // 10
    files = _text_files(work, "shakespeare", text[:cut], text[cut:], of.length)
    return files, characters(text), set(_words(text[:cut]))


def _words(text: str) -> list[str]:
    return "".join(c.lower() if c.isalpha() or c == "'" else " " for c in text).split()


def sums(work: Path, of: Texts) -> tuple[dict[str, Path], Any]:
    """Lines `a+b=c` of one width; whether one is right needs no judge."""
    draw = random.Random(0)
    width, most = of.digits, 10**of.digits
    lines = []
    for _ in range(of.lines):
        a, b = draw.randrange(most), draw.randrange(most)
        lines.append(f"{a:0{width}d}+{b:0{width}d}={a + b:0{width + 1}d}\n")
    cut = len(lines) * 9 // 10
    files = _text_files(work, "sums", "".join(lines[:cut]), "".join(lines[cut:]), of.length)
    return files, characters("".join(lines))


def _text_files(work: Path, name: str, train_text: str, held: str, length: int) -> dict[str, Path]:
    """`train`, `val`: one long text each, which the denoiser reads in pieces. `train-pieces`, `val-pieces`: the same
    pieces, each behind the begin token that the denoiser sees, as the judge reads them."""
    found = {}
    for split, text in (("train", train_text), ("val", held[:60_000])):
        pieces = [text[start : start + length] for start in range(0, len(text) - length + 1, length)]
        for kind, rows in ((split, [text]), (f"{split}-pieces", [SPECIAL[1] + piece for piece in pieces])):
            file = work / f"{name}-{kind}.jsonl"
            found[kind] = file
            if not file.exists():
                _write(file, "".join(json.dumps({"text": row}) + "\n" for row in rows))
    return found
