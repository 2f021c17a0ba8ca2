"""Quality against the share of teacher tokens; requested against realised share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.wheels.curves import THRESHOLD

COLOURS = {
    "wheels": "C3", THRESHOLD: "C0", "entropy": "C2", "random": "C7", "disagreement": "0.3",
}  # fmt: skip


def quality_png(
    seeds: Sequence[Mapping[str, Any]], others: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """The mean over seeds of each way to ask, and what lies between the least and the most of them; `others`, students
    without help, are marks at 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("chrf", "bleu"), strict=True):
        for arm in seeds[0]["curves"]:
            found = [seed["curves"][arm] for seed in seeds]
            if arm == "disagreement":
                _mean(axes, found, key, color="0.3", linestyle=":", label="disagreement (needs the teacher everywhere)")
            elif arm != "wheels, paced":
                # Paced wheels lie on those in words.
                label = "wheels, told in words" if arm == "wheels" else arm
                _mean(
                    axes, found, key, color=COLOURS.get(arm, "C5"), label=label, linewidth=2 if arm == "wheels" else 1
                )
        for arm, runs in others.items():
            if helped := [run["curves"][THRESHOLD] for run in runs if THRESHOLD in run["curves"]]:
                _mean(axes, helped, key, color="C1", linestyle="--", label=f"{arm}, helped by {THRESHOLD}")
        # An ablation's own student without help says nothing here.
        alone = {arm: runs for arm, runs in others.items() if "wheels" not in runs[0]["curves"]}
        for (arm, runs), marker in zip(alone.items(), "xsd^v*P", strict=False):
            axes.plot(
                [0] * len(runs), [run["student"][key] for run in runs], marker, markersize=5, color="0.2",
                fillstyle="none", label=arm,
            )  # fmt: skip
        for seed in seeds:
            axes.axhline(seed["teacher"][key], color="0.6", linewidth=0.8, linestyle="--")
        axes.set(xlabel="tokens from the teacher, %", ylabel={"chrf": "chrF", "bleu": "BLEU"}[key], xlim=(-1, 52))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _mean(axes: Any, curves: Sequence[Sequence[Mapping[str, Any]]], key: str, **drawn: Any) -> None:
    """On straight lines between the points of each seed, as far as all were measured; the all-teacher point is none."""
    ordered = [sorted((p for p in points if p["share"] < 0.99), key=lambda p: float(p["share"])) for points in curves]
    grid = np.linspace(0, min(points[-1]["share"] for points in ordered), 61)
    lines = np.array([np.interp(grid, [p["share"] for p in some], [p[key] for p in some]) for some in ordered])
    axes.plot(100 * grid, lines.mean(0), **drawn)
    axes.fill_between(100 * grid, lines.min(0), lines.max(0), color=drawn["color"], alpha=0.1, linewidth=0)


def right_png(seeds: Sequence[Mapping[str, Any]], path: Path, what: str, most: float) -> None:
    """Parts that are right (`what`) against share, up to `most` per cent: wheels, what is left without a part of them,
    thresholds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    dashed = iter(("C1", "C4", "C5", "C9"))
    for way in seeds[0]["ways"]:
        points = [[{**p, "right": 100 * p["right"]} for p in seed["ways"][way]] for seed in seeds]
        _mean(
            axes, points, "right", color=COLOURS.get(way) or next(dashed), label=way,
            linewidth=2.2 if way == "wheels" else 1.2, linestyle="-" if way in COLOURS else "--",
        )  # fmt: skip
    axes.set(xlabel="tokens from the teacher, %", ylabel=what, xlim=(-0.5, most))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def shares_png(seeds: Sequence[Mapping[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 60], [0, 60], color="0.6", linewidth=0.8)
    for held, marker in ((False, "o"), (True, "x")):
        rows = [row for seed in seeds for row in seed["asked"] if row["held_out"] == held]
        axes.plot(
            [100 * row["requested"] for row in rows], [100 * row["realised"] for row in rows], marker, markersize=4,
            label="held-out phrasings" if held else "phrasings of training",
        )  # fmt: skip
    axes.set(xlabel="asked for, % of the tokens", ylabel="realised, %")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def clock_png(seed: Mapping[str, Any], path: Path) -> None:
    """chrF against processor time per token, one sentence at a time, of the ways that were timed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.0), layout="constrained")
    axes = figure.subplots()
    beside: Counter[float] = Counter()
    for row in seed["clock"]:
        name = row["way"]
        # No point was measured about this share, or sacrebleu is not installed.
        if row["chrf"] is None:
            continue
        colour = "C3" if name.startswith("wheels") else "C4" if name.startswith("speculative") else "0.3"
        axes.plot([row["cpu_ms_per_token"]], [row["chrf"]], "o", color=colour, markersize=5)
        # The teacher's quality is had in several ways: their names go below each other.
        axes.annotate(
            name, (row["cpu_ms_per_token"], row["chrf"]), fontsize=7, xytext=(4, 3 - 11 * beside[row["chrf"]]),
            textcoords="offset points",
        )  # fmt: skip
        beside[row["chrf"]] += 1
    axes.set(xlabel="processor time, ms per token", ylabel="chrF of the way, all test sentences")
    axes.grid(alpha=0.3)
    axes.margins(x=0.25)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
