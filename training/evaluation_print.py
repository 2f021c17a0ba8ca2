"""The report of `tw train policy` and `tw evaluate` in words: what each budget buys, and which sentence to write."""

import json
from typing import Any

import click


def in_lines(described: dict[str, Any]) -> str:
    """What `--dry-run` says of the tables, one thing a line."""
    return "\n".join(f"{name:>16}: {value}" for name, value in described.items())


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """To standard output, as JSON or as tables."""
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    if "curve" not in report:
        click.echo("No test rows to evaluate on.")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{report['rows']} rows: student {report['student_quality']:.3f}, teacher {report['teacher_quality']:.3f};"
        f" APGR {_shown(report['apgr'])} {_interval(report['apgr_ci95'])} (chance 0.5),"
        f" half the gap at {_shown(report['cpt50'])}, four fifths at {_shown(report['cpt80'])} of the calls",
        highlight=False,
        soft_wrap=True,
    )
    if "by_calls" in report:
        _print_teachers(report)
    with_intervals = "pgr_ci95" in report["curve"][0]
    table = Table("budget", "share", "quality", *(["95%"] if with_intervals else []), "gap recovered")
    if with_intervals:
        table.add_column("95%")
    for point in report["curve"]:
        cells = [f"{point['budget']:.0%}", _percent(point["share"]), _shown(point["quality"])]
        if with_intervals:
            cells += [_interval(point["quality_ci95"]), _percent(point["pgr"]), _percents(point["pgr_ci95"])]
        else:
            cells += [_percent(point["pgr"])]
        table.add_row(*cells)
    console.print(table)
    if len(report["baselines"]) > 2:
        rivals = Table("baseline", "APGR", "95%")
        for name, value in report["baselines"].items():
            rivals.add_row(name, _shown(value["apgr"]), _interval(value.get("apgr_ci95")))
        console.print(rivals)
    for note in report.get("notes", []):
        click.echo(note)
    if report.get("sentences"):
        click.echo("\nTo put in the budget, and the part of the gap that it recovers on these rows:")
    for each in report.get("sentences", []):
        quoted = f'"{each["sentence"]}"'
        click.echo(
            f"  {quoted:<30} {_percent(each['pgr'])} {_percents(each['pgr_ci95'])}, quality {each['quality']:.3f}"
        )


def serving_line(report: dict[str, Any], out: object) -> str:
    """The command that serves what was trained, under the last sentence where there is one."""
    sentences = report.get("sentences") or []
    budget = f' --budget "{sentences[-1]["sentence"]}"' if sentences else ""
    return f"tw serve --policy {out}{budget}"


def _print_teachers(report: dict[str, Any]) -> None:
    """Of several teachers: what the choice among them adds to asking always the same one."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("teacher", "quality", "USD a call", "chosen", "alone: APGR", "the choice adds", "95%")
    for name, teacher in report["teachers"].items():
        alone = report["by_calls"][name]
        usd = "-" if teacher["usd_per_call"] is None else f"{teacher['usd_per_call']:.6f}"
        cells = (_shown(teacher["chosen"]), _shown(alone["apgr"]), _shown(alone["learned_more"]))
        table.add_row(name, _shown(teacher["quality"]), usd, *cells, _interval(alone["learned_more_ci95"]))
    console.print(table)
    if "by_usd" not in report:
        return
    money = report["by_usd"]
    table = Table("USD per request", *money["quality"])
    for i, usd in enumerate(money["usd_per_request"]):
        table.add_row(f"{usd:.6f}", *(_shown(values[i]) for values in money["quality"].values()))
    console.print(table)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(value: list[float] | None) -> str:
    return "" if value is None else f"[{value[0]:.3f}, {value[1]:.3f}]"


def _percents(value: list[float] | None) -> str:
    return "" if value is None else f"[{value[0]:.0%}, {value[1]:.0%}]"
