"""The shipped pair in two minutes: a few hundred held-out questions to the student alone, to the teacher alone, and
through the gateway under "At most 20% of requests."; then the table that says what the budget bought.

    make demo
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.ask import Reply, ask_all
from benchmarks.processes import StartFailed, free_port, serving, tw
from benchmarks.quality import (
    Outcome,
    at_random,
    gap_interval,
    gap_recovered,
    mean,
    quality,
    share,
    student_only,
    teacher_only,
)
from server.auth import Keys
from training.grading import numeric
from training.pair.questions import Question, distinct

BUDGET = "At most 20% of requests."
SHARE_CAP = 0.2
NO_LIMIT = "At most 100% of requests."
CONCURRENCY = 8
SEED = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    quality: float
    share: float
    recovered: float
    latencies: tuple[tuple[float, float], ...]
    """(milliseconds, weight)"""

    def latency_ms(self, quantile: float) -> float:
        left = quantile * sum(weight for _, weight in self.latencies)
        for latency, weight in sorted(self.latencies):
            left -= weight
            if left <= 0:
                return latency
        return max(latency for latency, _ in self.latencies)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "quality": self.quality,
            "share": self.share,
            "gap_recovered": self.recovered,
            "p50_ms": self.latency_ms(0.5),
            "p95_ms": self.latency_ms(0.95),
        }


@contextmanager
def gateway(folder: Path, budget: str) -> Iterator[tuple[str, str]]:
    """The shipped pair under `budget` with a ledger of its own; yields the URL and an admin key."""
    state = folder / budget.replace("%", "").replace(" ", "-").lower()
    key = Keys(state / "keys.json", open_on_loopback=True).new("demo", admin=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = tw("serve", "--host", "127.0.0.1", "--port", str(port), "--budget", budget)
    log = folder / f"{state.name}.log"
    with serving(command, f"{url}/readyz", log, env={"TW_STATE_DIR": str(state)}, timeout_s=180):
        yield url, key


async def pass_over(
    url: str, questions: Sequence[Question], model: str, title: str, progress: Progress
) -> list[tuple[Reply, float]]:
    """Each question once; replies with their grades."""
    task = progress.add_task(title, total=len(questions))
    replies = await ask_all(
        url,
        [question.prompt for question in questions],
        model=model,
        concurrency=CONCURRENCY,
        max_tokens=128,
        answered=lambda: progress.advance(task),
    )
    failed = [reply for reply in replies if reply.status != 200]
    if failed:
        raise StartFailed(f"{len(failed)} requests failed, the first with {failed[0].status}: {failed[0].text[:300]}")
    return [(reply, numeric(reply.text, q.reference)) for reply, q in zip(replies, questions, strict=True)]


async def read_budget(url: str, key: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}/v1/budget", headers={"authorization": f"Bearer {key}"}) as response,
    ):
        response.raise_for_status()
        budget: dict[str, Any] = await response.json()
        return budget


def timed(replies: Sequence[tuple[Reply, float]], weight: float = 1.0) -> tuple[tuple[float, float], ...]:
    return tuple((reply.latency_ms, weight) for reply, _ in replies)


def tabulate(
    student: list[tuple[Reply, float]], teacher: list[tuple[Reply, float]], wheels: list[tuple[Reply, float]]
) -> tuple[list[Row], list[Outcome]]:
    outcomes = [
        Outcome(low, high, reply.route != "student")
        for (_, low), (_, high), (reply, _) in zip(student, teacher, wheels, strict=True)
    ]
    asked, got = share(outcomes), mean([grade for _, grade in wheels])
    chance = at_random(outcomes)
    mixed = timed(student, 1 - asked) + timed(teacher, asked)
    return [
        Row("student only", student_only(outcomes), 0.0, 0.0, timed(student)),
        Row("teacher only", teacher_only(outcomes), 1.0, 1.0, timed(teacher)),
        Row("random at the same share", chance, asked, gap_recovered(outcomes, chance), mixed),
        Row("training wheels", got, asked, gap_recovered(outcomes, got), timed(wheels)),
    ], outcomes


def show(rows: Sequence[Row], budget: dict[str, Any], console: Console) -> None:
    shown = Table(title=BUDGET)
    for heading in ("", "quality", "share", "gap recovered", "p50 ms", "p95 ms"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            f"{row.quality:.1%}",
            f"{row.share:.1%}",
            f"{row.recovered:.0%}",
            f"{row.latency_ms(0.5):.0f}",
            f"{row.latency_ms(0.95):.0f}",
            style="bold" if row.name == "training wheels" else "",
        )
    console.print(shown)
    for balance in budget["balances"]:
        console.print(
            f"Left: {balance['allowed'] - balance['spent']:g} of {balance['allowed']:g} "
            f"({balance['limit']}; {balance['calls']} calls in {balance['requests']} requests)."
        )


async def demonstrate(count: int, console: Console) -> dict[str, Any]:
    questions = distinct(SEED, count, "test")
    bar = Progress(
        TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with tempfile.TemporaryDirectory(prefix="tw-demo-") as name, bar:
        folder = Path(name)
        with gateway(folder, NO_LIMIT) as (url, _):
            student = await pass_over(url, questions, "student", "student only", bar)
            teacher = await pass_over(url, questions, "teacher", "teacher only", bar)
        with gateway(folder, BUDGET) as (url, key):
            wheels = await pass_over(url, questions, "auto", "training wheels", bar)
            budget = await read_budget(url, key)
    rows, outcomes = tabulate(student, teacher, wheels)
    show(rows, budget, console)
    interval = gap_interval(outcomes)
    console.print(f"Gap recovered: {interval.value:.0%} (95% interval {interval.low:.0%} to {interval.high:.0%}).")
    return {
        "questions": count,
        "concurrency": CONCURRENCY,
        "rows": [row.as_dict() for row in rows],
        "gap_recovered": interval.as_dict(),
        "quality_from_tables": quality(outcomes),
        "budget": budget,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="60 questions")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    console = Console()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        report = asyncio.run(demonstrate(60 if arguments.quick else arguments.questions, console))
    except StartFailed as error:
        console.print(f"[red]{error}[/red]")
        return 1
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    asked = report["rows"][-1]["share"]
    if asked > SHARE_CAP:
        console.print(f"[red]The teacher's share was {asked:.1%}, above the budget.[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
