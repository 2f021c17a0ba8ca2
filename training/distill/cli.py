"""The verbs `tw distill ...`. Thin: each reads a configuration, calls one function, prints. torch loads when a verb
runs, so that `--help` is quick and its absence one clear line.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from training.bars import stages
from training.distill.config import DistillConfig, read_config
from training.distill.errors import CannotDistill, DistillationFailed

CONFIG = click.Path(path_type=Path, dir_okay=False)
READ = 0.8
"""Below this part of what sentences allow, a student of wheels is said not to tell them apart."""


@click.group()
def distill() -> None:
    """Teach a student what the teacher knows: plain distillation, and four ways to make it better."""


def _verb(name: str, help_text: str) -> None:
    def verb(config_path: Path, dry_run: bool, threads: int | None, as_json: bool) -> None:
        _run(name, config_path, dry_run, threads, as_json)

    verb.__doc__ = help_text
    for option in reversed(
        (
            click.option(
                "--config", "config_path", required=True, type=CONFIG, help="TOML, JSON or YAML; docs/distill."
            ),
            click.option("--dry-run", is_flag=True, help="Read and describe data and models, train nothing."),
            click.option("--threads", type=click.IntRange(min=1), help="Threads on a CPU [torch's choice]."),
            click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        )
    ):
        verb = option(verb)
    distill.command(name)(verb)


_verb(
    "kd",
    """Plain knowledge distillation.

    Terms of [ranking] and [features] join in where the file has them. The same command goes on after an interruption.
    """,
)
_verb(
    "warmup",
    """Correct the student's own text first, align to it, then distil.

    The teacher replaces what it finds improbable in the student's text; the student learns to prefer the result.
    """,
)
_verb(
    "ranking",
    """Distil with the order of the likeliest words as a second target.""",
)
_verb(
    "features",
    """Distil with the direction and norm of hidden states as a second target.""",
)
_verb(
    "through-time",
    """Make a masked diffusion student need fewer steps.

    Trains the base model where it is asked to, then rounds of self-distillation through time, each dividing the steps.
    """,
)
_verb(
    "wheels",
    """Teach the student to ask the teacher in mid-sentence.

    Path consistency over the vocabulary plus a help token, under a share of the tokens given in words in the prompt;
    with help = false it is a plain way to distil.
    """,
)


@distill.command("advise")
@click.option("--config", "config_path", required=True, type=CONFIG, help="TOML, JSON or YAML; docs/distill.")
@click.option("--usd-per-hour", type=click.FloatRange(min=0), help="Price of this machine, to say costs in dollars.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads on a CPU [torch's choice].")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def advise_command(config_path: Path, usd_per_hour: float | None, threads: int | None, as_json: bool) -> None:
    """Measure a pair on a sample and say which method speaks for it, before a GPU-day is spent.

    Distances, refused text, undecided places, hidden states; what a run roughly costs, and what the student saves.
    """
    _run("advise", config_path, False, threads, as_json, usd_per_hour)


@distill.command("fresh")
@click.option("--like", required=True, metavar="MODEL", help="Directory or hub name whose tokenizer it takes.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new directory.")
@click.option("--hidden", type=click.IntRange(min=2), default=64, show_default=True, help="Width.")
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True, help="How many.")
@click.option("--heads", type=click.IntRange(min=1), default=2, show_default=True, help="Of attention.")
@click.option("--inner", type=click.IntRange(min=1), help="Width inside a layer [8/3 of --hidden].")
@click.option("--context", type=click.IntRange(min=8), default=1024, show_default=True, help="Tokens at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random weights.")
def fresh_command(
    like: str, out: Path, hidden: int, layers: int, heads: int, inner: int | None, context: int, seed: int
) -> None:
    """Write a student that has learned nothing yet.

    A small Llama with random weights and the tokenizer of another model, for `tw distill kd` to begin with.
    """
    with _told_plainly():
        from training.extras import require

        require("train", "torch", "transformers", "accelerate", "safetensors")
        _no_bars_in_log_files()
        from training.distill.fresh import fresh

        size = fresh(like, out, hidden=hidden, layers=layers, heads=heads, inner=inner, context=context, seed=seed)
        click.echo(f"A student of {size:,} parameters that has learned nothing yet is in {out}.")


@contextmanager
def _told_plainly() -> Iterator[None]:
    """One line and the promised exit code for what a user can put right, and for what nobody could foresee."""
    from training.extras import ExtraMissing

    try:
        yield
    except CannotDistill as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except (DistillationFailed, ExtraMissing) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _run(
    method: str,
    config_path: Path,
    dry_run: bool,
    threads: int | None,
    as_json: bool,
    usd_per_hour: float | None = None,
) -> None:
    from training.extras import require

    with _told_plainly():
        config = read_config(config_path, method)
        require("train", "torch", "transformers", "accelerate", "safetensors", "matplotlib")
        import torch

        _no_bars_in_log_files()
        if threads is not None:
            torch.set_num_threads(threads)
        if dry_run:
            from training.distill.run import describe

            told = describe(config, method)
            click.echo(json.dumps(told, indent=2) if as_json else _lines(told))
            return
        try:
            report = _with_devices(method, config)
        except torch.OutOfMemoryError as error:
            raise DistillationFailed(
                f"out of memory ({' '.join(str(error).split())[:200]}); lower training.rows and raise "
                "training.accumulate, set training.gradient_checkpointing = true, or lower training.tokens_at_once"
            ) from None
    if report is None:
        return
    if usd_per_hour is not None:
        from training.distill.advice import priced

        report = priced(report, usd_per_hour)
    if as_json:
        click.echo(json.dumps(report, indent=2, default=str))
    elif method == "advise":
        from training.distill.advice import in_words

        click.echo(in_words(report))
    else:
        click.echo(_summary(report, config))


def _with_devices(method: str, config: DistillConfig) -> dict[str, Any] | None:
    """Runs it on the devices there are; None on all processes but the first."""
    from accelerate import Accelerator  # type: ignore[import-untyped]

    from training.distill.frame import Surroundings

    accelerator = Accelerator()
    if accelerator.device.type == "cpu" and config.training.bf16 and accelerator.is_main_process:
        _warn_of_emulation()
    with _interrupts() as asked, stages(shown=bool(accelerator.is_main_process)) as told:
        around = Surroundings(time.monotonic, told.at, lambda: bool(asked), accelerator)
        if method == "through-time":
            from training.distill.through_time import distil_through_time

            report = distil_through_time(config, around, told.stage)
        elif method == "advise":
            from training.distill.advise import advise

            report = advise(config, around, told.stage)
        elif method == "wheels":
            from training.distill.wheels.run import distil_wheels

            report = distil_wheels(config, around, told.stage)
        else:
            from training.distill.run import distil

            report = distil(config, method, around, told.stage)
    main = bool(accelerator.is_main_process)
    accelerator.end_training()
    return report if main else None


def _no_bars_in_log_files() -> None:
    """transformers' own, of reading and writing weights."""
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _warn_of_emulation() -> None:
    from training.distill.processor import bfloat16_slowdown

    slower = bfloat16_slowdown()
    if slower > 2.0:
        click.echo(
            f"Note: training.bf16 = true, but this processor only emulates bfloat16: a product takes {slower:.0f} "
            "times as long as in float32. Leave it out to be faster.",
            err=True,
        )


@contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that is filled at the first Ctrl-C or SIGTERM; the second one ends the program at once."""
    asked: list[bool] = []
    before: dict[int, Any] = {}

    def remember(number: int, _frame: FrameType | None) -> None:
        asked.append(True)
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, remember)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lines(told: dict[str, Any], indent: str = "") -> str:
    out = []
    for name, value in told.items():
        if isinstance(value, dict):
            out += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            out.append(f"{indent}{name}: {value}")
    return "\n".join(out)


def _asked_and_got(report: dict[str, Any]) -> list[str]:
    """Of wheels: what the sentences get, and whether the student tells them apart."""
    lines = []
    rows = report.get("restrictions", [])
    if rows:
        pairs = ", ".join(f"{row['requested']:.0%}: {row['realised']:.1%}" for row in rows if not row["held_out"])
        lines.append(f"tokens of the teacher, asked for and got: {pairs}")
    lines += _worth_it(report.get("asking"))
    read = report.get("sentences_read")
    if read is not None and read < READ:
        lines.append(
            f"Warning: the student's states tell only {max(read, 0.0):.0%} of what the sentences allow, so it asks "
            "alike under all of them. More wheels.sentence_steps teach it to read them."
        )
    return lines


def _worth_it(asking: dict[str, Any] | None) -> list[str]:
    """What asking leaves of the student's regret, and who asks better."""
    if not asking:
        return []
    from training.distill.wheels.asking import better

    levels = asking["levels"]
    told = ", ".join(
        f"{one['requested']:.0%}: {one['left']:.2f} by the sentence and {one['threshold_left']:.2f} by a threshold"
        for one in levels
    )
    lines = [f"regret left in a text, nats ({asking['alone']:.2f} alone): {told}"]
    said = {
        "policy": "Warning: for as many tokens a threshold on its largest probability helps this student more than its "
        "own asking does, so `tw serve` watches it; --help-by student lets it ask.",
        "student": "Its own asking helps it more than a threshold does: `tw serve` lets it ask.",
        None: "A threshold on its largest probability would help it as much; `tw serve` lets it ask.",
    }
    return [*lines, said[better(asking)]]


def _summary(report: dict[str, Any], config: DistillConfig) -> str:
    data = report["data"]["train"]
    lines = [
        f"{data['used_rows']} rows ({data['examples']} read, {data['too_long']} too long: {data['too_long_were']})"
    ]
    for name, stage in report["stages"].items():
        lines.append(f"{name}: {stage['steps']} steps, {stage['tokens']:,} tokens, {stage['seconds']:.0f} s")
    measured = {name.removeprefix("val_"): value for name, value in report["validation"].items()}
    if measured:
        lines.append("held out: " + ", ".join(f"{name} {value:.4f}" for name, value in sorted(measured.items())))
    lines += _asked_and_got(report)
    lines += [f"Warning: {alarm}" for alarm in report.get("collapse", {}).get("alarms", [])]
    lines.append(f"Student in {config.out / 'student'}, report.json and curves.png beside it.")
    if report.get("restrictions") and config.teacher is not None:
        share = report["restrictions"][-1]["requested"]
        lines.append(
            f"Serve it: tw serve --student {config.out / 'student'} --teacher {config.teacher.path} "
            f'--budget "At most {share:.0%} of the tokens."'
        )
    return "\n".join(lines)
