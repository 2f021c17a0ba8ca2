"""The results of `benchmarks.routing` as Markdown tables and as plots."""

import io
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.routing_cells import BUDGETS
from training.metrics import SHARES

Result = Mapping[str, Any]
SHOWN_RIVALS = ("random", "length", "logistic", "factorisation", "ridge", "knn", "cascade", "gbdt", "forest", "oracle")


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _average(results: Sequence[Result], key: str) -> float:
    return float(mean(result[key] for result in results))


def _averages(results: Sequence[Result], key: str) -> list[float]:
    return [mean(values) for values in zip(*(result[key] for result in results), strict=True)]


def _quality(found: Mapping[str, Any]) -> str:
    rows, rivals = [], []
    for cell, result in found.items():
        seeds = result["seeds"]
        rows.append(
            [
                cell,
                f"{_average(seeds, 'apgr'):.3f} ({' '.join(shown(seed['apgr']) for seed in seeds)})",
                _ends(seeds),
                " ".join(f"{value:.2f}" for value in _averages(seeds, "pgr")),
                " ".join(f"{value:.2f}" for value in _averages(seeds, "acted_pgr")),
                " ".join(f"{value:.2f}" for value in _averages(seeds, "acted_share")),
                f"{_average(seeds, 'cpu_s'):.0f}",
            ]
        )
        others = [result["rivals"].get(name, {}) for name in SHOWN_RIVALS]
        rivals.append([cell, f"{_average(seeds, 'apgr'):.3f}", *(shown(other.get("apgr")) for other in others)])
    head = [
        "cell",
        "APGR, mean (seeds)",
        "95%",
        "PGR at .05 .1 .2 .3 .5",
        "acting alone",
        "its share",
        "CPU s",
    ]
    return table(head, rows) + "\n\n" + table(["cell", "wheels", *SHOWN_RIVALS], rivals)


def _ends(results: Sequence[Result]) -> str:
    """The mean over seeds of the ends of APGR's interval: what other test rows could have given."""
    ends = [result["apgr_ci95"] for result in results if result["apgr_ci95"] is not None]
    return f"{mean(low for low, _ in ends):.2f}-{mean(high for _, high in ends):.2f}" if ends else "-"


def _mean_interval(results: Sequence[Result], key: str) -> str:
    """The mean over seeds of the ends of their intervals."""
    ends = [result[key] for result in results if result[key] is not None]
    return f"[{mean(low for low, _ in ends):+.3f}, {mean(high for _, high in ends):+.3f}]" if ends else "-"


def _two_steps(found: Mapping[str, Any]) -> str:
    rows = []
    for cell, costs in found.items():
        for cost, results in costs.items():
            area = {kind: mean(result["area"][kind] for result in results) for kind in ("both", "route", "defer")}
            won = f"{_average(results, 'won'):+.3f} {_mean_interval(results, 'won_ci95')}"
            seeds = " ".join(f"{result['won']:+.3f}" for result in results)
            rows.append([cell, cost, *(f"{area[kind]:.3f}" for kind in ("route", "defer", "both")), won, seeds])
    return table(["cell", "a draft costs", "route alone", "defer alone", "both", "over the better one", "seeds"], rows)


def _budgets(found: Mapping[str, Any]) -> str:
    rows = []
    for cell, results in found.items():
        for label, key in (("one for all", "one"), ("one for each", "many"), ("lost", "lost")):
            values = _averages(results, key)
            overall = mean(values)
            signed = "+" if key == "lost" else ""
            last = f"{overall:{signed}.3f}"
            if key == "lost":
                last += f" {_mean_interval(results, 'mean_lost_ci95')}"
            rows.append([cell if key == "one" else "", label, *(f"{value:{signed}.3f}" for value in values), last])
    return table(["cell", "policies", *(f"{share:.0%}" for share in BUDGETS), "mean"], rows)


def _transfer(found: Mapping[str, Any], quality: Mapping[str, Any] | None) -> str:
    rows = []
    for cell, results in found.items():
        here = (quality or {}).get(cell)
        rows.append(
            [
                cell,
                str(results[0]["rows_known"]),
                _with_seeds(results),
                _ends(results),
                shown(here and _average(here["seeds"], "apgr")),
                shown(here and here["rivals"]["random"]["apgr"]),
            ]
        )
    return table(["cell", "rows of other tables", "learned elsewhere", "95%", "learned here", "random"], rows)


def _rows(found: Mapping[str, Any]) -> str:
    rows = [
        [cell, str(results[0]["count"]), _with_seeds(results), _ends(results)]
        for cell, counts in found.items()
        for results in counts.values()
    ]
    return table(["cell", "rows", "APGR", "95%"], rows)


def _folds(found: Mapping[str, Any]) -> str:
    names = [name for name in next(iter(found.values()))[0]["found"] if not name.startswith("member: ")]
    rows = []
    for cell, results in found.items():
        each = [result["found"] for result in results]
        members = [name for name in each[0] if name.startswith("member: ")]
        best = max(members, key=lambda name: mean(one[name] for one in each))
        cells = [shown(mean(one[name] for one in each)) for name in names]
        rows.append([cell, *cells, f"{shown(mean(one[best] for one in each))} ({best.removeprefix('member: ')})"])
    return table(["cell", *names, "best member, in hindsight"], rows)


def _ablations(found: Mapping[str, Any]) -> str:
    rows = []
    for cell, variants in found.items():
        for variant, results in variants.items():
            if variant == "regression":
                for kind in ("linear", "network"):
                    parts = [result[kind] for result in results]
                    pgrs = " ".join(f"{value:.2f}" for value in _averages(parts, "pgr"))
                    rows.append([cell, f"regression of the gain, {kind}", _with_seeds(parts), pgrs, "-"])
                continue
            pgrs = " ".join(f"{value:.2f}" for value in _averages(results, "pgr"))
            acted = " ".join(f"{value:.2f}" for value in _averages(results, "acted_pgr"))
            rows.append([cell, variant, _with_seeds(results), pgrs, acted])
    return table(["cell", "variant", "APGR (seeds)", "PGR at .05 .1 .2 .3 .5", "acting alone"], rows)


def _with_seeds(results: Sequence[Result]) -> str:
    seeds = " ".join(shown(result["apgr"]) for result in results)
    return f"{_average(results, 'apgr'):.3f}" + (f" ({seeds})" if len(results) > 1 else "")


def _two_step_ablations(found: Mapping[str, Any]) -> str:
    rows = [
        [
            cell,
            variant,
            f"{_average(results, 'area'):.3f}",
            f"{_average(results, 'whole_area'):.3f}",
            f"{_average(results, 'lost'):+.3f} {_mean_interval(results, 'lost_ci95')}",
            " ".join(f"{result['lost']:+.3f}" for result in results),
        ]
        for cell, variants in found.items()
        for variant, results in variants.items()
    ]
    return table(["cell", "variant", "area", "area as it is", "lost", "seeds"], rows)


def markdown(found: Mapping[str, Any]) -> str:
    """All experiments there are, a heading each."""
    parts = []
    for name, result in found.items():
        match name:
            case "quality":
                text = _quality(result)
            case "two-steps":
                text = _two_steps(result)
            case "budgets":
                text = _budgets(result)
            case "transfer":
                text = _transfer(result, found.get("quality"))
            case "rows":
                text = _rows(result)
            case "ablations":
                text = _ablations(result)
            case "folds":
                text = _folds(result)
            case _:
                text = _two_step_ablations(result)
        parts.append(f"## {name}\n\n{text}\n")
    return "\n".join(parts)


def _figure(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines), layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False).ravel()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=75, metadata={"Software": None})
    return buffer.getvalue()


def plots(found: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG bytes by name: quality against share, two steps, learning curve; those whose results are there."""
    pictures = {}
    if found.get("quality"):
        figure, axes = _figure(len(found["quality"]))
        for axis, (cell, result) in zip(axes, found["quality"].items(), strict=False):
            axis.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="random")
            for name, color in (("oracle", "C0"), ("gbdt", "C1"), ("ridge", "C2"), ("cascade", "C4")):
                if name in result["rivals"]:
                    axis.plot(SHARES, result["rivals"][name]["curve"], color=color, linewidth=1, label=name)
            axis.plot(SHARES, _averages(result["seeds"], "curve"), color="C3", linewidth=2, label="training wheels")
            axis.set_title(cell, fontsize=8)
            axis.set_xlabel("share of teacher calls")
            axis.set_ylabel("gap recovered")
            axis.set_ylim(-0.05, 1.3)
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=7, loc="lower right")
        pictures["quality"] = _png(figure)
    if found.get("two-steps"):
        panels = [
            (cell, cost, results) for cell, costs in found["two-steps"].items() for cost, results in costs.items()
        ]
        figure, axes = _figure(len(panels))
        for axis, (cell, cost, results) in zip(axes, panels, strict=False):
            for kind, color in (("route", "C0"), ("defer", "C1"), ("both", "C3")):
                curve = [mean(values) for values in zip(*(r["curves"][kind] for r in results), strict=True)]
                width = 2 if kind == "both" else 1
                axis.plot(results[0]["cost"], curve, color=color, linewidth=width, label=kind)
            axis.set_title(f"{cell}, a draft costs {cost}", fontsize=8)
            axis.set_xlabel("total cost in teacher calls")
            axis.set_ylabel("gap recovered")
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=7)
        pictures["two-steps"] = _png(figure)
    if found.get("rows"):
        figure, axes = _figure(1)
        for cell, counts in found["rows"].items():
            points = [(results[0]["count"], _average(results, "apgr")) for results in counts.values()]
            axes[0].plot([x for x, _ in points], [y for _, y in points], marker="o", label=cell)
        axes[0].set_xscale("log")
        axes[0].set_xlabel("rows learned from")
        axes[0].set_ylabel("APGR on the test split")
        axes[0].grid(alpha=0.3)
        axes[0].legend(fontsize=7)
        pictures["rows"] = _png(figure)
    return pictures
