"""What a run leaves behind for people: report.json and curves.png."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_TRAINING = ("loss",)
_MEASURED = ("val_kl", "val_loss", "val_nll")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Beside and renamed, so that nobody reads half of it."""
    beside = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(beside, path)


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "accelerate")},
    }


def curves_png(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """One line per stage and quantity: training loss (thin) and what validation measured."""
    # Figure without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    for stage, rows in curves.items():
        for key in (*_TRAINING, *_MEASURED):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                thin = key in _TRAINING
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    linewidth=0.7 if thin else 1.8,
                    label=f"{stage} {key}",
                )
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    # No date or version inside, so that the same run gives the same bytes.
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def claim(directory: Path, config: Mapping[str, Any]) -> None:
    """Saves the configuration beside the checkpoints. Raises CannotDistill where another one's are there: going on
    with other settings would be a run that nobody can repeat."""
    from training.distill.errors import CannotDistill

    path = directory / "config.json"
    told = json.loads(json.dumps(dict(config), default=str))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*before, *told} if before.get(name) != told.get(name))
        if changed:
            raise CannotDistill(
                f"{directory} holds a run with other settings (different: {', '.join(changed)}); choose another out, "
                f"or remove {directory} to start again"
            )
        return
    write_json(path, told)
