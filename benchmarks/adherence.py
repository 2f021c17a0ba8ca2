"""Does the realised budget stay where it was asked to? `python -m benchmarks.adherence --data DIR [--quick]`

Recorded traffic (test splits) goes through the real ledger and the real pacing with a trained policy's scores: as
recorded, sorted by group, in bursts; a share of 5 to 50% as a target and as a cap; and ceilings in USD per request,
beside ParetoBandit where it is installed. Exits with 1 where a promise is broken:

  a target   within one point at every moment from request 500 on
  a cap      never over, at any moment; at the end at least 98% used, where the oracle would and it is 200 calls or more
  a ceiling  never over, at any moment; 98% used, and a share of the gap recovered, as `USD_PROMISED` says

DIR holds outcome tables NAME.parquet. Policies are trained first (some minutes), or read again from --policies.
"""

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.adherence_runs import JUDGED_FROM, Case, Expected, Run, serve
from benchmarks.adherence_streams import ORDERS, Traffic, traffic
from benchmarks.adherence_usd import (
    CEILINGS,
    Bills,
    bills,
    contexts,
    interval,
    offline,
    ours,
    pareto_bandit,
    realised,
    shuffled,
)
from benchmarks.tables import tables_in
from policies.artifact import load_policy
from policies.outcomes import Outcome, read_outcomes
from policies.policy import Policy
from router.budget import Kind, Limit
from router.pacing import Aim
from training.evaluate import ScoresAt, scores_of
from training.learner import PathConsistencyConfig
from training.train_policy import train_policy

CELLS = {
    "gsm8k-mixtral-gpt4": "draft",
    "mmlu-pro-llama31-8b-70b": "draft",
    "mmlu-mixtral-gpt4": "prompt",
    "judged-llama31-8b-gemini25pro": "prompt",
}
BILLED = "judged-llama31-8b-gemini25pro"
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
KINDS: tuple[Kind, ...] = ("target", "cap")
LEAST = 1500
"""Requests in a stream; shorter tables come several times over."""
WITHIN = 0.01
USED = 0.98
JUDGED_CALLS = 200
"""A cap of fewer calls cannot be used to 98%: two per cent of it are less than the few calls kept ready."""
USD_PROMISED = dict(zip(CEILINGS, (0.18, 0.32, 0.50), strict=True))
USD_ORDERS = 12


def policy_of(data: Path, table: str, seed: int, policies: Path) -> Policy:
    """Trained with this seed, or read where it has been trained before."""
    out = policies / f"{table}-{seed}"
    if not (out / "manifest.json").exists():
        print(f"training {out.name} ...", file=sys.stderr, flush=True)
        signals: Any = CELLS[table]
        train_policy(
            [data / f"{table}.parquet"], out, PathConsistencyConfig(seed=seed), signals=signals, created=""
        )  # fmt: skip
    return load_policy(out)


def tested(outcomes: Sequence[Outcome], signals: str) -> list[Outcome]:
    return [
        row
        for row in outcomes
        if row.split == "test"
        and row.student_quality is not None
        and row.teacher_quality is not None
        and (signals == "prompt" or row.student_response is not None)
    ]


def share_case(outcomes: Sequence[Outcome], scores_at: ScoresAt) -> Case:
    known: dict[float, list[float]] = {}

    def expected(row: int, aimed: Aim) -> Expected:
        if aimed.share not in known:
            known[aimed.share] = scores_at(aimed.share).tolist()
        return Expected(known[aimed.share][row])

    student = np.array([row.student_quality for row in outcomes], dtype=np.float64)
    teacher = np.array([row.teacher_quality for row in outcomes], dtype=np.float64)
    return Case(expected, student, teacher)


def in_hindsight(case: Case, requests: Traffic, scores_at: ScoresAt, share: float) -> float:
    """The gap that the best fixed threshold recovers with the same number of calls."""
    rows = requests.rows
    gain = (case.teacher - case.student)[rows]
    best = np.argsort(-scores_at(share)[rows], kind="stable")[: int(share * len(rows) + 1e-9)]
    return float(gain[best].sum() / gain.sum())


def share_row(
    table: str, order: str, kind: Kind, share: float, runs: Sequence[Run], hindsight: Sequence[float]
) -> dict[str, Any]:
    lost, width = interval([best - run.gap_recovered for best, run in zip(hindsight, runs, strict=True)])
    later = [run.share[JUDGED_FROM - 1 :] for run in runs]
    # As the ledger counts: whole calls, at every moment.
    steps = np.arange(1, len(runs[0].asked) + 1)
    useful = float(np.mean([(run.teacher > run.student).mean() for run in runs]))
    return {
        "table": table,
        "order": order,
        "kind": kind,
        "share": share,
        "requests": len(runs[0].asked),
        "realised": float(np.mean([run.share[-1] for run in runs])),
        "worst_points_off": float(max(np.abs(each - share).max() for each in later)),
        "calls_over": float(max((np.cumsum(run.asked) - share * steps).max() for run in runs)),
        "used": [float(run.asked.sum() / (share * len(run.asked))) for run in runs],
        "oracle_would": useful >= share,
        "refused": float(np.mean([run.refused / len(run.asked) for run in runs])),
        "gap_recovered": float(np.mean([run.gap_recovered for run in runs])),
        "in_hindsight": float(np.mean(hindsight)),
        "lost": lost,
        "lost_ci95": width,
    }


def share_faults(row: dict[str, Any]) -> Iterator[str]:
    where = f"{row['table']}, {row['order']}, {row['kind']} of {row['share']:.0%}"
    if row["kind"] == "target":
        if row["worst_points_off"] >= WITHIN:
            yield f"{where}: {100 * row['worst_points_off']:.2f} points off after request {JUDGED_FROM}"
        return
    if row["calls_over"] > 1e-6:
        yield f"{where}: over by {row['calls_over']:.2f} calls"
    if row["oracle_would"] and row["share"] * row["requests"] >= JUDGED_CALLS and min(row["used"]) < USED:
        yield f"{where}: only {min(row['used']):.1%} used"


def shares(data: Path, tables: Sequence[str], seeds: int, policies: Path) -> list[dict[str, Any]]:
    found = []
    for table in tables:
        rows = tested(read_outcomes(data / f"{table}.parquet"), CELLS[table])
        scored = [scores_of(policy_of(data, table, seed, policies), rows) for seed in range(seeds)]
        cases = [share_case(rows, scores_at) for scores_at in scored]
        for order in ORDERS:
            streams = [traffic(rows, order, seed, LEAST) for seed in range(seeds)]
            for kind in KINDS:
                for share in SHARES:
                    limit = Limit(kind, "share", share)
                    runs = [
                        asyncio.run(serve(case, stream, limit, Random(seed).random))
                        for seed, (case, stream) in enumerate(zip(cases, streams, strict=True))
                    ]
                    best = [
                        in_hindsight(case, stream, scores_at, share)
                        for case, stream, scores_at in zip(cases, streams, scored, strict=True)
                    ]
                    found.append(share_row(table, order, kind, share, runs, best))
    return found


def usd_row(name: str, order: str, ceiling: float, runs: Sequence[Run]) -> dict[str, Any]:
    gap, width = interval([run.gap_recovered for run in runs])
    spent = [realised(run, ceiling) for run in runs]
    return {
        "router": name,
        "order": order,
        "ceiling": ceiling,
        "requests": len(runs[0].asked),
        "gap_recovered": gap,
        "gap_ci95": width,
        "used": float(np.mean([each[-1] for each in spent])),
        "used_range": [float(min(each[-1] for each in spent)), float(max(each[-1] for each in spent))],
        # A router without a ledger is over with its first call; it is judged once it has had a hundred requests.
        "most_at_any_moment": float(max(each[99:].max() for each in spent)),
        "ever_over": any(bool((each > 1.0 + 1e-6).any()) for each in spent),
        "share": float(np.mean([run.asked.mean() for run in runs])),
        "cut": float(np.mean([run.cut / max(run.asked.sum(), 1) for run in runs])),
    }


def usd(data: Path, policies: Path, orders: int) -> tuple[list[dict[str, Any]], dict[str, dict[float, float]]]:
    outcomes = read_outcomes(data / f"{BILLED}.parquet")
    of = bills(outcomes, policy_of(data, BILLED, 0, policies))
    test = [of.outcomes[row] for row in of.test]
    once, several = 1, -(-LEAST // len(test))
    streams: dict[str, Callable[[int], Traffic]] = {
        f"dealt anew, {len(test)} requests": lambda seed: shuffled(of, seed, once),
        f"dealt anew, {several * len(test)} requests": lambda seed: shuffled(of, seed, several),
        **{order: lambda seed, order=order: traffic(test, order, seed, LEAST) for order in ORDERS[1:]},  # type: ignore[misc]
    }
    found = []
    for order, stream in streams.items():
        requests = [stream(seed) for seed in range(orders)]
        for name, serves in usd_routers(of).items():
            for ceiling in CEILINGS:
                runs = [serves(each, ceiling, seed) for seed, each in enumerate(requests)]
                found.append(usd_row(name, order, ceiling, runs))
    known = {by: {c: offline(of, c, by) for c in CEILINGS} for by in ("gain", "gain per dollar", "oracle")}
    return found, known


def usd_routers(of: Bills) -> dict[str, Callable[[Traffic, float, int], Run]]:
    routers: dict[str, Callable[[Traffic, float, int], Run]] = {
        "training wheels": lambda requests, ceiling, seed: ours(of, requests, ceiling, seed)
    }
    if importlib.util.find_spec("pareto_bandit") is None:
        print("ParetoBandit is not installed (pip install --no-deps paretobandit): left out", file=sys.stderr)
        return routers
    seen = {"ParetoBandit": contexts(of, "features"), "ParetoBandit, our estimates": contexts(of, "estimates")}
    for name, context in seen.items():
        routers[name] = lambda requests, ceiling, seed, context=context: pareto_bandit(  # type: ignore[misc]
            of, requests, ceiling, seed, context
        )
    return routers


def usd_faults(row: dict[str, Any]) -> Iterator[str]:
    if row["router"] != "training wheels":
        return
    where = f"{row['ceiling']} USD per request, {row['order']}"
    if row["ever_over"]:
        yield f"{where}: over the ceiling, by {row['most_at_any_moment'] - 1:.2%} at most"
    if not row["order"].startswith("dealt anew") or row["requests"] < LEAST:
        return
    if row["used"] < USED:
        yield f"{where}: only {row['used']:.1%} used"
    if row["gap_recovered"] < USD_PROMISED[row["ceiling"]]:
        yield f"{where}: {row['gap_recovered']:.3f} of the gap recovered, promised {USD_PROMISED[row['ceiling']]}"


def show(share_rows: Sequence[dict[str, Any]], usd_rows: Sequence[dict[str, Any]], known: dict[str, Any]) -> None:
    print("| table, order | limit | realised at 5 / 10 / 20 / 30 / 50% | worst points off | used | gap lost (95%) |")
    print("|---|---|---|---|---|---|")
    for table, order, kind in dict.fromkeys((row["table"], row["order"], row["kind"]) for row in share_rows):
        group = [row for row in share_rows if (row["table"], row["order"], row["kind"]) == (table, order, kind)]
        got = " / ".join(f"{100 * row['realised']:.2f}" for row in group)
        off = f"{100 * max(row['worst_points_off'] for row in group):.2f}" if kind == "target" else "never over"
        used = " / ".join(f"{100 * min(row['used']):.1f}" for row in group) if kind == "cap" else ""
        lost = " / ".join(f"{row['lost']:.3f}±{row['lost_ci95']:.3f}" for row in group)
        print(f"| {table}, {order} | {kind} | {got} | {off} | {used} | {lost} |")
    print()
    print(
        "| order | router | gap recovered at " + " / ".join(f"{c:g}" for c in CEILINGS) + " | used % | most % | cut % |"
    )
    print("|---|---|---|---|---|---|")
    for order, router in dict.fromkeys((row["order"], row["router"]) for row in usd_rows):
        group = [row for row in usd_rows if (row["order"], row["router"]) == (order, router)]
        gap = " / ".join(f"{row['gap_recovered']:.3f}±{row['gap_ci95']:.3f}" for row in group)
        used = " / ".join(f"{100 * row['used']:.1f}" for row in group)
        most = " / ".join(f"{100 * row['most_at_any_moment']:.0f}" for row in group)
        cut = " / ".join(f"{100 * row['cut']:.1f}" for row in group)
        print(f"| {order} | {router} | {gap} | {used} | {most} | {cut} |")
    for by, figures in known.items():
        print(
            f"| offline, all rows known | {by} | " + " / ".join(f"{each:.3f}" for each in figures.values()) + " | | | |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--policies", type=Path, default=Path("benchmarks/out/adherence-policies"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small table, fewer orders")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    tables = [BILLED] if arguments.quick else list(CELLS)
    data = tables_in(arguments.data)
    missing = [name for name in tables if not (data / f"{name}.parquet").is_file()]
    if missing:
        parser.error(f"--data: {data} has no {', '.join(f'{name}.parquet' for name in missing)}")
    seeds = max(2, arguments.seeds)  # an interval needs two
    share_rows = shares(data, tables, seeds, arguments.policies)
    usd_rows, known = usd(data, arguments.policies, 4 if arguments.quick else USD_ORDERS)
    show(share_rows, usd_rows, known)
    faults = [fault for row in share_rows for fault in share_faults(row)]
    faults += [fault for row in usd_rows for fault in usd_faults(row)]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"shares": share_rows, "usd": usd_rows, "usd_offline": known, "faults": faults}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
