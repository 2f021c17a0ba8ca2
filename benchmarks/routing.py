"""Routing quality on recorded outcomes: `python -m benchmarks.routing --data DIR [--cell NAME:SIGNALS] [--seeds N]`.

For every cell (table and signals) trains the policy with each seed, measures APGR on the test split with its bootstrap
interval beside the baselines on the same features, and prints one Markdown table. With `--ablations` also the variants
that should lose. Bring the same public tables (see docs/training.md), nothing is downloaded.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from policies.artifact import load_policy
from policies.outcomes import read_outcomes
from training.evaluation_run import evaluation_run
from training.learner import PathConsistencyConfig
from training.train_policy import train_policy

CELLS = (
    "gsm8k-mixtral-gpt4:draft",
    "gsm8k-mixtral-gpt4:prompt",
    "mmlu-pro-llama31-8b-70b:draft",
    "mmlu-pro-llama31-8b-70b:prompt",
    "mmlu-mixtral-gpt4:prompt",
    "judged-llama31-8b-gemini25pro:prompt",
)
RIVALS = ("random", "length", "logistic", "ridge", "knn", "gbdt", "mlp", "oracle")
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)


def measure(path: Path, signals: str, seed: int, *, rivals: bool, **settings: Any) -> dict[str, Any]:
    """One training and its report on the test split; the baselines with the same seed where asked."""
    from training.estimators import EstimatorConfig

    shuffle = settings.pop("shuffle_qualities", False)
    config = replace(PathConsistencyConfig(seed=seed, estimators=EstimatorConfig(seed=seed)), **settings)
    with TemporaryDirectory() as directory:
        out = Path(directory) / "policy"
        began = time.process_time()
        report = train_policy(
            [path], out, config, signals=signals, created="", shuffle_qualities=shuffle  # type: ignore[arg-type]
        )  # fmt: skip
        seconds = time.process_time() - began
        if rivals or shuffle:
            # With shuffled qualities the report was made on the true ones already; rivals need the table again.
            report, _ = evaluation_run(load_policy(out), read_outcomes(path), baselines=rivals, seed=seed)
    return {**report, "cpu_s": seconds}


def cell(data: Path, name: str, seeds: int) -> dict[str, Any]:
    table, signals = name.split(":")
    reports = [measure(data / f"{table}.parquet", signals, seed, rivals=seed == 0) for seed in range(seeds)]
    first = reports[0]
    return {
        "cell": name,
        "rows": first["rows"],
        "apgr": mean(report["apgr"] for report in reports),
        "seeds": [report["apgr"] for report in reports],
        "ci95": first["apgr_ci95"],
        "cpt50": first["cpt50"],
        "cpt80": first["cpt80"],
        "cpu_s": mean(report["cpu_s"] for report in reports),
        "curve": [point for point in first["curve"] if point["budget"] in BUDGETS],
        "rivals": {rival: first["baselines"].get(rival, {}).get("apgr") for rival in RIVALS},
    }


def ablations(data: Path, name: str) -> dict[str, float]:
    """Seed 0 of variants that should lose, and of the policy itself."""
    table, signals = name.split(":")
    variants: dict[str, dict[str, Any]] = {
        "as it is": {},
        "off-policy only": {"on_policy": 0.0, "relabel": 0.0},
        "on-policy only": {"on_policy": 1.0, "relabel": 0.0},
        "blend of estimators, no path consistency": {"steps": 0},
        "shuffled qualities": {"shuffle_qualities": True},
    }
    path = data / f"{table}.parquet"
    return {
        variant: measure(path, signals, 0, rivals=False, **settings)["apgr"] for variant, settings in variants.items()
    }


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--cell", action="append", help="TABLE:SIGNALS; repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything measured there")
    arguments = parser.parse_args()
    found = []
    print("| table, signals | wheels, mean of seeds | 95% (seed 0) | " + " | ".join(RIVALS) + " | CPU s |")
    print("|---|" + "---|" * (len(RIVALS) + 3))
    for name in arguments.cell or CELLS:
        row = cell(arguments.data, name, arguments.seeds)
        found.append(row)
        seeds = ", ".join(shown(value) for value in row["seeds"])
        interval = "-" if row["ci95"] is None else f"{row['ci95'][0]:.3f}-{row['ci95'][1]:.3f}"
        rivals = " | ".join(shown(row["rivals"][rival]) for rival in RIVALS)
        print(f"| {name} | {row['apgr']:.3f} ({seeds}) | {interval} | {rivals} | {row['cpu_s']:.0f} |", flush=True)
        if arguments.ablations:
            row["ablations"] = ablations(arguments.data, name)
            for variant, value in row["ablations"].items():
                print(f"    {variant}: {shown(value)}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
