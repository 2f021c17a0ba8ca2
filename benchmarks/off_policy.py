"""Can a log tell what another budget would have done? `python -m benchmarks.off_policy --data DIR [--quick]`

Outcome tables know both answers, so the truth is known. Each of 200 simulated logs holds 2,000 requests drawn from a
table, decided by a policy under pacing at 20% with a tenth explored, and written as the gateway writes them. From each
log `what_if` estimates the quality of the same policy at five budgets and of another policy, with all qualities known
and with half of them unknown (of the teacher's answers a third, of the student's more than half).

Coverage counts how often a 95% interval holds the truth for such traffic: the mean, over all logs, of what the
candidate would really have got. Exit 1 where a coverage lies outside 90..99%, or a bias is more than a
fifth of the interval's half width.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.tables import tables_in
from policies.outcomes import read_outcomes
from policies.prompt_features import Floats, Ints
from router.budget import Budget, Limit
from router.ledger import Subject
from router.pacing import decide
from router.record import DecisionRecord, Reason, StepRecord
from training.candidates import Candidate, as_logged
from training.dataset import Table, build_table
from training.decision_rows import join
from training.recorded_traffic import record_traffic
from training.replay_paths import Paths, replay
from training.replayed_budget import Replay
from training.what_if import gather_for, value

TABLES = (
    "gsm8k-mixtral-gpt4",
    "mmlu-mixtral-gpt4",
    "mmlu-pro-llama31-8b-70b",
    "judged-llama31-8b-gemini25pro",
)
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
LOGGED_SHARE, EXPLORE = 0.2, 0.1
LOGS, REQUESTS = 200, 2000
START = 1_780_000_000.0
ESTIMATORS = ("ips", "snips", "dr")


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A table with the scores of two policies: what simulated traffic is drawn from. All (N,)."""

    student: Floats
    teacher: Floats
    usd: Floats
    gain: Floats
    """Expected gain: the policy that is logged ranks by it."""
    expected_student: Floats
    rival: Floats
    """Scores of another policy."""


def world(path: Path) -> World:
    """Expectations by ridge regression over the table's own features, out of fold; the rival knows the length only."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = [
        row for row in read_outcomes(path) if row.student_quality is not None and row.teacher_quality is not None
    ]  # fmt: skip
    signals = "draft" if all(row.student_response is not None for row in rows) else "prompt"
    table: Table = build_table(rows, signals)  # type: ignore[arg-type]
    features = table.prompt if table.draft is None else np.column_stack([table.prompt, table.draft])
    model = make_pipeline(StandardScaler(), Ridge(100.0))
    gain = cross_val_predict(model, features, table.teacher - table.student, cv=5)
    student = cross_val_predict(model, features, table.student, cv=5)
    lengths = np.array([float(len(row.prompt)) for row in rows])
    usd = np.where(np.isnan(table.teacher_cost), 0.002, table.teacher_cost)
    rival = (lengths - lengths.mean()) / lengths.std()
    return World(table.student, table.teacher, usd, gain, np.clip(student, 0, 1), rival)


def simulated_log(of: World, rng: np.random.Generator, requests: int) -> tuple[Ints, list[dict[str, Any]]]:
    """(requests,) indices into the table, and the records that the gateway would have written, with all feedback."""
    drawn = rng.integers(0, len(of.student), requests)
    ledger = Replay(Budget(limits=(Limit("target", "share", LOGGED_SHARE),)))
    price, unit = float(np.quantile(of.gain, 1 - LOGGED_SHARE)), float(of.gain.std()) / 2
    draws = rng.random(requests)
    rows: list[dict[str, Any]] = []
    for number, i in enumerate(drawn):
        at = START + number
        aimed = ledger.arrive(Subject(), at)
        score = (float(of.gain[i]) - price) / unit
        choice = decide(score, ledger.pacer, aimed, draw=draws[number], explore=EXPLORE)
        details = {
            "expected_student_quality": float(of.expected_student[i]),
            "expected_gain": float(of.gain[i]),
            "price": price,
        }
        action = "teacher" if choice.teacher else "student"
        step = StepRecord(
            "route", action, score, choice.shift, choice.propensity, True if choice.teacher else None, details
        )
        usd = float(of.usd[i]) if choice.teacher else 0.0
        ledger.finish(score, aimed, teacher=choice.teacher, tokens=0, usd=usd, latency_s=0.5)
        rows.append(orjson.loads(orjson.dumps(_record(f"dec_{number}", at, step, usd))))
        quality = of.teacher[i] if choice.teacher else of.student[i]
        rows.append({"feedback_on": f"dec_{number}", "quality": float(quality), "at": at + 60.0, "key_id": ""})
    return drawn, rows


def _record(id: str, at: float, step: StepRecord, usd: float) -> DecisionRecord:
    teacher = step.action == "teacher"
    return DecisionRecord(
        id=id, at=at, endpoint="chat", model="auto", route=step.action,
        reason=Reason.POLICY_TEACHER if teacher else Reason.POLICY_STUDENT, steps=(step,), policy="wheels",
        policy_version="logged", budget_version=1, budget_share=LOGGED_SHARE, refused_by=None, status=200, error=None,
        key_id="", user="", tenant="", conversation="", tags=(), latency_ms=500.0, first_byte_ms=None, student_tokens=0,
        teacher_tokens=100 if teacher else 0, teacher_usd=usd, teacher_calls=int(teacher),
    )  # fmt: skip


def half_told(rows: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """The same log with half of the feedback: of the teacher's answers a third, and the more the higher the score."""
    chance = {
        row["id"]: 0.33 if row["route"] == "teacher" else 0.6 + 0.15 * float(np.tanh(row["steps"][0]["score"] + 1))
        for row in rows
        if "id" in row
    }
    return [row for row in rows if "id" in row or rng.random() < chance[row["feedback_on"]]]


@dataclass(slots=True)
class Cell:
    """One question asked of every log."""

    table: str
    told: str
    candidate: str
    truths: list[float] = field(default_factory=list)
    values: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    """Estimator -> (value, low, high) by log."""

    def measured(self, estimator: str) -> dict[str, Any]:
        truths, found = np.array(self.truths), np.array(self.values[estimator])
        truth = truths.mean()
        held = (found[:, 1] <= truth) & (truth <= found[:, 2])
        own = (found[:, 1] <= truths) & (truths <= found[:, 2])
        return {
            "table": self.table,
            "qualities": self.told,
            "candidate": self.candidate,
            "estimator": estimator,
            "truth": round(float(truth), 4),
            "coverage": round(float(held.mean()), 4),
            "coverage_of_its_own_log": round(float(own.mean()), 4),
            "bias": round(float((found[:, 0] - truths).mean()), 5),
            "rmse": round(float(np.sqrt(((found[:, 0] - truth) ** 2).mean())), 5),
            "rmse_of_its_own_log": round(float(np.sqrt(((found[:, 0] - truths) ** 2).mean())), 5),
            "half_width": round(float((found[:, 2] - found[:, 1]).mean() / 2), 5),
        }


def questions(candidate: Candidate, rival: Candidate) -> Iterator[tuple[str, Candidate, Budget]]:
    for share in BUDGETS:
        yield f"target {share:.0%}", candidate, Budget(limits=(Limit("target", "share", share),))
    yield "another policy, target 20%", rival, Budget(limits=(Limit("target", "share", 0.2),))


def measure(path: Path, *, logs: int, requests: int, seed: int = 0) -> list[dict[str, Any]]:
    """Every question, every estimator, on one table."""
    of = world(path)
    cells: dict[tuple[str, str], Cell] = {}
    for number in range(logs):
        rng = np.random.default_rng([seed, number])
        drawn, rows = simulated_log(of, rng, requests)
        paths: dict[str, Paths] = {}
        for told, log in (("all known", rows), ("half unknown", half_told(rows, rng))):
            traffic = record_traffic(join(("simulated", row) for row in log).rows)
            logged = as_logged(traffic)
            rival = replace(logged, version="rival", first=of.rival[drawn], as_logged=False)
            evidence = {candidate.version: gather_for(traffic, candidate, seed=number) for candidate in (logged, rival)}
            for name, candidate, budget in questions(logged, rival):
                if name not in paths:  # qualities play no part in who is asked
                    paths[name] = replay(traffic, candidate, budget, passes=1, seed=number)
                valued = value(evidence[candidate.version], paths[name])
                asks = paths[name].asks
                cell = cells.setdefault((told, name), Cell(path.stem, told, name))
                cell.truths.append(float((asks * of.teacher[drawn] + (1 - asks) * of.student[drawn]).mean()))
                for estimator, estimate in valued.estimates.items():
                    cell.values.setdefault(estimator, []).append((estimate.value, estimate.low, estimate.high))
    return [cell.measured(estimator) for cell in cells.values() for estimator in cell.values]


def faults(measured: list[dict[str, Any]], logs: int) -> list[str]:
    """What is not as promised. With fewer logs a coverage may miss by what chance does to a share of so few."""
    slack = 0.0 if logs >= LOGS else 3 * (0.95 * 0.05 / logs) ** 0.5
    found = []
    for row in measured:
        name = f"{row['table']}, {row['candidate']}, {row['qualities']}, {row['estimator']}"
        if not 0.90 - slack <= row["coverage"] <= 0.99 + slack:
            found.append(f"{name}: coverage {row['coverage']:.1%}")
        if abs(row["bias"]) > row["half_width"] / 5 + 2 * row["rmse_of_its_own_log"] / logs**0.5:
            found.append(f"{name}: bias {row['bias']:+.4f}, half width {row['half_width']:.4f}")
    return found


def table(measured: list[dict[str, Any]]) -> str:
    lines = [
        "| table, qualities | candidate | truth | "
        + " | ".join(f"{e}: coverage, bias, RMSE, +-" for e in ESTIMATORS)
        + " |"
    ]
    lines.append("|---|---|---|" + "---|" * len(ESTIMATORS))
    rows: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in measured:
        rows.setdefault((row["table"], row["qualities"], row["candidate"]), {})[row["estimator"]] = row
    for (name, told, candidate), found in rows.items():
        cells = [
            f"{e['coverage']:.1%}, {e['bias']:+.4f}, {e['rmse']:.4f}, {e['half_width']:.3f}"
            for e in (found[estimator] for estimator in ESTIMATORS)
        ]
        truth = found["dr"]["truth"]
        lines.append(f"| {name}, {told} | {candidate} | {truth:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--table", action="append", help="name of a table, without .parquet; repeatable")
    parser.add_argument("--logs", type=int, help=f"simulated logs per table [{LOGS}]")
    parser.add_argument("--quick", action="store_true", help="20 logs of one table")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/off_policy.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    data = tables_in(arguments.data)
    logs = arguments.logs or (20 if arguments.quick else LOGS)
    names = arguments.table or (TABLES[:1] if arguments.quick else TABLES)
    measured: list[dict[str, Any]] = []
    for name in names:
        began = time.monotonic()
        measured += measure(data / f"{name}.parquet", logs=logs, requests=REQUESTS)
        print(f"{name}: {logs} logs in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    wrong = faults(measured, logs)
    print(table(measured))
    for estimator in ESTIMATORS:
        held = [row["coverage"] for row in measured if row["estimator"] == estimator]
        print(f"{estimator}: coverage {min(held):.1%} to {max(held):.1%}, mean {sum(held) / len(held):.1%}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"logs": logs, "requests": REQUESTS, "explore": EXPLORE, "cells": measured, "faults": wrong}
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for each in wrong:
        print(f"FAULT {each}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
