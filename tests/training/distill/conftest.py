from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distill.pairs import save_model, save_rows, toml
from training.distill.config import DistillConfig
from training.distill.frame import Surroundings


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    save_model(folder / "student", seed=1, hidden=16, layers=1)
    save_model(folder / "teacher", seed=2, hidden=24, layers=2)
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A directory with student/, teacher/ and rows.jsonl."""
    for name in ("student", "teacher"):
        (tmp_path / name).symlink_to(models / name)
    save_rows(tmp_path / "rows.jsonl")
    return tmp_path


@pytest.fixture
def written_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(value: dict[str, Any]) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(toml(value))
        return file

    return write


@pytest.fixture
def around() -> Surroundings:
    return surroundings()


def surroundings(stop_at: int | None = None) -> Surroundings:
    """One CPU process, a clock that counts its own calls, and a wish to stop after so many steps."""
    from accelerate import Accelerator

    ticks = [0]
    calls = [0]

    def clock() -> float:
        ticks[0] += 1
        return float(ticks[0])

    def stop() -> bool:
        calls[0] += 1
        return stop_at is not None and calls[0] >= stop_at

    return Surroundings(clock, lambda _done, _of, _note: None, stop, Accelerator(cpu=True))


def config_of(value: dict[str, Any]) -> DistillConfig:
    return DistillConfig.model_validate(value)
