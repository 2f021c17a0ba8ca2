"""`tw log`: the decision log as a table."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from policies.outcome_files import write_table
from server.commands.key import state_dir_of, state_dir_option
from server.decision_log import read_rows

ENDINGS = {"parquet": ".parquet", "jsonl": ".jsonl"}


@click.group()
def log() -> None:
    """The decision log."""


@log.command()
@click.option("--to", "kind", type=click.Choice(sorted(ENDINGS)), default="parquet", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: decisions.parquet or .jsonl.")
@state_dir_option
def export(kind: str, out: Path | None, state_dir: Path | None) -> None:
    """Write the decision log as an outcome table.

    Prompts and answers are only there where the gateway ran with --log-text. A quality is what POST /v1/feedback said
    last; it stands in the column of the model whose answer was judged.
    """
    directory = state_dir_of(state_dir) / "decisions"
    target = out or Path(f"decisions{ENDINGS[kind]}")
    if target.suffix.lower() != ENDINGS[kind]:
        click.echo(f"tw log export: --out {target} does not end in {ENDINGS[kind]}", err=True)
        sys.exit(2)
    rows = list(as_outcomes(read_rows(directory)))
    if not rows:
        click.echo(f"tw log export: no decisions in {directory}; nothing was written", err=True)
        sys.exit(1)
    try:
        write_table(target, rows)
    except ImportError:
        click.echo(
            'tw log export: Parquet needs pyarrow: pip install "training-wheels[tables]", or --to jsonl', err=True
        )
        sys.exit(1)
    except OSError as error:
        click.echo(f"tw log export: {target} cannot be written: {error.strerror}", err=True)
        sys.exit(1)
    click.echo(f"{len(rows)} decisions written to {target}")


def as_outcomes(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records and feedback, in any order -> rows of an outcome table with action, propensity, policy and time."""
    records: dict[str, dict[str, Any]] = {}
    qualities: dict[str, tuple[float, float]] = {}
    for row in rows:
        if "feedback_on" in row:
            before = qualities.get(row["feedback_on"])
            if before is None or before[0] <= row["at"]:
                qualities[row["feedback_on"]] = (row["at"], row["quality"])
        elif "shadow_on" not in row:
            records[row["id"]] = row
    for record in sorted(records.values(), key=lambda record: float(record["at"])):
        quality = qualities.get(record["id"], (0.0, None))[1]
        last = record["steps"][-1] if record["steps"] else None
        cached = record.get("cached") or {}
        yield {
            "id": record["id"],
            "prompt": record["prompt"],
            "student_quality": quality if record["route"] == "student" else None,
            "teacher_quality": quality if record["route"] == "teacher" else None,
            "student_response": record["student_response"],
            "teacher_response": record["teacher_response"],
            "student_logprobs": record["student_logprobs"],
            "student_cached_tokens": cached.get("student_tokens"),
            "teacher_cached_tokens": cached.get("teacher_tokens"),
            "student_cost": None,
            "teacher_cost": record["teacher_usd"] if record["teacher_calls"] else None,
            "group": record["tags"][0] if record["tags"] else None,
            "action": last["action"] if last else record["route"],
            "propensity": last["propensity"] if last else 1.0,
            "policy": record["policy_version"],
            "reason": record["reason"],
            "at": record["at"],
            "latency_ms": record["latency_ms"],
        }
