"""Where outcome tables lie: in the folder that `--data` names, or in `outcomes/` in it."""

from pathlib import Path


def tables_in(data: Path) -> Path:
    inner = data / "outcomes"
    return inner if inner.is_dir() else data
