"""`python -m training.pair`: makes the shipped pair, or writes questions for one's own measurements."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.pair.questions import SPLITS, distinct


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where student/, teacher/ and report.json are written.  [default: server/shipped, or runs/pair-quick/out]",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where checkpoints lie; the same command goes on from them.  [default: runs/pair, or runs/pair-quick]",
)
@click.option("--quick", is_flag=True, help="Tiny models, a minute: shows that everything runs; they cannot calculate.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for training.  [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def main(
    context: click.Context, out: Path | None, work: Path | None, quick: bool, threads: int | None, as_json: bool
) -> None:
    """Makes the demonstration pair: a student of 1 M and a teacher of 10 M parameters that answer questions with
    numbers. Takes about an hour on two cores. Ctrl-C stops it with a checkpoint, and the same command goes on.

    `questions` writes questions as JSON lines for `tw collect`.
    """
    if context.invoked_subcommand is not None:
        return
    out = out or Path("runs/pair-quick/out" if quick else "server/shipped")
    work = work or Path("runs/pair-quick" if quick else "runs/pair")
    # Loaded here: --help and `questions` need no torch.
    import torch
    import transformers

    from training.pair.config import FULL, QUICK, Role
    from training.pair.recipe import make_pair
    from training.pair.train import Progress as Trained
    from training.pair.train import Stopped

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads or os.cpu_count() or 1)
    recipe = QUICK if quick else FULL
    console = Console(stderr=True)
    console.print(recipe)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with _interrupts() as asked_to_stop, Progress(*columns, console=console) as bars:
        tasks: dict[Role, TaskID] = {}

        def report(role: Role, done: Trained) -> None:
            if role not in tasks:
                tasks[role] = bars.add_task(role, total=recipe.course(role).steps, state="")
            state = f"loss {done.loss:.3f} · {done.tokens / max(done.seconds, 1e-9):,.0f} tokens/s"
            bars.update(tasks[role], completed=done.step, state=state)
            if not console.is_terminal and done.step % 100 == 0:  # a log file shows no bars
                console.print(f"{role}: step {done.step} of {recipe.course(role).steps}, {state}", highlight=False)

        try:
            graded = make_pair(recipe, out, work, clock=time.monotonic, report=report, stop=lambda: bool(asked_to_stop))
        except Stopped as stopped:
            console.print(f"{stopped}")
            sys.exit(130)
        except ValueError as wrong:
            console.print(f"error: {wrong}", style="red", highlight=False)
            sys.exit(2)
    console.print(_table(graded))
    console.print(f"written to {out}")
    if as_json:
        click.echo(json.dumps(graded))


@main.command()
@click.option("--n", "count", type=click.IntRange(min=1), default=1000, show_default=True, help="How many.")
@click.option(
    "--split", type=click.Choice([*SPLITS, "all"]), default="test", show_default=True,
    help="Which split; the pair was trained on train only.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Other seeds give other questions.")
@click.option("--lessons", is_flag=True, help="With the teacher's way to answer, as messages, for `tw distill`.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file; standard output where absent.")
def questions(count: int, split: str, seed: int, lessons: bool, out: Path | None) -> None:
    """Write questions as JSON lines: id, prompt, reference, group, split; for `tw collect`."""
    chosen = next((name for name in SPLITS if name == split), None)
    found = distinct(seed, count, chosen)
    lines = [json.dumps(question.lesson() if lessons else question.row()) for question in found]
    text = "\n".join(lines) + "\n"
    if out is None:
        click.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    click.echo(f"{count} questions written to {out}", err=True)


@contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that is filled at the first Ctrl-C; the second one ends the program at once."""
    asked: list[bool] = []

    def remember(_number: int, _frame: FrameType | None) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _table(graded: dict[str, Any]) -> Table:
    table = Table("", "parameters", "right", "tokens per answer", "seconds per answer", title="held-out questions")
    for role in ("student", "teacher"):
        of = graded[role]
        table.add_row(
            role,
            f"{of['parameters']:,}",
            f"{of['quality']:.1%}",
            f"{of['answer_tokens_mean']:.1f}",
            f"{of['seconds_per_answer_p50']:.3f}",
        )
    return table


if __name__ == "__main__":
    main(prog_name="python -m training.pair")
