"""The verb `tw what-if`. Thin: reads flags, calls one function, prints."""

import json
from pathlib import Path

import click

from training.bars import stages
from training.cli import PATH, Unreadable


@click.command("what-if")
@click.option("--log", "log_dir", required=True, type=PATH, help="The gateway's state directory, or its decisions/.")
@click.option("--budget", "text", help="A budget in plain words [the share that was asked].")
@click.option("--policy", "policy_dir", type=PATH, help="Directory of another policy [the one that was logged].")
@click.option(
    "--timezone", default="UTC", show_default=True, help="Zone of calendar windows whose sentence names none."
)
@click.option("--plot", type=PATH, help="Write quality against share, with intervals, as PNG.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the replay and of the outcome model's folds.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def what_if(
    log_dir: Path,
    text: str | None,
    policy_dir: Path | None,
    timezone: str,
    plot: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """What a budget or a policy would have done on logged traffic.

    Quality, share of teacher calls and cost, with 95% intervals, and whether the log can tell at all. Qualities come
    from feedback. Another budget for the same policy needs no text in the log; another policy needs log_text.
    """
    from policies.artifact import ArtifactError, load_policy
    from router.language import Unreadable as UnreadableBudget
    from router.language import parse
    from training.candidates import CannotScore
    from training.decision_rows import LogError, read_decisions
    from training.extras import ExtraMissing, require
    from training.recorded_traffic import record_traffic
    from training.what_if import gather, same_share
    from training.what_if_print import print_report
    from training.what_if_report import passes_for, share_told, what_if_report

    if text is None and policy_dir is None:
        raise click.UsageError("say what would have been: --budget TEXT, --policy DIR, or both")
    try:
        if plot is not None:
            require("train", "matplotlib")
            if not plot.parent.is_dir():
                raise LogError(f"--plot {plot}: no such directory {plot.parent}")
        budget = None if text is None else parse(text, timezone=timezone).budget
        policy = None if policy_dir is None else load_policy(policy_dir)
        log = read_decisions(log_dir)
        told = budget or same_share(record_traffic(log.rows))
        evidence = gather(log, policy=policy, share=share_told(told), seed=seed)
        with stages() as told_so_far:
            told_so_far.stage("replaying", len(log.rows) * passes_for(len(log.rows)))
            report = what_if_report(evidence, told, log=log, text=text, tick=told_so_far.advance)
        if plot is not None:
            from training.plots import what_if_curve

            plot.write_bytes(what_if_curve(report))
    except UnreadableBudget as error:
        if as_json:
            click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
            raise SystemExit(2) from None
        raise Unreadable(f"--budget: {error}") from None
    except (LogError, CannotScore, ArtifactError) as error:
        raise Unreadable(str(error)) from None
    except (ExtraMissing, OSError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False))
        return
    print_report(report)
