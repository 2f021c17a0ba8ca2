"""Pictures of a report, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policies.prompt_features import Floats


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # No date or version inside, so that the same report gives the same bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _axes(width: float = 6.4, height: float = 4.4) -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def quality_curve(report: dict[str, Any], others: Mapping[str, Sequence[tuple[float, float]]] | None = None) -> bytes:
    """Quality against call share, with random between student and teacher; `others`: name -> (share, quality)."""
    figure, axes = _axes()
    student, teacher = report["student_quality"], report["teacher_quality"]
    axes.plot([0, 1], [student, teacher], linestyle="--", color="grey", label="random")
    for name, points in (others or {}).items():
        axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1, alpha=0.8, label=name)
    points = [(0.0, student), *((p["share"], p["quality"]) for p in report["curve"])]
    label = "training wheels" if report.get("apgr") is None else f"training wheels, APGR {report['apgr']:.3f}"
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, color="C3", label=label)
    sure = [p for p in report["curve"] if p.get("quality_ci95") is not None]
    if sure:
        low, high = np.array([p["quality_ci95"] for p in sure]).T
        axes.fill_between([p["share"] for p in sure], low, high, color="C3", alpha=0.12, linewidth=0, label="its 95%")
    axes.set_xlabel("share of requests that ask the teacher")
    axes.set_ylabel("mean quality")
    axes.legend(loc="lower right", fontsize=8)
    return _png(figure)


def training_curves(curves: Sequence[dict[str, float]]) -> bytes:
    """Path-consistency loss in training and on the validation split, and the critic's."""
    figure, axes = _axes()
    for key, label in (("loss", "training"), ("val_loss", "validation"), ("critic", "cost critic")):
        points = [(row["step"], row[key]) for row in curves if key in row]
        if points:
            thin = key != "val_loss"
            axes.plot([x for x, _ in points], [y for _, y in points], linewidth=0.8 if thin else 2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("mean of C² / 2")
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    return _png(figure)


def calibration(expected: Floats, gain: Floats, bins: int = 10) -> bytes:
    """Expected gain of asking against the gain seen, in `bins` parts of equal size."""
    figure, axes = _axes(4.6, 4.4)
    order = np.array_split(np.argsort(expected, kind="stable"), bins)
    points = [(float(expected[part].mean()), float(gain[part].mean())) for part in order if len(part)]
    low, high = min(min(point) for point in points), max(max(point) for point in points)
    axes.plot([low, high], [low, high], linestyle="--", color="grey")
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color="C3")
    axes.set_xlabel("expected gain")
    axes.set_ylabel("gain seen")
    return _png(figure)


def regret(report: dict[str, Any]) -> bytes:
    """What the policy's own thresholds get under a cap, against the best threshold in hindsight, at each budget."""
    figure, axes = _axes()
    points = report["curve"]
    budgets = [point["budget"] for point in points]
    capped = np.array([point["capped_quality"] for point in points])
    lost = np.array([point["regret"] for point in points])
    ends = [report["student_quality"], report["teacher_quality"]]
    axes.plot([0, 1], ends, linestyle="--", color="grey", label="random")
    axes.plot(budgets, capped + lost, marker="o", markersize=3, color="C0", label="the best threshold in hindsight")
    axes.plot(budgets, capped, marker="o", markersize=3, color="C3", label="its own thresholds under a cap, not paced")
    worst = int(lost.argmax())
    axes.fill_between(
        budgets, capped, capped + lost, color="C3", alpha=0.2,
        label=f"regret: {lost.mean():.3f} on average, {lost[worst]:.3f} at a budget of {budgets[worst]:.0%}",
    )  # fmt: skip
    axes.set_xlabel("budget, as a share of requests")
    axes.set_ylabel("mean quality")
    axes.legend(loc="lower right", fontsize=8)
    return _png(figure)


def what_if_curve(report: dict[str, Any]) -> bytes:
    """Quality against share with 95% intervals: other shares, what was asked about, what was done."""
    figure, axes = _axes()
    references = report["references"]
    if references:
        ends = [references["student_only"]["quality"], references["teacher_only"]["quality"]]
        axes.plot([0, 1], ends, linestyle="--", color="grey", label="random (student only to teacher only)")

    def points(of: Sequence[dict[str, Any]], label: str, **style: Any) -> None:
        of = [point for point in of if point["quality"] is not None and point["quality_ci95"] is not None]
        if not of:
            return
        quality = np.array([point["quality"] for point in of])
        low, high = np.array([point["quality_ci95"] for point in of]).T
        bars = np.maximum([quality - low, high - quality], 0.0)
        axes.errorbar([point["share"] for point in of], quality, yerr=bars, capsize=3, label=label, **style)

    points(report["curve"], "the same policy at other shares", color="C0", marker="o", markersize=3)
    points([report["logged"]], "as it was", color="black", marker="s")
    points([report], "what if", color="C3", marker="D")
    axes.set_xlabel("share of requests that ask the teacher")
    axes.set_ylabel("mean quality")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=8)
    return _png(figure)
