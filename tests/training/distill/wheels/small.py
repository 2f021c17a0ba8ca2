"""A small configuration, and what is run and read with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import settings
from training.distill.config import DistillConfig
from training.distill.wheels.collecting import Rounds
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.restrictions import HELD_OUT, TRAINED
from training.distill.wheels.run import distil_wheels, load

Write = Callable[[dict[str, Any]], Path]
SMALL: dict[str, Any] = {
    "levels": [0.1, 0.3], "phrasings": list(TRAINED[:2]), "held_out": [HELD_OUT[0]], "rounds": 2, "trajectories": 8,
    "max_new_tokens": 6, "top_k": 8, "windows": [2], "unrestricted": 0.3,
}  # fmt: skip


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    return settings(folder, data={"context": 120}, **changes)


def wheels(folder: Path, out: str = "out", **changes: Any) -> DistillConfig:
    return config_of(sections(folder, out=str(folder / out), wheels={**SMALL, **changes}))


def run(config: DistillConfig, stop_at: int | None = None) -> dict[str, Any]:
    return distil_wheels(config, surroundings(stop_at), lambda _name: None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student/model.safetensors")


def batch_of(folder: Path, **changes: Any) -> tuple[WheelsLesson, Any]:
    config = wheels(folder, **changes)
    run(config)
    loaded = load(config, torch.device("cpu"))
    lesson = WheelsLesson(
        loaded.models.student,
        config,
        vocabulary=loaded.models.vocabulary,
        help_id=loaded.models.help_id,
        eos=loaded.models.eos,
    )
    source = Rounds(config, loaded.models, loaded.train, folder / "out/wheels/rounds", steps=4)
    return lesson, source
