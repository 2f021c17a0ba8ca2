"""The report of `tw what-if` for a terminal: dry words, a table, what speaks against it."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `training.what_if_report` made."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    logged = report["logged"]
    say(
        f"{report['rows']} requests from {_day(logged['from'])} to {_day(logged['to'])}, {logged['routed']} of them"
        f" routed by a policy; qualities known of {logged['quality_known']:.0%}."
    )
    say(f"Asked: {report['budget']['canonical']}")
    if not report["policy"]["as_logged"]:
        say(f"Policy: {report['policy']['version']}")
    console.print(_rows(report))
    if report["quality"] is not None:
        say(
            f"Change of quality against what was done: {_signed(report['change'])}. The known qualities say as much as "
            f"{report['effective_sample_size']:.0f} requests decided this way would."
        )
        others = ", ".join(
            f"{name} {_of(report['estimators'][key])}"
            for key, name in (("ips", "importance weights"), ("snips", "self-normalised"))
        )
        say(f"Other estimates of the same quality: {others}.")
    if report["curve"]:
        console.print(_curve(report))
    for warning in report["warnings"]:
        say(f"Warning: {warning['message']}")
    for note in report["notes"]:
        say(f"- {note}")


def _rows(report: dict[str, Any]) -> Table:
    logged, usd = report["logged"], report["usd_per_request"] is not None
    table = Table("", "quality", "95%", "teacher share", *(["USD a request"] if usd else []))

    def row(name: str, of: dict[str, Any], share: float | None, cost: float | None) -> None:
        cells = [name, _shown(of["quality"]), _interval(of["quality_ci95"]), "-" if share is None else f"{share:.1%}"]
        table.add_row(*cells, *([_money(cost)] if usd else []))

    row("as it was", logged, logged["share"], logged["usd_per_request"])
    row("what if", report, report["share"], report["usd_per_request"])
    for name, words in (("student_only", "student only"), ("teacher_only", "teacher only")):
        if name in report["references"]:
            row(words, report["references"][name], None, None)
    return table


def _curve(report: dict[str, Any]) -> Table:
    table = Table("share of routed requests", "quality", "95%", "never seen", title="This policy at other shares")
    for point in report["curve"]:
        seen = "" if not point["unsupported"] else f"{point['unsupported']:.1%}"
        table.add_row(f"{point['budget']:.0%}", _shown(point["quality"]), _interval(point["quality_ci95"]), seen)
    return table


def _of(estimate: dict[str, Any]) -> str:
    return f"{_shown(estimate['quality'])} {_interval(estimate['quality_ci95'])}".strip()


def _signed(change: dict[str, Any]) -> str:
    interval = change["quality_ci95"]
    words = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    return f"{change['quality']:+.3f}{words}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(value: list[float] | None) -> str:
    return "" if value is None else f"[{value[0]:.3f}, {value[1]:.3f}]"


def _money(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
