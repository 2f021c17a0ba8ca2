"""Quality against the share of teacher tokens; requested against realised share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.wheels.curves import THRESHOLD

COLOURS = {
    "wheels": "C3", THRESHOLD: "C0", "entropy": "C2", "random": "C7", "disagreement": "0.3",
}  # fmt: skip


def quality_png(
    seeds: Sequence[Mapping[str, Any]], others: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """A line for each seed of each way to ask; `others`, students without help, are marks at 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("chrf", "bleu"), strict=True):
        for index, seed in enumerate(seeds):
            for arm, points in seed["curves"].items():
                ordered = sorted(points, key=lambda point: point["share"])
                axes.plot(
                    [100 * point["share"] for point in ordered], [point[key] for point in ordered],
                    marker="o", markersize=3, linewidth=1, color=COLOURS.get(arm, "C5"),
                    linestyle=":" if arm == "disagreement" else "-", label=arm if index == 0 else None,
                )  # fmt: skip
        for arm, runs in others.items():
            for index, run in enumerate(run for run in runs if THRESHOLD in run["curves"]):
                ordered = sorted(run["curves"][THRESHOLD], key=lambda point: point["share"])
                axes.plot(
                    [100 * point["share"] for point in ordered], [point[key] for point in ordered], linewidth=1,
                    color="C1", linestyle="--", label=f"{arm}, helped by {THRESHOLD}" if index == 0 else None,
                )  # fmt: skip
        # An ablation's own student without help says nothing here.
        alone = {arm: runs for arm, runs in others.items() if "wheels" not in runs[0]["curves"]}
        for (arm, runs), marker in zip(alone.items(), "xsd^v*P", strict=False):
            axes.plot(
                [0] * len(runs), [run["student"][key] for run in runs], marker, markersize=5, color="0.2",
                fillstyle="none", label=arm,
            )  # fmt: skip
        for seed in seeds:
            axes.axhline(seed["teacher"][key], color="0.6", linewidth=0.8, linestyle="--")
        axes.set(xlabel="tokens from the teacher, %", ylabel={"chrf": "chrF", "bleu": "BLEU"}[key], xlim=(-1, 62))
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
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
