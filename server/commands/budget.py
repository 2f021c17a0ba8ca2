"""`tw budget`: read a budget in plain words; look at the running one, or change it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from router.language import Parsed, Unreadable, parse
from server.commands.gateway_client import (
    DEFAULT_GATEWAY,
    GatewayClient,
    GatewayRefused,
    GatewayUnreachable,
    NoGatewayUrl,
)
from server.settings import SettingsError, load_settings


@click.group()
def budget() -> None:
    """Budgets in plain words, English or Japanese."""


@budget.command("parse")
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the budget, or the error, as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with the time zone and the currency rates.")
def parse_text(text: str, as_json: bool, config: Path | None) -> None:
    """Read TEXT and say back exactly what was understood. Exit 2 where it cannot be read."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        click.echo(f"tw budget parse: {error}", err=True)
        sys.exit(2)
    try:
        parsed = parse(text, timezone=settings.timezone, rates=settings.rates)
    except Unreadable as error:
        if as_json:
            click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        else:
            click.echo(underlined(text, error), err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(parsed.as_dict(), ensure_ascii=False))
        return
    _print_parsed(parsed)


def _gateway_options(command: Any) -> Any:
    command = click.option("--json", "as_json", is_flag=True, help="Print the gateway's answer as JSON.")(command)
    command = click.option(
        "--admin-key-file",
        type=click.Path(path_type=Path),
        help="File that holds the admin key; without it the key is read from TW_ADMIN_KEY.",
    )(command)
    return click.option("--gateway", default=DEFAULT_GATEWAY, show_default=True, help="URL of the running gateway.")(
        command
    )


@budget.command()
@_gateway_options
def show(gateway: str, admin_key_file: Path | None, as_json: bool) -> None:
    """Show the running budget and what is left of it."""
    state = _ask("show", gateway, admin_key_file, "GET", "/v1/budget")
    if as_json:
        click.echo(json.dumps(state, ensure_ascii=False))
    else:
        _print_state(state)


@budget.command("set")
@click.argument("text")
@click.option("--dry-run", is_flag=True, help="Only say what TEXT would have done on recent traffic; change nothing.")
@_gateway_options
def set_text(text: str, dry_run: bool, gateway: str, admin_key_file: Path | None, as_json: bool) -> None:
    """Change the running budget to TEXT, for all workers at once. What was spent stays spent."""
    method, path = ("POST", "/v1/budget/preview") if dry_run else ("PUT", "/v1/budget")
    state = _ask("set", gateway, admin_key_file, method, path, {"text": text})
    if as_json:
        click.echo(json.dumps(state, ensure_ascii=False))
    elif dry_run:
        _print_preview(state)
    else:
        _print_state(state)


def _ask(
    verb: str, gateway: str, key_file: Path | None, method: str, path: str, body: dict[str, str] | None = None
) -> dict[str, Any]:
    """The gateway's answer. Exits 2 where it calls our input wrong (400, 422), 1 for anything else that fails."""
    try:
        client = GatewayClient(gateway, _admin_key(key_file))
        return client.request(method, path, body)
    except NoGatewayUrl as error:
        raise click.BadParameter(str(error), param_hint="--gateway") from None
    except GatewayRefused as error:
        click.echo(f"tw budget {verb}: {error}", err=True)
        sys.exit(2 if error.status in (400, 422) else 1)
    except GatewayUnreachable as error:
        click.echo(f"tw budget {verb}: {error}", err=True)
        sys.exit(1)


def _admin_key(key_file: Path | None) -> str | None:
    if key_file is None:
        return os.environ.get("TW_ADMIN_KEY", "").strip() or None
    try:
        return key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{key_file}: {error}", param_hint="--admin-key-file") from None


def underlined(text: str, error: Unreadable) -> str:
    """The text with the phrase underlined, the message and the hint. Wide characters get two carets."""
    first, last = error.at
    line_start = text.rfind("\n", 0, first) + 1
    line_end = text.find("\n", first)
    line = text[line_start : line_end if line_end >= 0 else len(text)].replace("\t", " ")
    marked = line[first - line_start : max(last - line_start, first - line_start)]
    carets = "^" * max(1, cell_len(marked))
    shown = [f"  {line}", f"  {' ' * cell_len(line[: first - line_start])}{carets}"] if text.strip() else []
    return "\n".join([*shown, error.message, error.hint])


def _print_parsed(parsed: Parsed) -> None:
    console = Console()
    console.print(parsed.canonical, markup=False, highlight=False)
    if not parsed.budget.limits:
        return
    table = Table("kind", "measure", "at most", "per", "scope", "during")
    for limit, shape in zip(parsed.budget.limits, parsed.as_dict()["limits"], strict=True):
        per = "" if limit.per is None else f"{limit.per.n} {limit.per.unit}" + (" rolling" if limit.per.rolls else "")
        during = shape["during"]
        hours = (
            ""
            if during is None
            else f"{'outside ' if during.get('otherwise') else ''}{' '.join(during['days'])} "
            f"{during['from']}-{during['to']} {during['tz']}"
        )
        table.add_row(limit.kind, limit.measure, f"{shape['at_most']:g}", per, limit.scope, hours)
    console.print(table)


def _print_state(state: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{state['canonical']}", markup=False, highlight=False)
    console.print(f"Version {state['version']}.", markup=False, highlight=False)
    balances = state.get("balances") or []
    if not balances:
        return
    table = Table("limit", "spent", "allowed", "requests", "calls", "resets in")
    for balance in balances:
        resets = balance.get("resets_in_s")
        table.add_row(
            balance["limit"],
            f"{balance['spent']:g}",
            f"{balance['allowed']:g}",
            str(balance["requests"]),
            str(balance["calls"]),
            "" if resets is None else duration(resets),
        )
    console.print(table)


def _print_preview(state: dict[str, Any]) -> None:
    console = Console()
    console.print(state["canonical"], markup=False, highlight=False)
    replayed = state.get("replayed") or {}
    if not replayed.get("requests"):
        console.print("No recent traffic to try it on. Nothing was changed.", markup=False)
        return
    console.print(
        f"On the last {replayed['requests']} requests: the teacher wanted {replayed['teacher_wanted']} times, "
        f"granted {replayed['teacher_granted']} times ({replayed['teacher_share']:.1%} of requests). "
        "Nothing was changed.",
        markup=False,
        highlight=False,
    )
    for words, count in (replayed.get("refused_by") or {}).items():
        console.print(f"  refused {count} times by: {words}", markup=False, highlight=False)


def duration(seconds: float) -> str:
    """ "3 h 05 min", "42 s": how long until a window ends."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
