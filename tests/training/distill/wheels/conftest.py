from pathlib import Path

import pytest

from tests.training.distill.pairs import save_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with room for a sentence of tiny subwords."""
    folder = tmp_path_factory.mktemp("wheels-pair")
    save_model(folder / "student", seed=1, hidden=16, layers=1, context=128)
    save_model(folder / "teacher", seed=2, hidden=24, layers=2, context=128)
    return folder
