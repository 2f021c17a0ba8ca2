"""What benchmarks have in common whose answers, or words, are right or are not: the rivals of wheels on the same
student, tables of the parts that are right, and the command."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.distill.tables import cell
from benchmarks.wheels.figures import right_png
from benchmarks.wheels.measuring import Bench, at_share, quantiles, texts_of
from benchmarks.wheels.options import parser_of
from training.distill.report import versions, write_json
from training.distill.wheels.mixing import Mixed, at_random, by_entropy, by_largest_probability

Point = dict[str, float]
Measure = Callable[[Bench, Sequence[Mixed]], Point]
"""A point's `share` and the parts that are `right`, 0 to 1."""


def rivals(
    bench: Bench, measure: Measure, ends: Sequence[Point], shares: Sequence[float], chances: Sequence[float]
) -> dict[str, list[Point]]:
    """Way to ask -> points: thresholds that `shares` of the states exceed, and chance. `ends`: nobody and always."""
    found: dict[str, list[Point]] = {}
    for name, asker, sign in (("largest probability", by_largest_probability, -1.0), ("entropy", by_entropy, 1.0)):
        at = quantiles(bench, shares, name)
        found[name] = [measure(bench, texts_of(bench, bench.test, asker(sign * t))) for t in at] + list(ends)
    draws = [torch.Generator().manual_seed(0) for _ in chances]
    found["random"] = [
        measure(bench, texts_of(bench, bench.test, at_random(share, draw)))
        for share, draw in zip(chances, draws, strict=True)
    ] + list(ends)
    return found


def values(seeds: Sequence[dict[str, Any]], way: str, share: float, key: str = "right") -> list[float | None]:
    """In per cent, by seed, on straight lines between points."""
    found = [at_share(seed["ways"][way], share, key) for seed in seeds]
    return [None if one is None else 100 * one for one in found]


def table(seeds: Sequence[dict[str, Any]], shares: Sequence[float], what: str) -> list[str]:
    """Lines: `what` of every way at each share, and how far the first way lies above the others."""
    head = " | ".join(f"{share:.0%}" for share in shares)
    lines = [f"| {what} | no help | {head} |", "|---" * (len(shares) + 2) + "|"]
    first, *others = seeds[0]["ways"]
    for way in (first, *others):
        lines.append(f"| {way} | {' | '.join(cell(values(seeds, way, share), 1) for share in (0.0, *shares))} |")
    for way in others:
        cells = []
        for share in shares:
            both = zip(values(seeds, first, share), values(seeds, way, share), strict=True)
            cells.append(cell([None if a is None or b is None else a - b for a, b in both], 1))
        lines.append(f"| {first}, above {way}, by seed | | {' | '.join(cells)} |")
    return lines


def command(
    doc: str | None,
    name: str,
    of_seed: Callable[[Namespace, Path, int], dict[str, Any]],
    summary: Callable[[Sequence[dict[str, Any]]], str],
    what: str,
    most: float,
) -> None:
    """The command of such a benchmark: one seed after the other (`--quick`: one), after each the table, the picture
    (`what` against the share, up to `most` per cent) and the results under `--out`; in the end the table is printed.
    `of_seed`: options, where to work, seed -> what `summary` reads."""
    parser = parser_of(doc)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = arguments.out / (f"quick-{name}" if arguments.quick else name)
    work.mkdir(parents=True, exist_ok=True)
    seeds = []
    for seed in range(1 if arguments.quick else arguments.seeds):
        print(f"{time.strftime('%H:%M:%S')} seed {seed}", file=sys.stderr, flush=True)
        seeds.append(of_seed(arguments, work, seed))
        (work / f"{name}.md").write_text(summary(seeds) + "\n")
        right_png(seeds, work / f"{name}.png", what, most)
        write_json(work / f"{name}.json", {"versions": versions(), "seeds": seeds})
    print(summary(seeds))
