"""Quality, share and passes of the teacher for one way of asking, on the same student and the same sentences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.distill.measuring import bleu_and_chrf
from benchmarks.wheels.sizes import WheelsSizes
from training.distill.config import DataConfig
from training.distill.models import load_model, load_tokenizer
from training.distill.wheels.mixing import Asker, Looks, Mixed, always, mixed, never
from training.distill.wheels.prompts import Example, read_examples, restricted
from training.distill.wheels.restrictions import Restriction

LIMIT, AT_ONCE, FAR = 48, 256, 0.25


@dataclass(frozen=True, slots=True)
class Bench:
    """Both models, and sentences with their references."""

    student: Any
    teacher: Any
    tokenizer: Any
    vocabulary: int
    help_id: int | None
    config: DataConfig
    context: int
    test: list[Example]
    references: list[str]
    calibration: list[Example]


def bench_of(student: Path, pair: dict[str, Any], size: WheelsSizes) -> Bench:
    tokenizer, theirs = load_tokenizer(str(student), "student"), load_tokenizer(str(pair["teacher"]), "teacher")
    config = DataConfig(train=(pair["files"]["train"],), context=size.pair.context)
    found = tokenizer.convert_tokens_to_ids("<help>") if "<help>" in tokenizer.get_vocab() else None
    test, _ = read_examples([pair["files"]["test"]], config, tokenizer, 0)
    held, _ = read_examples([pair["files"]["val"]], config, tokenizer, 0)
    answers = {_said(record["prompt"]): record["answer"].strip() for record in _records(pair["files"]["test"])}
    test = test[: size.tested]
    return Bench(
        load_model(str(student), "float32", "student").eval(),
        load_model(str(pair["teacher"]), "float32", "teacher").eval(),
        tokenizer, len(theirs), found, config, size.pair.context, test,
        [answers[_said(one.said)] for one in test],
        # The last ones: the first are what training validated on.
        held[-size.calibrated :],
    )  # fmt: skip


def _said(prompt: Any) -> str:
    return str(prompt)


def _records(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def texts_of(
    bench: Bench,
    examples: Sequence[Example],
    ask: Asker,
    *,
    restriction: Restriction | None = None,
    segment: int = 1,
) -> list[Mixed]:
    """In the order of `examples`."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].prompt), i))
    found: list[Mixed | None] = [None] * len(examples)
    for start in range(0, len(order), AT_ONCE):
        places = order[start : start + AT_ONCE]
        some = [examples[i] for i in places]
        texts = mixed(
            bench.student, bench.teacher,
            [restricted(one, restriction, bench.config, bench.tokenizer) for one in some],
            [one.prompt for one in some], ask,
            # The teacher knows no longer texts than it was trained on.
            limits=[max(1, min(LIMIT, bench.context - len(one.prompt))) for one in some],
            eos=bench.tokenizer.eos_token_id, pad_id=bench.tokenizer.pad_token_id, vocabulary=bench.vocabulary,
            help_id=bench.help_id, segment=segment,
        )  # fmt: skip
        for place, text in zip(places, texts, strict=True):
            found[place] = text
    return [text for text in found if text is not None]


def measured(bench: Bench, texts: Sequence[Mixed]) -> dict[str, Any]:
    """`share` of tokens that the teacher wrote; `passes`: teacher passes per token, one for each it writes; `regret`:
    nats per sentence that the student's words lie below the teacher's likeliest, which is what asking can save."""
    tokens = sum(len(text.tokens) for text in texts)
    said = [bench.tokenizer.decode(text.tokens, skip_special_tokens=True).strip() for text in texts]
    return {
        **bleu_and_chrf(said, bench.references[: len(said)]),
        "share": sum(text.teacher_tokens for text in texts) / tokens,
        "passes": sum(text.teacher_tokens for text in texts) / tokens,
        "regret": sum(float(text.regrets.sum()) for text in texts) / len(texts),
        "tokens": tokens,
        "said": said,
    }


def quantiles(bench: Bench, shares: Sequence[float], signal: str) -> list[float]:
    """Thresholds on `signal` (entropy, or minus the largest probability) that the given shares of the calibration
    sentences' states exceed, when nobody is asked."""
    seen: list[Tensor] = []

    def look(looks: Looks) -> Tensor:
        log_q = torch.log_softmax(looks.student, -1)
        signals = -(log_q.exp() * log_q).sum(-1) if signal == "entropy" else -log_q.max(-1).values.exp()
        seen.append(torch.full((AT_ONCE,), torch.nan).index_copy(0, looks.rows, signals))
        return never(looks)

    values: list[float] = []
    order = sorted(bench.calibration, key=lambda one: len(one.prompt))
    for start in range(0, len(order), AT_ONCE):
        seen.clear()
        texts = texts_of(bench, order[start : start + AT_ONCE], look)
        grid = torch.stack(seen, 1)
        for row, text in zip(grid, texts, strict=False):
            values += row[: len(text.tokens)].tolist()
    return torch.quantile(torch.tensor(values), 1 - torch.tensor(list(shares))).tolist()


def at_share(points: Sequence[dict[str, Any]], share: float, key: str) -> float | None:
    """On straight lines between measured points; None beyond the last, and where two points lie so far apart that the
    line between them says nothing."""
    ordered = sorted(points, key=lambda point: float(point["share"]))
    for left, right in pairwise(ordered):
        if left["share"] <= share <= right["share"]:
            width = right["share"] - left["share"]
            if width > FAR:
                return None
            part = 0.0 if width == 0 else (share - left["share"]) / width
            return float(left[key] + part * (right[key] - left[key]))
    return None


def speculative(teachers: Sequence[Mixed], drafted: int) -> dict[str, float]:
    """Greedy speculative decoding of the teacher's own texts (2211.17192 at temperature 0): the student drafts, one
    pass of the teacher keeps what it would have written and adds a word. Follows from where the two agree along it.
    """
    passes = accepted = drafts = tokens = 0
    for text in teachers:
        agrees = [own == token for own, token in zip(text.own, text.tokens, strict=True)]
        at, size = 0, len(agrees)
        while at < size:
            run = 0
            # The last place of a pass is the teacher's own.
            while run < drafted and at + run < size and agrees[at + run]:
                run += 1
            drafts += min(drafted, size - at)
            accepted += run
            passes += 1
            at += run + 1
        tokens += size
    return {"drafted": drafted, "acceptance": accepted / max(1, drafts), "passes": passes / max(1, tokens)}


def teacher_texts(bench: Bench) -> list[Mixed]:
    return texts_of(bench, bench.test, always)
