"""A teacher's top-k log-probabilities on disk, made once and read for every token that is learned.

    cache/manifest.json       what it was made of: data, tokenizer, teacher, k
    cache/part-00000.safetensors   ids (n, k) int32, log-probabilities (n, k) float32, of rows 0 to 511, and so on

What is missing of it is made at the start of the run, so an interrupted one goes on. The tail is what is left to 1.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.distill.batches import Batch
from training.distill.errors import CannotDistill, DistillationFailed
from training.distill.examples import Row
from training.distill.report import write_json

PART = 512


class TopKSource(Protocol):
    """Anything that knows the largest `k` log-probabilities of every token of some rows that is to be predicted."""

    @property
    def name(self) -> str: ...

    def top_k(self, rows: Sequence[Row], k: int) -> list[tuple[Tensor, Tensor]]:
        """Per row: ids (n, k) and log-probabilities (n, k), largest first, for tokens from max(1, answer_from) on."""
        ...


def learned(row: Row) -> int:
    """How many tokens of the row are to be predicted."""
    return len(row.tokens) - max(1, row.answer_from)


class CachedTeacher:
    """The cache as the lesson sees it."""

    def __init__(self, ids: Tensor, log_probabilities: Tensor, rows: Sequence[Row]) -> None:
        self._ids, self._log_p = ids, log_probabilities
        starts = accumulate((learned(row) for row in rows), initial=0)
        self._start = {row.number: start for row, start in zip(rows, starts, strict=False)}

    def look_up(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """(N, k) ids and (N, k) log-probabilities for batch.targets()."""
        places = torch.cat(
            [
                torch.arange(self._start[row.number], self._start[row.number] + learned(row))
                for pack in batch.packs
                for row in pack
            ]
        )
        return self._ids[places].long().to(device), self._log_p[places].to(device)

    def of(self, row: Row) -> tuple[Tensor, Tensor]:
        """(n, k) ids and log-probabilities of one row's tokens that are to be predicted."""
        at = slice(self._start[row.number], self._start[row.number] + learned(row))
        return self._ids[at].long(), self._log_p[at]


def digest(rows: Iterable[Row]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps([row.answer_from, *row.tokens]).encode())
    return found.hexdigest()


def open_cache(
    directory: Path, rows: Sequence[Row], k: int, source: TopKSource, tick: Callable[[int, int], None]
) -> CachedTeacher:
    """Reads the cache, and makes what is missing of it. Raises CannotDistill where it was made of something else."""
    manifest = {"rows": len(rows), "data": digest(rows), "k": k, "teacher": source.name, "part": PART, "version": 1}
    path = directory / "manifest.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in manifest if before.get(name) != manifest[name])
        if changed:
            raise CannotDistill(
                f"{directory} was made of something else (different: {', '.join(changed)}); choose another"
                " teacher.cache"
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)
        parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
        for number, part in enumerate(parts):
            file = directory / f"part-{number:05d}.safetensors"
            if not file.exists():
                found = source.top_k(part, k)
                beside = file.with_suffix(".part")
                save_file(
                    {
                        "ids": torch.cat([ids for ids, _ in found]).int(),
                        "log_probabilities": torch.cat([values for _, values in found]).float(),
                    },
                    beside,
                )
                beside.replace(file)
            tick(min((number + 1) * PART, len(rows)), len(rows))
        loaded = [load_file(directory / f"part-{number:05d}.safetensors") for number in range(len(parts))]
    except OSError as error:
        raise DistillationFailed(f"{directory}: the cache cannot be written or read ({error})") from error
    return CachedTeacher(
        torch.cat([part["ids"] for part in loaded]), torch.cat([part["log_probabilities"] for part in loaded]), rows
    )
