"""How the shares found their levels, round by round."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def rounds_png(history: Sequence[Mapping[str, Any]], levels: Sequence[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [one["round"] for one in history]
    for index, level in enumerate(levels):
        colour = f"C{index % 10}"
        points = [
            (n, one["share"][index]) for n, one in zip(numbers, history, strict=True) if one["share"][index] is not None
        ]
        left.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1)
        left.axhline(level, color=colour, linewidth=0.6, linestyle=":")
        right.plot(numbers, [one["price"][index] for one in history], color=colour, linewidth=1, label=f"{level:.0%}")
    left.set(xlabel="round", ylabel="share of teacher tokens (dotted: asked for)")
    right.set(xlabel="round", ylabel="price of a token, nats")
    right.legend(fontsize=7, ncols=2)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
