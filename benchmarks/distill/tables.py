"""Results of arms as Markdown: mean over seeds, each seed, and a 95% interval of the mean where there are several."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """By Student's t."""
    count = len(values)
    if count < 2:
        return None
    half = float(stdtrit(count - 1, 0.975)) * stdev(values) / math.sqrt(count)
    return fmean(values) - half, fmean(values) + half


def cell(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    found = interval(known)
    return f"{fmean(known):.{digits}f}" + ("" if found is None else f" [{found[0]:.{digits}f}, {found[1]:.{digits}f}]")


def table(results: Mapping[str, Sequence[Mapping[str, Any]]], columns: Mapping[str, tuple[str, int]]) -> str:
    """arm -> results of its seeds; column title -> (dotted path in a result, digits)."""
    lines = [f"| arm | seeds | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for arm, found in results.items():
        cells = [cell([at(result, path) for result in found], digits) for path, digits in columns.values()]
        lines.append(f"| {arm} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def paired(
    results: Mapping[str, Sequence[Mapping[str, Any]]], columns: Mapping[str, tuple[str, int]], baseline: str
) -> str:
    """What each arm differs from `baseline` by, seed by seed; NLL also as perplexity in percent."""
    base = results[baseline]
    lines = [
        f"| against {baseline} | seeds | {' | '.join(columns)} | perplexity, % |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    for arm, found in results.items():
        pairs = list(zip(found, base, strict=False))
        if arm == baseline or len(found) > len(base):
            continue
        cells = []
        for path, digits in columns.values():
            both = [(at(a, path), at(b, path)) for a, b in pairs]
            cells.append(cell([None if a is None or b is None else a - b for a, b in both], digits))
        nll = [(at(a, "held.nll"), at(b, "held.nll")) for a, b in pairs]
        cells.append(cell([None if a is None or b is None else 100 * math.expm1(a - b) for a, b in nll], 1))
        lines.append(f"| {arm} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def at(result: Mapping[str, Any], path: str) -> float | None:
    value: Any = result
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
