"""The teacher's states, computed once for all arms: its forward pass is the same in every one of them, and more than
half of an arm's work.

What an arm saves by that is added to its seconds again (`seconds_per_token`, as measured when the states were made), so
that costs are those of a run that asks its teacher every time.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.distill import kd, run
from training.distill.batches import Batch, collate
from training.distill.cached import digest
from training.distill.examples import Row
from training.distill.models import States, states
from training.distill.pair import Data


class Remembered:
    """`seconds_per_token`: what the teacher took for a token, prompts counted in and padding not."""

    def __init__(self, rows: list[Row], kept: dict[str, Tensor], seconds_per_token: float) -> None:
        self._place: dict[tuple[int, ...], tuple[int, int]] = {}
        self._whole: dict[tuple[int, ...], int] = {}
        at = whole = 0
        for row in rows:
            count = len(row.tokens) - max(1, row.answer_from)
            self._place[row.tokens], self._whole[row.tokens] = (at, count), whole
            at, whole = at + count, whole + len(row.tokens)
        self._last = kept["last"]
        self._layers = {int(name): value for name, value in kept.items() if name != "last"}
        self.seconds_per_token = seconds_per_token

    def look_up(self, batch: Batch, layers: tuple[int, ...]) -> States | None:
        """None where a row is not known, or a layer was not kept. The last states are filled in at the places that
        predict alone, those of layers at all tokens."""
        rows = [pack[0].tokens for pack in batch.packs]
        known = all(row in self._place for row in rows) and all(n in self._layers for n in layers)
        if batch.is_packed or not known:
            return None

        def spread(values: Tensor, where: Tensor, ranges: list[tuple[int, int]]) -> Tensor:
            found = torch.zeros(*batch.tokens.shape, values.shape[-1])
            found[where] = torch.cat([values[start : start + count] for start, count in ranges]).float()
            return found

        predicting = torch.nn.functional.pad(batch.predicting(), (0, 1))
        last = spread(self._last, predicting, [self._place[row] for row in rows])
        whole = [(self._whole[row], len(row)) for row in rows]
        return States(last, {n: spread(self._layers[n], batch.owners > 0, whole) for n in layers})


def remembered(teacher: Any, rows: list[Row], file: Path, *, layers: tuple[int, ...], bf16: bool) -> Remembered:
    """Computed where `file` is not there yet; kept in bfloat16, the precision of the passes that use it."""
    rows = sorted({row.tokens: row for row in rows}.values(), key=lambda row: len(row.tokens))
    told = {"rows": digest(rows), "layers": str(sorted(layers)), "places": "all"}
    if not file.exists() or not told.items() <= _metadata(file).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        parts: dict[str, list[Tensor]] = {name: [] for name in ("last", *map(str, layers))}
        tokens, began = 0, time.process_time()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for start in range(0, len(rows), 64):
                batch = collate([(row,) for row in rows[start : start + 64]], 0)
                place = batch.predicting()
                found = states(teacher, batch, layers)
                parts["last"].append(found.last[:, :-1][place].bfloat16())
                for number in layers:
                    parts[str(number)].append(found.layers[number][batch.owners > 0].bfloat16())
                tokens += int((batch.owners > 0).sum())
        rate = (time.process_time() - began) / tokens
        beside = file.with_suffix(".part")
        save_file({n: torch.cat(some) for n, some in parts.items()}, beside, {**told, "seconds_per_token": str(rate)})
        beside.replace(file)
    return Remembered(rows, load_file(file), float(_metadata(file)["seconds_per_token"]))


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


@contextmanager
def in_place_of(memory: Remembered | None, data: Data) -> Iterator[None]:
    """Distillation within asks `memory` for the teacher's states, and the teacher for what is not known there; the rows
    are not read again either. Without `memory` the teacher is asked for everything."""

    def asked(model: Any, batch: Batch, layers: tuple[int, ...] = ()) -> States:
        # Teachers alone do not learn.
        frozen = not next(model.parameters()).requires_grad
        found = memory.look_up(batch, layers) if memory is not None and frozen else None
        return found or states(model, batch, layers)

    with mock.patch.object(kd, "states", asked), mock.patch.object(run, "read_data", return_value=data):
        yield
