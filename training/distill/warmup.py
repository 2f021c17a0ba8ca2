"""Warm-up before distillation (Warmup-Distill, 2502.11766).

The student writes, the teacher replaces what it finds improbable (z); the student's own text y shares everything up to
the first correction. Then the student is aligned to z against y, and only then distilled.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from training.distill.batches import Batch, collate
from training.distill.config import WarmupConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Row
from training.distill.frame import seeded
from training.distill.lesson import Lesson
from training.distill.losses.blocks import by_blocks
from training.distill.losses.preference import imitation, preference, sequence_sums
from training.distill.models import head_of, states
from training.distill.writing import corrected, written


@dataclass(frozen=True, slots=True)
class Correction:
    """One prompt with the corrected text and the student's own; equal where nothing was corrected."""

    number: int
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    corrections: int
    judged: int


def corrections(
    student: Any,
    teacher: Any,
    rows: Sequence[Row],
    config: WarmupConfig,
    *,
    context: int,
    eos: int | None,
    pad_id: int,
    vocabulary: int,
    batch: int,
    seed: int,
    file: Path,
    tick: Callable[[int, int], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[Correction]:
    """Corrected texts for `rows`, kept in `file` batch by batch, so that an interrupted run goes on."""
    wanted = [row for row in rows if row.answer_from > 1 and len(row.prompt) < context][: config.prompts]
    if not wanted:
        raise CannotDistill("warm-up needs rows with a prompt shorter than data.context; text alone has none")
    found = _read(file)
    device = next(student.parameters()).device
    for start in range(len(found), len(wanted), batch):
        if stop():
            from training.distill.errors import Stopped

            raise Stopped(
                f"stopped after {len(found)} of {len(wanted)} corrected texts in {file}; the same command goes on"
            )
        some = wanted[start : start + batch]
        generator = seeded(seed, start, 0, device)
        made = _correct(student, teacher, some, config, context, eos, pad_id, vocabulary, generator)
        found += made
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            # One write per batch; a line cut short by a crash is made again.
            out.write("".join(json.dumps(_as_dict(one)) + "\n" for one in made))
        tick(len(found), len(wanted))
    return found


def _correct(
    student: Any,
    teacher: Any,
    rows: Sequence[Row],
    config: WarmupConfig,
    context: int,
    eos: int | None,
    pad_id: int,
    vocabulary: int,
    generator: torch.Generator,
) -> list[Correction]:
    prompts = [row.prompt for row in rows]
    limits = [min(config.max_new_tokens, context - len(prompt)) for prompt in prompts]
    texts = corrected(
        student, teacher, prompts, config,
        limits=limits, eos=eos, pad_id=pad_id, vocabulary=vocabulary, generator=generator,
    )  # fmt: skip
    # The student's own text goes its own way from the first refused token on.
    begun = [
        list(text.text) if text.first is None else [*text.text[: text.first], int(text.refused or 0)] for text in texts
    ]
    forked = [i for i, text in enumerate(texts) if text.first is not None and begun[i][-1] != eos]
    rest = written(
        student,
        [[*prompts[i], *begun[i]] for i in forked],
        limits=[limits[i] - len(begun[i]) for i in forked],
        eos=eos,
        pad_id=pad_id,
        vocabulary=vocabulary,
        temperature=config.temperature,
        generator=generator,
    )
    own = [tuple(some) for some in begun]
    for place, more in zip(forked, rest, strict=True):
        own[place] = (*begun[place], *more)
    return [
        Correction(row.number, tuple(row.prompt), tuple(text.text), own[i], text.corrections, text.judged)
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]


def _as_dict(one: Correction) -> dict[str, Any]:
    return {
        "number": one.number, "prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected,
        "corrections": one.corrections, "judged": one.judged,
    }  # fmt: skip


def _read(file: Path) -> list[Correction]:
    found: list[Correction] = []
    if not file.exists():
        return found
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            raw = json.loads(line)
        except ValueError:
            break
        found.append(
            Correction(
                raw["number"], tuple(raw["prompt"]), tuple(raw["chosen"]), tuple(raw["rejected"]),
                raw["corrections"], raw["judged"],
            )
        )  # fmt: skip
    # What a crash cut short is taken off, so that the next batch begins on a line of its own.
    file.write_text("".join(json.dumps(_as_dict(one)) + "\n" for one in found), encoding="utf-8")
    return found


def described(found: Sequence[Correction]) -> dict[str, float]:
    """How much the teacher refused, and whether length alone could tell chosen from rejected."""
    different = [one for one in found if one.chosen != one.rejected]
    judged = sum(one.judged for one in found)
    return {
        "prompts": len(found),
        "pairs": len(different),
        "identical": len(found) - len(different),
        "refused_share": sum(one.corrections for one in found) / max(1, judged),
        "chosen_tokens": fmean(len(one.chosen) for one in different) if different else 0.0,
        "rejected_tokens": fmean(len(one.rejected) for one in different) if different else 0.0,
    }


class PreferenceSource:
    """Batches in which row 2i is a chosen text and row 2i + 1 the rejected one of the same prompt."""

    def __init__(self, found: Sequence[Correction], *, rows: int, accumulate: int, seed: int, pad_id: int) -> None:
        # Identical pairs hold no preference and would only be counted.
        self._pairs = [one for one in found if one.chosen != one.rejected]
        if not self._pairs:
            raise CannotDistill(
                "warm-up: the teacher corrected nothing, so there is nothing to align to; make warmup.top_k smaller or "
                "warmup.threshold larger, or distil without it"
            )
        self._rows, self._accumulate, self._seed, self._pad_id = rows, accumulate, seed, pad_id

    def steps(self, epochs: float, world: int) -> int:
        return max(1, round(epochs * len(self._pairs) / (self._rows * self._accumulate * world)))

    def batch(self, step: int, micro: int, rank: int, world: int) -> Batch:
        start = step * self._rows * self._accumulate * world + (micro * world + rank) * self._rows
        return self.collated([self._at(start + i) for i in range(self._rows)])

    def collated(self, indices: Sequence[int]) -> Batch:
        packs = []
        for index in indices:
            pair = self._pairs[index]
            for text, number in ((pair.chosen, 2 * index), (pair.rejected, 2 * index + 1)):
                packs.append((Row((*pair.prompt, *text), len(pair.prompt), number),))
        return collate(packs, self._pad_id)

    def all(self) -> list[Batch]:
        """Every pair once, in order."""
        count = len(self._pairs)
        return [self.collated(range(start, min(start + self._rows, count))) for start in range(0, count, self._rows)]

    def _at(self, place: int) -> int:
        epoch, index = divmod(place, len(self._pairs))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        return int(torch.randperm(len(self._pairs), generator=generator)[index])


class WarmupLesson(Lesson):
    """`before`: number of the text -> its log-probability under the student as it was (S0), so that no copy of the
    student is needed."""

    def __init__(self, student: Any, config: WarmupConfig, vocabulary: int, tokens_at_once: int) -> None:
        super().__init__(student)
        self._config, self._vocabulary, self._tokens = config, vocabulary, tokens_at_once
        self._before: dict[int, float] = {}

    def weight(self, batch: Batch) -> float:
        return len(batch.packs) / 2

    def remember(self, batches: Sequence[Batch], device: torch.device) -> None:
        """Call it once, before the first step."""
        self.eval()
        with torch.no_grad():
            for batch in batches:
                sums, _ = self._sums(batch.to(device))
                for pack, value in zip(batch.packs, sums.tolist(), strict=True):
                    self._before[pack[0].number] = value
        self.train()

    def before(self) -> dict[int, float]:
        return self._before

    def set_before(self, values: dict[int, float]) -> None:
        self._before = values

    def _sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) log-probability of each text, (B,) its tokens."""
        place, targets = batch.predicting(), batch.targets()
        s = states(self.student, batch).last[:, :-1][place]

        def per_token(ours: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
            return {"log": torch.log_softmax(ours, -1).gather(-1, targets[at][:, None]).squeeze(-1)}

        values = by_blocks(s, head_of(self.student, self._vocabulary), None, None, per_token, self._tokens)["log"]
        rows = place.nonzero()[:, 0]
        return sequence_sums(values, rows, len(batch.packs)), place.sum(-1).float()

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        del step
        sums, tokens = self._sums(batch)
        before = torch.tensor([self._before[pack[0].number] for pack in batch.packs], device=sums.device)
        chosen, rejected = sums[0::2], sums[1::2]
        liked = preference(chosen, rejected, before[0::2], before[1::2], self._config.beta)
        copied = imitation(chosen, tokens[0::2])
        total = self._config.preference * liked.sum() + self._config.imitation * copied.sum()
        return {
            "loss": total,
            "preference": liked.detach().sum(),
            "imitation": copied.detach().sum(),
            # Preference may push both likelihoods down; these two tell.
            "chosen_gain": (chosen - before[0::2]).detach().sum(),
            "rejected_gain": (rejected - before[1::2]).detach().sum(),
        }

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        out = self.loss(batch, 0)
        return {**out, "weight": torch.tensor(self.weight(batch), device=out["loss"].device)}
