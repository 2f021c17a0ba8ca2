"""Routing quality on recorded outcomes: `python -m benchmarks.routing --data DIR [--only EXPERIMENT] [--cell CELL]`.

For every cell (table and signals) the policy is trained with each seed and measured on the test split beside baselines
on the same features; then come the experiments of `routing_experiments`. Results are kept one by one beside --out, so
that an interrupted run goes on; at the end one JSON, one Markdown file and the plots are written. Bring the public
tables yourself (see docs/routing.md), nothing is downloaded. `make bench-routing DATA=...`.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import routing_experiments as experiments
from benchmarks.routing_cells import CELLS, GSM8K, JUDGED, PRO, Bench, Result
from benchmarks.routing_folds import folds
from benchmarks.routing_report import markdown, plots
from benchmarks.tables import tables_in

QUICK_CELLS = (f"{GSM8K}:draft", f"{JUDGED}:prompt")
EXPERIMENTS = ("quality", "two-steps", "budgets", "transfer", "rows", "ablations", "two-step-ablations", "folds")
QUICK_EXPERIMENTS = ("quality", "two-steps", "budgets", "ablations", "two-step-ablations")
"""Transfer reads the large tables too."""
DRAFT_CELLS = (f"{GSM8K}:draft", f"{PRO}:draft")
FEW_CELLS = (f"{GSM8K}:draft", f"{JUDGED}:prompt", f"{PRO}:draft")
"""Cells of the experiments that compare variants of the policy with each other."""
FOLD_CELLS = (f"{GSM8K}:prompt", f"{JUDGED}:prompt")
"""Small tables, of which the test rows tell least."""


def measure(bench: Bench, name: str, cells: tuple[str, ...], seeds: int, fewer: int) -> dict[str, Any]:
    """One experiment on the cells that it is made for: cell -> results.

    Where variants are many, the large tables get `fewer` seeds.
    """

    def some(cell: str) -> range:
        return range(seeds if cell.startswith((GSM8K, JUDGED)) else fewer)

    few = [cell for cell in cells if cell in FEW_CELLS]
    drafts = [cell for cell in cells if cell in DRAFT_CELLS]
    match name:
        case "quality":
            return {
                cell: {
                    "seeds": [experiments.quality(bench, cell, seed) for seed in range(seeds)],
                    "rivals": experiments.rivals(bench, cell),
                }
                for cell in cells
            }
        case "two-steps":
            return {
                cell: _by_variant(cell, experiments.DRAFT_COSTS, range(seeds), partial(experiments.two_steps, bench))
                for cell in drafts
            }
        case "budgets":
            return {cell: [experiments.one_against_many(bench, cell, seed) for seed in some(cell)] for cell in few}
        case "transfer":
            return {cell: [experiments.transfer(bench, cell, seed) for seed in some(cell)] for cell in cells}
        case "folds":
            return {cell: [folds(bench, cell, seed) for seed in range(seeds)] for cell in cells if cell in FOLD_CELLS}
        case "rows":
            return {
                cell: {
                    str(count): [experiments.rows(bench, cell, seed, count) for seed in some(cell)]
                    for count in experiments.ROWS
                }
                for cell in cells
                if cell == f"{PRO}:draft"
            }
        case "ablations":
            variants = (*experiments.ABLATIONS, *experiments.BARE)
            return {
                cell: {
                    "as it is": [experiments.quality(bench, cell, seed) for seed in some(cell)],
                    **_by_variant(cell, variants, some(cell), partial(experiments.ablation, bench)),
                    "regression": [experiments.regression(bench, cell, seed) for seed in some(cell)],
                    "shuffled qualities": [experiments.shuffled_qualities(bench, cell, seed) for seed in some(cell)],
                }
                for cell in few
            }
        case _:
            variants = (*experiments.ABLATIONS, "nothing taken back")
            return {
                cell: _by_variant(cell, variants, some(cell), partial(experiments.two_step_ablation, bench))
                for cell in drafts
            }


def _by_variant(
    cell: str, variants: tuple[Any, ...], seeds: range, make: Callable[[str, int, Any], Result]
) -> dict[str, list[Result]]:
    """Seed by seed, since policies of the last cell and seed stay in memory."""
    found: dict[str, list[Result]] = {str(variant): [] for variant in variants}
    for seed in seeds:
        for variant in variants:
            found[str(variant)].append(make(cell, seed, variant))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="repeatable")
    parser.add_argument("--cell", action="append", choices=CELLS, metavar="TABLE:SIGNALS", help="repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fewer-seeds", type=int, default=3, help="seeds of variants on large tables")
    parser.add_argument("--quick", action="store_true", help="two small cells, one seed, 200 steps, no transfer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/routing.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = tuple(given.cell or (QUICK_CELLS if given.quick else CELLS))
    seeds, fewer, steps = (1, 1, 200) if given.quick else (given.seeds, given.fewer_seeds, 1200)
    bench = Bench(tables_in(given.data), given.out.with_suffix(""), steps, say=lambda line: print(line, flush=True))
    names = given.only or (QUICK_EXPERIMENTS if given.quick else EXPERIMENTS)
    found = {name: measure(bench, name, cells, seeds, fewer) for name in names}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found) + "\n")
    text = markdown(found)
    given.out.with_suffix(".md").write_text(text)
    for name, picture in plots(found).items():
        given.out.with_name(f"{given.out.stem}-{name}.png").write_bytes(picture)
    print(text)


if __name__ == "__main__":
    main()
