"""Routing quality on recorded outcomes: `python -m benchmarks.routing --data DIR [--only EXPERIMENT] [--cell CELL]`.

For every cell (table and signals) the policy is trained with each seed and measured on the test split beside baselines
on the same features; then come the experiments of `routing_experiments`. Results are kept one by one beside --out, so
that an interrupted run goes on; at the end one JSON, one Markdown file and the plots are written. Bring the public
tables yourself (see docs/routing.md), nothing is downloaded. `make bench-routing DATA=...`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks import routing_experiments as experiments
from benchmarks.routing_cells import BUDGETS, CELLS, GSM8K, JUDGED, PRO, Bench
from benchmarks.routing_report import markdown, plots
from benchmarks.tables import tables_in

QUICK_CELLS = (f"{GSM8K}:draft", f"{JUDGED}:prompt")
EXPERIMENTS = ("quality", "two-steps", "budgets", "transfer", "rows", "ablations")
DRAFT_CELLS = (f"{GSM8K}:draft", f"{PRO}:draft")
FEW_CELLS = (f"{GSM8K}:draft", f"{JUDGED}:prompt", f"{PRO}:draft")
"""Cells of the experiments that compare variants of the policy with each other."""


def measure(bench: Bench, name: str, cells: tuple[str, ...], seeds: int, fewer: int) -> dict[str, Any]:
    """One experiment on the cells that it is made for: cell -> results; `fewer` seeds where variants are many."""
    few, every = [cell for cell in cells if cell in FEW_CELLS], range(seeds)
    match name:
        case "quality":
            return {
                cell: {
                    "seeds": [experiments.quality(bench, cell, seed) for seed in every],
                    "rivals": experiments.rivals(bench, cell),
                }
                for cell in cells
            }
        case "two-steps":
            return {
                cell: {
                    str(cost): [experiments.two_steps(bench, cell, seed, cost) for seed in range(fewer)]
                    for cost in experiments.DRAFT_COSTS
                }
                for cell in cells
                if cell in DRAFT_CELLS
            }
        case "budgets":
            return {
                cell: {
                    "one": [experiments.quality(bench, cell, seed) for seed in range(fewer)],
                    "many": {
                        str(share): [experiments.one_budget(bench, cell, seed, share) for seed in range(fewer)]
                        for share in BUDGETS
                    },
                }
                for cell in few
            }
        case "transfer":
            return {cell: [experiments.transfer(bench, cell, seed) for seed in range(fewer)] for cell in cells}
        case "rows":
            return {
                cell: {
                    str(count): [experiments.rows(bench, cell, seed, count) for seed in range(fewer)]
                    for count in experiments.ROWS
                }
                for cell in cells
                if cell == f"{PRO}:draft"
            }
        case _:
            return {
                cell: {
                    "as it is": [experiments.quality(bench, cell, seed) for seed in range(fewer)],
                    **{
                        variant: [experiments.ablation(bench, cell, seed, variant) for seed in range(fewer)]
                        for variant in experiments.ABLATIONS
                    },
                    "regression": [experiments.regression(bench, cell, seed) for seed in range(fewer)],
                    "shuffled qualities": [experiments.shuffled_qualities(bench, cell, seed) for seed in range(fewer)],
                }
                for cell in few
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="repeatable")
    parser.add_argument("--cell", action="append", choices=CELLS, metavar="TABLE:SIGNALS", help="repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fewer-seeds", type=int, default=1, help="seeds of the experiments with many variants")
    parser.add_argument("--quick", action="store_true", help="two small cells, one seed, 200 steps")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/routing.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = tuple(given.cell or (QUICK_CELLS if given.quick else CELLS))
    seeds, fewer, steps = (1, 1, 200) if given.quick else (given.seeds, given.fewer_seeds, 1200)
    bench = Bench(tables_in(given.data), given.out.with_suffix(""), steps, say=lambda line: print(line, flush=True))
    found = {name: measure(bench, name, cells, seeds, fewer) for name in given.only or EXPERIMENTS}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found) + "\n")
    text = markdown(found)
    given.out.with_suffix(".md").write_text(text)
    for name, picture in plots(found).items():
        given.out.with_name(f"{given.out.stem}-{name}.png").write_bytes(picture)
    print(text)


if __name__ == "__main__":
    main()
