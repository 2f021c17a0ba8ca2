"""What choosing among teachers buys: `python -m benchmarks.several_teachers [--data DIR] [--seeds 3] [--steps N]`.

No public table at hand holds two teachers on the same requests, so second teachers are made up here, and each cell
says how. `specialists` is wholly made up. The others stand on recorded answers of the judged table (a student, one
teacher, and their bills), to which is added

  specialist   a teacher that answers as the recorded one on half of the groups, chosen by chance, at a fifth of its
               bill, and as the student on the others at twice its bill: choosing can win
  twin         a teacher whose answers are the recorded one's, dealt out anew within each group, at half its bill:
               nobody can foresee which of the two is better on a request, so by calls choosing can only lose

Measured on the test split, beside the same policy with one teacher alone (the best one in hindsight), and beside
policies trained for one teacher each. With --data the table is read from there; without, `specialists` alone is run.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import tables_in
from policies.outcomes import Outcome, read_outcomes
from training.evaluate_several import LEARNED
from training.learner import PathConsistencyConfig
from training.train_policy import train_policy

JUDGED = "judged-llama31-8b-gemini25pro.parquet"
Rows = list[dict[str, Any]]


def _long(rows: list[Outcome], second: Callable[[Outcome], tuple[float, float]]) -> Rows:
    """Long rows with the recorded models and a second teacher, whose quality and bill are said per row."""
    found: Rows = []
    for row in rows:
        if row.student_quality is None or row.teacher_quality is None:
            continue
        same = {"id": row.id, "prompt": row.prompt, "group": row.group, "split": row.split}
        student = {"model": "student", "role": "student", "quality": row.student_quality, "cost": row.student_cost}
        first = {"model": "recorded", "role": "teacher", "quality": row.teacher_quality, "cost": row.teacher_cost}
        quality, cost = second(row)
        made_up = {"model": "made up", "role": "teacher", "quality": quality, "cost": cost}
        found += [{**same, **student}, {**same, **first}, {**same, **made_up}]
    return found


def specialist(rows: list[Outcome], seed: int) -> Rows:
    groups = sorted({row.group or "" for row in rows})
    chosen = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[: len(groups) // 2]}

    def second(row: Outcome) -> tuple[float, float]:
        if (row.group or "") in chosen:
            return row.teacher_quality or 0.0, (row.teacher_cost or 0.0) / 5
        return row.student_quality or 0.0, (row.student_cost or 0.0) * 2

    return _long(rows, second)


def twin(rows: list[Outcome], seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    dealt: dict[str, float] = {}
    for group in sorted({row.group or "" for row in rows}):
        of_group = [row for row in rows if (row.group or "") == group and row.teacher_quality is not None]
        qualities = [row.teacher_quality or 0.0 for row in of_group]
        dealt |= {row.id: qualities[i] for row, i in zip(of_group, rng.permutation(len(of_group)), strict=True)}
    return _long(rows, lambda row: (dealt.get(row.id, 0.0), (row.teacher_cost or 0.0) / 2))


def specialists(seed: int, count: int = 2000) -> Rows:
    """Three kinds of question; the student is good at one, each teacher at another, and all overlap."""
    rng = np.random.default_rng(seed)
    texts = {
        "code": "Write a function that returns the list `x{}` sorted, without using sorted().",
        "history": "In which year did the war of the {}th dynasty end, and who signed the treaty?",
        "sums": "Add {} and 17, then multiply the result by 3. What do you get?",
    }
    right = {
        "student": {"code": 0.3, "history": 0.3, "sums": 0.8},
        "recorded": {"code": 0.6, "history": 0.85, "sums": 0.85},
        "made up": {"code": 0.8, "history": 0.5, "sums": 0.8},
    }
    bills = {"student": 0.00002, "recorded": 0.02, "made up": 0.004}
    found: Rows = []
    for i in range(count):
        kind = sorted(texts)[int(rng.integers(3))]
        same = {"id": str(i), "prompt": texts[kind].format(i), "group": kind}
        same["split"] = "train" if i % 10 < 6 else "val" if i % 10 < 7 else "test"
        for model, chances in right.items():
            quality, cost = float(rng.random() < chances[kind]), bills[model] * float(rng.uniform(0.5, 2.0))
            role = "student" if model == "student" else "teacher"
            found.append({**same, "model": model, "role": role, "quality": quality, "cost": cost})
    return found


def measure(rows: Rows, seed: int, steps: int | None, *, with_alone: bool) -> dict[str, Any]:
    """The report of a policy that chooses, and of policies for one teacher each, over the same gap."""
    config = PathConsistencyConfig(seed=seed) if steps is None else PathConsistencyConfig(seed=seed, steps=steps)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        report = _trained(directory, "several", rows, config)
        gap = report["teacher_quality"] - report["student_quality"]
        alone = {}
        for teacher in report["teachers"] if with_alone else ():
            own = [row for row in rows if row["model"] in ("student", teacher)]
            single = _trained(directory, teacher.replace(" ", "-"), own, config)
            gained = (single["teacher_quality"] - single["student_quality"]) * (single["apgr"] or 0.0)
            alone[teacher] = round(gained / gap, 4) if single["apgr"] is not None else None
    kept = ("rows", "student_quality", "teacher_quality", "best_teacher", "teachers", "by_calls", "by_usd")
    return {**{name: report[name] for name in kept if name in report}, "trained_alone": alone}


def _trained(directory: Path, name: str, rows: Rows, config: PathConsistencyConfig) -> dict[str, Any]:
    path = directory / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return train_policy([path], directory / name, config, signals="prompt", created="benchmark")


def markdown(results: dict[str, list[dict[str, Any]]]) -> str:
    """Gap to the best teacher recovered in the mean of all budgets; means of the seeds, the interval of seed 0."""
    lines = [
        "| cell | budget | choosing | best single teacher | choosing adds (95%, seed 0) | trained for it alone |",
        "|---|---|---|---|---|---|",
    ]
    for cell, runs in results.items():
        for budget in ("calls", "USD"):
            compared = [run["by_calls"] if budget == "calls" else run["by_usd"]["compared"] for run in runs]
            names = [name for name in compared[0] if name != LEARNED]
            best = max(names, key=lambda name: float(np.mean([each[name]["apgr"] for each in compared])))
            learned = [each[LEARNED]["apgr"] for each in compared]
            single = [each[best]["apgr"] for each in compared]
            more = np.mean([each[best]["learned_more"] for each in compared])
            low, high = compared[0][best]["learned_more_ci95"]
            alone = [run["trained_alone"].get(best) for run in runs]
            shown = f"{np.mean(alone):.3f}" if budget == "calls" and None not in alone else "-"
            lines.append(
                f"| {cell} | {budget} | {np.mean(learned):.3f} | {best} {np.mean(single):.3f} |"
                f" {more:+.3f} [{low:+.3f}, {high:+.3f}] | {shown} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with the judged table")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cell", action="append", help="repeatable [all]")
    parser.add_argument(
        "--alone", action=argparse.BooleanOptionalAction, default=True, help="train for each alone, too"
    )
    parser.add_argument("--steps", type=int, help="of training [1200]")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/several_teachers.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells: dict[str, Callable[[int], Rows]] = {"specialists (made up)": specialists}
    if given.data is not None:
        recorded = read_outcomes(tables_in(given.data) / JUDGED)
        cells |= {
            "judged + specialist": lambda seed: specialist(recorded, seed),
            "judged + twin": lambda seed: twin(recorded, seed),
        }
    results: dict[str, list[dict[str, Any]]] = {}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for cell, make in cells.items():
        if given.cell and cell not in given.cell:
            continue
        results[cell] = []
        for seed in range(given.seeds):
            results[cell].append(measure(make(seed), seed, given.steps, with_alone=given.alone))
            print(f"{cell}, seed {seed}: {json.dumps(results[cell][-1]['by_calls'])}", flush=True)
            given.out.write_text(json.dumps(results, indent=2) + "\n")
    given.out.with_suffix(".md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
