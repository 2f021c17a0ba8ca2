"""Quality of masked diffusion students against the number of steps, in both orders, as one picture.

    python -m benchmarks.distill.step_pictures --medium docs/images/through-time-steps.png

Needs the results of `python -m benchmarks.distill --method through-time`; runs nothing itself.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.distill.diffusion import NAMED, ROUNDS, M
from benchmarks.distill.diffusion_sizes import BY_NAME

PANELS = (
    ("shakespeare", "judge_nll", "Shakespeare: judge's NLL, nats a letter (lower is better)"),
    ("shakespeare", "valid_words", "Shakespeare: valid words"),
    ("sums", "valid_sums", "sums: right lines"),
)


def points(folder: Path, slug: str, key: str) -> list[tuple[int, float]]:
    """(steps, value) of the base, for as many steps as there are results."""
    found = [(int(file.stem.split("-")[-1]), json.loads(file.read_text())[key]) for file in folder.glob("base*.json")
             if file.stem.rpartition("-")[0] == f"base{slug}"]  # fmt: skip
    return sorted(found)


def draw(axes: Any, folder: Path, key: str, few: int) -> None:
    for order, (_, slug) in NAMED.items():
        (line,) = axes.plot(*zip(*points(folder, slug, key), strict=True), marker="o", label=f"base, {order}")
        rounds = [json.loads(file.read_text())[key] for file in sorted(folder.glob(f"rounds{slug}-[0-9]*.json"))]
        if rounds:
            label = f"after rounds, {order}"
            axes.plot(
                [few], [fmean(rounds)], marker="*", markersize=13, color=line.get_color(), linestyle="", label=label
            )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--medium", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/distill"))
    arguments = parser.parse_args()
    from matplotlib.figure import Figure

    name = "medium" if arguments.medium else "full"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (data, key, title) in zip(figure.subplots(1, 3), PANELS, strict=True):
        few = getattr(BY_NAME[name], data).from_steps // M**ROUNDS
        draw(axes, arguments.out / name / "diffusion" / data, key, few)
        axes.set(xlabel="steps", title=title)
        axes.title.set_fontsize(9)
    figure.savefig(arguments.picture, format="png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
