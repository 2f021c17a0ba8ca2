"""Recorded traffic of real models through the running gateway.

For each outcome table: `tw train policy` on its train split, `tw replay` as the two upstreams, `tw serve` in front, and
the test split's prompts over HTTP, under one budget after another. What the client reads off `x-tw-route` is looked up
in the table; chance and hindsight are worked out on the same rows at the same share.

    python -m benchmarks.replay_gateway --data ../shared/data --out benchmarks/out/replay.json
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.ask import Reply, ask_all
from benchmarks.processes import StartFailed, free_port, serving, tw
from benchmarks.quality import (
    Outcome,
    at_random,
    gap_interval,
    gap_recovered,
    oracle,
    quality,
    share,
    student_only,
    teacher_only,
)
from benchmarks.tables import tables_in

TABLES = ("gsm8k-mixtral-gpt4", "mmlu-pro-llama31-8b-70b")
SHARES = (0.1, 0.2, 0.3)
CONCURRENCY = 12
MODELS = {"TW_STUDENT__NAME": "student", "TW_TEACHER__NAME": "teacher"}


@dataclass(frozen=True, slots=True)
class Case:
    """One table under one budget."""

    table: str
    asked_share: float
    outcomes: tuple[Outcome, ...]
    reasons: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        rows = self.outcomes
        return {
            "table": self.table,
            "requests": len(rows),
            "asked_share": self.asked_share,
            "got_share": share(rows),
            "student": student_only(rows),
            "teacher": teacher_only(rows),
            "random": at_random(rows),
            "wheels": quality(rows),
            "oracle": oracle(rows),
            "gap_recovered": gap_interval(rows).as_dict(),
            "gap_recovered_oracle": gap_recovered(rows, oracle(rows)),
            "reasons": self.reasons,
        }

    def faults(self) -> list[str]:
        where = f"{self.table} at {self.asked_share:.0%}"
        found = []
        if share(self.outcomes) > self.asked_share:
            found.append(f"{where}: the teacher's share was {share(self.outcomes):.4f}, above its cap")
        if quality(self.outcomes) < at_random(self.outcomes):
            found.append(f"{where}: worse than random at the same share")
        return found


def test_rows(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The test split, shuffled with a fixed seed; only rows for which both qualities are known."""
    columns = ["prompt", "split", "student_quality", "teacher_quality"]
    table = pq.read_table(path, columns=columns)
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    rows = [row for row in rows if row["student_quality"] is not None and row["teacher_quality"] is not None]
    Random(0).shuffle(rows)
    return rows[:limit]


def train(table: Path, out: Path) -> None:
    command = tw("train", "policy", "--outcomes", str(table), "--out", str(out), "--signals", "draft", "--seed", "0")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartFailed(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def serve(replay_port: int, policy: Path, percent: float, port: int) -> list[str]:
    upstream = f"http://127.0.0.1:{replay_port}/v1"
    command = tw("serve", "--host", "127.0.0.1", "--port", str(port), "--policy", str(policy))
    command += ["--student-url", upstream, "--teacher-url", upstream]
    return [*command, "--budget", f"At most {percent:g}% of requests."]


def run_case(
    table: str,
    rows: Sequence[dict[str, Any]],
    asked_share: float,
    command: list[str],
    url: str,
    folder: Path,
    bar: Progress,
) -> Case:
    task = bar.add_task(f"{table} at {asked_share:.0%}", total=len(rows))
    state = folder / f"state-{table}-{asked_share}"
    with serving(command, f"{url}/readyz", folder / f"{state.name}.log", env={"TW_STATE_DIR": str(state), **MODELS}):
        replies = asyncio.run(
            ask_all(
                url,
                [row["prompt"] for row in rows],
                model="auto",
                concurrency=CONCURRENCY,
                answered=lambda: bar.advance(task),
            )
        )
    return Case(table, asked_share, outcomes_of(rows, replies), dict(Counter(reply.reason for reply in replies)))


def outcomes_of(rows: Sequence[dict[str, Any]], replies: Sequence[Reply]) -> tuple[Outcome, ...]:
    failed = [reply for reply in replies if reply.status != 200]
    if failed:
        raise StartFailed(f"{len(failed)} requests failed, the first with {failed[0].status}: {failed[0].text[:300]}")
    return tuple(
        Outcome(row["student_quality"], row["teacher_quality"], reply.route != "student")
        for row, reply in zip(rows, replies, strict=True)
    )


def run_table(data: Path, table: str, folder: Path, *, limit: int | None, console: Console) -> list[Case]:
    path = tables_in(data) / f"{table}.parquet"
    if not path.is_file():
        raise StartFailed(f"{path} is missing; --data names the folder that holds outcomes/{table}.parquet")
    rows = test_rows(path, limit)
    policy = folder / f"policy-{table}"
    console.print(f"{table}: training a policy on the train split ...")
    train(path, policy)
    replay_port = free_port()
    replay = tw("replay", "--outcomes", str(path), "--port", str(replay_port))
    ready = f"http://127.0.0.1:{replay_port}/v1/models"
    cases = []
    with serving(replay, ready, folder / f"replay-{table}.log"), Progress(console=console) as bar:
        for asked in SHARES:
            port = free_port()
            command = serve(replay_port, policy, asked * 100, port)
            cases.append(run_case(table, rows, asked, command, f"http://127.0.0.1:{port}", folder, bar))
    return cases


def show(cases: Sequence[Case], console: Console) -> None:
    shown = Table(title="recorded traffic through the running gateway (test split)")
    headings = (
        "table",
        "asked",
        "got",
        "student",
        "random",
        "wheels",
        "oracle",
        "teacher",
        "gap recovered",
        "random's",
    )
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "table" else "right")
    for case in cases:
        seen = case.as_dict()
        gap = seen["gap_recovered"]
        shown.add_row(
            case.table,
            f"{case.asked_share:.0%}",
            f"{seen['got_share']:.2%}",
            *(f"{seen[name]:.3f}" for name in ("student", "random", "wheels", "oracle", "teacher")),
            f"{gap['value']:.0%} [{gap['low']:.0%}, {gap['high']:.0%}]",
            f"{seen['got_share']:.0%}",
        )
    console.print(shown)
    for case in cases:
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(case.reasons.items()))
        console.print(f"{case.table} at {case.asked_share:.0%}: {reasons}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the outcome tables")
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--quick", action="store_true", help="at most 300 requests per case")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    console = Console(width=max(Console().width, 120))
    cases: list[Case] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tw-replay-") as name:
            for table in arguments.tables:
                limit = 300 if arguments.quick else None
                cases += run_table(arguments.data, table, Path(name), limit=limit, console=console)
    except StartFailed as error:
        console.print(f"[red]{error}[/red]")
        return 1
    show(cases, console)
    faults = [fault for case in cases for fault in case.faults()]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"concurrency": CONCURRENCY, "cases": [case.as_dict() for case in cases], "faults": faults}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for fault in faults:
        console.print(f"[red]{fault}[/red]")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
