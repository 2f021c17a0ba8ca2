"""The verbs of the learning side: `tw train policy`, `tw evaluate`, `tw collect`. Thin: each reads flags, calls one
function, prints. Heavy packages are imported inside, so that `--help` is quick and their absence is one clear line.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from training.bars import stages

PATH = click.Path(path_type=Path)


class Unreadable(click.ClickException):
    """Wrong use or unreadable input."""

    exit_code = 2


@contextmanager
def _told_plainly() -> Iterator[None]:
    """One line and the promised exit code for everything that a user can put right."""
    from policies.artifact import ArtifactError
    from policies.outcomes import OutcomeTableError
    from training.collecting import CannotCollect
    from training.evaluate import CannotEvaluate
    from training.extras import ExtraMissing
    from training.train_policy import CannotTrain

    try:
        yield
    except (OutcomeTableError, ArtifactError, CannotTrain, CannotEvaluate, CannotCollect) as error:
        raise Unreadable(str(error)) from None
    except ExtraMissing as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        _stop("interrupted; tw train policy goes on with --resume, tw collect by itself")


def _stop(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


@click.group()
def train() -> None:
    """Train a policy from outcome tables."""


@train.command("policy")
@click.option(
    "--outcomes", multiple=True, required=True, type=PATH, help="Outcome table (Parquet or JSONL); repeatable."
)
@click.option("--out", required=True, type=PATH, help="Directory of the policy.")
@click.option("--signals", type=click.Choice(["prompt", "draft"]), help="What the policy sees [drafts where there].")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=click.IntRange(min=0), default=None, help="Training steps.")
@click.option(
    "--draft-cost", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of a draft, in teacher calls."
)
@click.option(
    "--on-policy",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Part of each batch rolled out by the policy itself.",
)
@click.option(
    "--trust",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of Trust-PCL's reference term.",
)
@click.option(
    "--most-rows",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="Of larger tables a sample of this size is learnt from, so that memory stays bounded.",
)
@click.option(
    "--encoder", default=None, help="A sentence encoder that reads the prompts as well: its directory, or a hub name."
)
@click.option(
    "--encoder-size", type=click.IntRange(1, 1024), default=32, show_default=True, help="Numbers kept of what it says."
)
@click.option(
    "--samples",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Short samples of the student that the policy looks at beside its draft (column student_samples).",
)
@click.option(
    "--sample-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of each, at most, in service."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Read and describe the tables, train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def train_policy_command(
    outcomes: tuple[Path, ...],
    out: Path,
    signals: Literal["prompt", "draft"] | None,
    seed: int,
    steps: int | None,
    draft_cost: float,
    on_policy: float,
    trust: float,
    most_rows: int,
    encoder: str | None,
    encoder_size: int,
    samples: int,
    sample_tokens: int,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Learn when to ask the teacher, for all budgets at once.

    Writes manifest.json, weights.npz, report.json, and curve.png, regret.png, calibration.png, training.png into --out.
    """
    from policies.outcomes import sample_outcomes
    from policies.samples import SampleWish
    from training.evaluation_print import in_lines, print_report, serving_line
    from training.extras import require
    from training.train_policy import CannotTrain, Progress, describe, train_policy

    with _told_plainly():
        if out.exists() and not out.is_dir():
            raise CannotTrain(f"{out} is a file; --out names a directory")
        if dry_run:
            sample = sample_outcomes(*outcomes, most=most_rows)
            described = describe(sample.rows, signals, seen=sample.seen).as_dict()
            click.echo(json.dumps(described, indent=2) if as_json else in_lines(described))
            return
        require("train", "torch", "sklearn", "matplotlib")
        if encoder is not None:
            require("encoder", "transformers")
        from training.learner import PathConsistencyConfig

        chosen: dict[str, Any] = {"seed": seed, "draft_cost": draft_cost, "on_policy": on_policy, "trust": trust}
        if steps is not None:
            chosen["steps"] = steps
        config = PathConsistencyConfig(**chosen)
        with stages() as told:
            report = train_policy(
                outcomes,
                out,
                config,
                signals=signals,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                resume=resume,
                progress=Progress(told.stage, told.advance),
                most_rows=most_rows,
                encoder=encoder,
                encoder_size=encoder_size,
                samples=SampleWish(samples, sample_tokens) if samples else None,
            )
    print_report(report, as_json)
    if not as_json:
        for warning in report["data"]["warnings"]:
            click.echo(f"Warning: {warning}", err=True)
        click.echo(f"Policy {report['policy_version']} saved in {out}, with report.json and its pictures. Serve it:")
        click.echo(f"  {serving_line(report, out)}")


@click.command()
@click.option("--policy", "policy_dir", required=True, type=PATH, help="Directory of the policy.")
@click.option(
    "--outcomes", multiple=True, required=True, type=PATH, help="Outcome table (Parquet or JSONL); repeatable."
)
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option("--baselines/--no-baselines", default=True, help="Fit the baselines on the train split, for comparison.")
@click.option("--plot", type=PATH, help="Write quality against share, with the baselines, as PNG.")
@click.option("--calibration", type=PATH, help="Write expected gain against the gain seen, as PNG.")
@click.option("--regret", type=PATH, help="Write its own thresholds against the best in hindsight, as PNG.")
@click.option(
    "--most-rows",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="Larger tables are measured on the sample of this size that `tw train policy` would learn from.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the baselines.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    policy_dir: Path,
    outcomes: tuple[Path, ...],
    split: str,
    baselines: bool,
    plot: Path | None,
    calibration: Path | None,
    regret: Path | None,
    most_rows: int,
    seed: int,
    as_json: bool,
) -> None:
    """Quality at every budget, against baselines on the same rows and features."""
    from policies.artifact import load_policy, read_manifest
    from policies.outcomes import sample_outcomes
    from training.evaluation_print import print_report
    from training.evaluation_run import evaluation_run
    from training.extras import require
    from training.train_policy import other_models, refuse_duplicates

    with _told_plainly():
        if baselines:
            require("train", "sklearn")
        if plot or calibration or regret:
            require("train", "matplotlib")
        policy = load_policy(policy_dir)
        sample = sample_outcomes(*outcomes, most=most_rows)
        rows = sample.rows
        refuse_duplicates(rows, outcomes)
        if sample.seen > len(rows):
            click.echo(f"Warning: {len(rows)} of {sample.seen} rows are measured, chosen by a hash", err=True)
        for warning in other_models(read_manifest(policy_dir), rows):
            click.echo(f"Warning: {warning}", err=True)
        with stages() as told:
            told.stage("evaluating", 8 if baselines else 1)
            report, pictures = evaluation_run(
                policy,
                rows,
                split=split,
                baselines=baselines,
                seed=seed,
                plot=plot is not None,
                calibration=calibration is not None,
                regret=regret is not None,
                tick=lambda note: told.advance(1, note),
            )
        for path, name in ((plot, "plot"), (calibration, "calibration"), (regret, "regret")):
            if path is not None:
                path.write_bytes(pictures[name])
    print_report(report, as_json)


@click.command()
@click.option(
    "--prompts", required=True, type=PATH, help="JSON lines: id, prompt or messages, reference, group, split."
)
@click.option("--out", required=True, type=PATH, help="Outcome table; Parquet or JSONL by its name.")
@click.option("--student-url", default=None, help="OpenAI-compatible base URL [the gateway on this machine].")
@click.option("--teacher-url", multiple=True, help="The same for the teacher; once for each of several.")
@click.option("--student-model", default="student", show_default=True)
@click.option("--teacher-model", multiple=True, help="Once for each of several.  [default: teacher]")
@click.option(
    "--teacher-label", multiple=True, help="What the table calls each of several teachers.  [default: the model's name]"
)
@click.option("--student-key-env", default="TW_STUDENT_API_KEY", show_default=True, help="Variable that holds the key.")
@click.option("--teacher-key-env", multiple=True, help="Once for all or for each.  [default: TW_TEACHER_API_KEY]")
@click.option("--student-price", nargs=2, type=float, default=None, help="USD per million tokens, in and out.")
@click.option("--teacher-price", nargs=2, type=float, multiple=True, help="The same for each teacher.")
@click.option("--grade", default="exact", show_default=True, help="exact, numeric, judge, or module:function.")
@click.option("--judge-url", default=None, help="Who judges [the teacher].")
@click.option("--judge-model", default=None)
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts under way at once."
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=None)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Short samples of the student to keep beside its answer.",
)
@click.option("--sample-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of each, at most.")
@click.option(
    "--attempts", type=click.IntRange(min=1), default=5, show_default=True, help="Per request, with growing waits."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def collect(
    prompts: Path,
    out: Path,
    student_url: str | None,
    teacher_url: tuple[str, ...],
    student_model: str,
    teacher_model: tuple[str, ...],
    teacher_label: tuple[str, ...],
    student_key_env: str,
    teacher_key_env: tuple[str, ...],
    student_price: tuple[float, float] | None,
    teacher_price: tuple[tuple[float, float], ...],
    grade: str,
    judge_url: str | None,
    judge_model: str | None,
    concurrency: int,
    max_tokens: int | None,
    temperature: float,
    samples: int,
    sample_tokens: int,
    attempts: int,
    as_json: bool,
) -> None:
    """Ask both models every prompt and grade the answers: an outcome table for your own pair.

    Run the same command again to go on after an interruption, or to ask again what failed.
    """
    import asyncio
    import os
    from dataclasses import asdict, replace

    from policies.samples import SampleWish
    from training.collecting import GATEWAY, Asking, CannotCollect, Endpoint, read_questions
    from training.collecting import collect as collect_rows
    from training.extras import require
    from training.grades import named_grade
    from training.teacher_options import per_teacher

    def endpoint(role: str, url: str | None, model: str, key_env: str, price: tuple[float, float] | None) -> Endpoint:
        return Endpoint(role, url or GATEWAY, model, os.environ.get(key_env), *(price or (None, None)))

    with _told_plainly():
        if out.suffix.lower() in (".parquet", ".pq"):
            require("tables", "pyarrow")
        if not out.parent.is_dir():
            raise CannotCollect(f"{out.parent}: no such directory")
        questions = read_questions(prompts)
        how = Asking(
            concurrency=concurrency,
            attempts=attempts,
            max_tokens=max_tokens,
            temperature=temperature,
            samples=SampleWish(samples, sample_tokens) if samples else None,
        )
        student = endpoint("student", student_url, student_model, student_key_env, student_price)
        teacher, *others = (
            replace(endpoint("teacher", *each[:4]), label=each[4])
            for each in per_teacher(
                teacher_url, teacher_model, teacher_key_env, teacher_price, teacher_label, student=student_model
            )
        )
        judge = Endpoint("judge", judge_url or teacher.url, judge_model or teacher.model, teacher.key)
        graded = named_grade(grade, judge, how)
        with stages() as told:
            told.stage("asking", len(questions))
            work = collect_rows(
                questions, out, student, teacher, graded, how, grade_name=grade, others=others, tick=told.advance
            )
            counts = asyncio.run(work)
    if as_json:
        click.echo(json.dumps(asdict(counts), indent=2))
        return
    click.echo(f"{counts.rows} rows in {out}; asked {counts.asked} in this run.")
    if counts.failed:
        click.echo(
            f"{counts.failed} of them lack an answer (first: {counts.first_error}); run again to retry.", err=True
        )
