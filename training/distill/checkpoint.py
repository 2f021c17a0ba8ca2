"""Checkpoints: a directory that appears whole or not at all, so that a full disk or a crash leaves the last good one.

    checkpoints/step-00000200/   lesson.safetensors   everything that learns
                                 optimizer.pt         moments, by parameter name
                                 state.json           step, tokens, seconds

Weights and moments are gathered whole (torch.distributed.checkpoint), so a run may go on with
another number of devices.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from training.distill.errors import CannotDistill, DistillationFailed


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: `tokens` learned from, `seconds` spent in steps (evaluation included)."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def gathered(module: nn.Module) -> dict[str, Tensor]:
    """All weights, whole, on the CPU; on other processes than the first it may be empty."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return {
        name: value
        for name, value in get_model_state_dict(module, options=options).items()
        if isinstance(value, Tensor)
    }


def save(
    directory: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
    *,
    main: bool,
    keep: int,
) -> None:
    """Every process calls it; the first one writes. Raises DistillationFailed, with nothing half written left."""
    weights = gathered(module)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    moments = get_optimizer_state_dict(module, optimizers, options=options)
    if not main:
        return
    name = f"step-{progress.step:08d}"
    beside = directory / f"{name}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        save_file(_separate(weights), beside / "lesson.safetensors")
        torch.save(moments, beside / "optimizer.pt")
        (beside / "state.json").write_text(json.dumps(asdict(progress)) + "\n")
        shutil.rmtree(directory / name, ignore_errors=True)
        os.replace(beside, directory / name)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors report a full disk as errors of their own.
        shutil.rmtree(beside, ignore_errors=True)
        last = latest(directory)
        left = f"the last good one is {last}" if last else "there is none yet"
        raise DistillationFailed(f"{directory / name}: the checkpoint cannot be written ({error}); {left}") from error
    for old in _all(directory)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _separate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights share memory, which safetensors refuses; each is stored once per name, they are few."""
    seen: set[int] = set()
    found = {}
    for name, value in sorted(weights.items()):
        address = value.data_ptr()
        found[name] = value.clone() if address in seen else value.contiguous()
        seen.add(address)
    return found


def _all(directory: Path) -> list[Path]:
    return sorted(
        path for path in directory.glob("step-*") if path.suffix != ".part" and (path / "state.json").is_file()
    )


def latest(directory: Path) -> Path | None:
    found = _all(directory)
    return found[-1] if found else None


def restore(path: Path, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
    """Raises CannotDistill where the checkpoint is damaged or of another model."""
    try:
        weights: dict[str, Any] = dict(load_file(path / "lesson.safetensors"))
        moments = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        set_model_state_dict(module, weights, options=options)
        set_optimizer_state_dict(module, optimizers, moments, options=options)
        return Progress(**json.loads((path / "state.json").read_text()))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise CannotDistill(f"{path}: cannot go on from it ({said}); remove it to go on from the one before") from None
