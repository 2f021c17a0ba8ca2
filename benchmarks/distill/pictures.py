"""Curves of the main arms on Multi30k as one picture.

    python -m benchmarks.distill.pictures --medium docs/images/distill-arms.png

Needs the results of `python -m benchmarks.distill --method ranking | features | warmup`; runs nothing itself.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

Result = Mapping[str, Any]
LINES = 3
"""Of each method the arms that have every seed."""


def seconds(result: Result, row: Mapping[str, float]) -> float:
    """What the arm had cost when `row` was measured: all that came before distillation, and its part of that."""
    stage = result["stages"]["kd"]
    return float(result["seconds"] - stage["seconds"] * (1 - row["step"] / stage["steps"]))


def draw(axes: Any, arms: Mapping[str, Sequence[Result]], key: str, x: Callable[[Result, Any], float]) -> None:
    """Mean over the seeds, thick; each seed, thin."""
    for arm, found in list(arms.items())[:LINES]:
        color = None
        curves = [[(x(result, row), row[key]) for row in result["curve"]] for result in found]
        if len({len(curve) for curve in curves}) == 1:
            points = [(fmean(x for x, _ in at), fmean(y for _, y in at)) for at in zip(*curves, strict=True)]
            (line,) = axes.plot(*zip(*points, strict=True), linewidth=2, label=arm)
            color = line.get_color()
        for number, curve in enumerate(curves):
            label = arm if color is None and number == 0 else None
            (line,) = axes.plot(*zip(*curve, strict=True), linewidth=0.6, color=color, label=label)
            color = line.get_color()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--medium", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/distill"))
    arguments = parser.parse_args()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    folder = arguments.out / ("medium" if arguments.medium else "full")

    def of(method: str) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = json.loads((folder / f"{method}.json").read_text())["results"]
        return found

    draw(left, of("ranking"), "val_mor10", lambda _result, row: float(row["step"]))
    left.set(xlabel="step", ylabel="MOR@10, validation", title="ranking")
    draw(middle, of("features"), "val_kl", lambda _result, row: float(row["step"]))
    middle.set(xlabel="step", ylabel="KL to the teacher, validation", title="features")
    draw(right, of("warmup"), "val_kl", seconds)
    right.set(xlabel="seconds of the processor", title="warm-up")
    figure.savefig(arguments.picture, format="png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
