"""`tw budget`: read a budget in plain words; look at the running one, or change it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

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
from server.commands.rewording import NotReworded, reword
from server.settings import Settings, SettingsError, load_settings


@click.group()
def budget() -> None:
    """Budgets in plain words, English or Japanese."""


def _asking_options(command: Any) -> Any:
    command = click.option("--yes", is_flag=True, help="With --ask: take what the model proposes without a question.")(
        command
    )
    command = click.option(
        "--ask-key-env", default="TW_ASK_KEY", show_default=True, help="With --ask: the variable that holds its key."
    )(command)
    command = click.option("--ask-model", default="teacher", show_default=True, help="With --ask: the model's name.")(
        command
    )
    return click.option(
        "--ask", metavar="URL", help="Where TEXT cannot be read, let the model at this OpenAI-compatible URL say it in "
        "words that can; you see what was understood and say yes or no.",
    )(command)  # fmt: skip


@budget.command("parse")
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the budget, or the error, as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with the time zone and the currency rates.")
@_asking_options
def parse_text(
    text: str, as_json: bool, config: Path | None, ask: str | None, ask_model: str, ask_key_env: str, yes: bool
) -> None:
    """Read TEXT and say back exactly what was understood. Exit 2 where it cannot be read."""
    settings = _settings("parse", config)
    try:
        parsed = parse(text, timezone=settings.timezone, rates=settings.rates)
    except Unreadable as error:
        if ask is None:
            _say_unreadable(text, error, as_json=as_json)
        parsed = _reworded("parse", text, error, settings, ask, ask_model, ask_key_env, yes=yes, quiet=as_json)
    if as_json:
        click.echo(json.dumps(parsed.as_dict(), ensure_ascii=False))
        return
    _print_parsed(parsed)


def somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _settings(verb: str, config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except SettingsError as error:
        click.echo(f"tw budget {verb}: {error}", err=True)
        sys.exit(2)


def _say_unreadable(text: str, error: Unreadable, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
    else:
        click.echo(underlined(text, error), err=True)
    sys.exit(2)


def _reworded(
    verb: str,
    text: str,
    error: Unreadable,
    settings: Settings,
    url: str,
    model: str,
    key_env: str,
    *,
    yes: bool,
    quiet: bool,
) -> Parsed:
    """What a model made of the words, once a person has said yes to it. Exits 2 where it is of no use or not wanted."""
    try:
        key = os.environ.get(key_env, "").strip() or None
        proposal = reword(text, error, url, model=model, key=key, timezone=settings.timezone, rates=settings.rates)
    except NoGatewayUrl as wrong:
        raise click.BadParameter(str(wrong), param_hint="--ask") from None
    except (NotReworded, GatewayRefused, GatewayUnreachable) as failed:
        click.echo(underlined(text, error), err=True)
        click.echo(f"tw budget {verb}: {failed}", err=True)
        sys.exit(2)
    if not quiet or not yes:
        click.echo(f"The grammar cannot read this ({error.message})", err=True)
        click.echo(f"The model {model} takes it for:\n\n  {proposal.parsed.canonical}\n", err=True)
        if not proposal.complete:
            click.echo("It may have left something out.", err=True)
    if yes:
        return proposal.parsed
    if not somebody_is_there():
        click.echo(f"tw budget {verb}: nobody is there to say yes; look at it and repeat with --yes", err=True)
        sys.exit(2)
    if not click.confirm("Is that what you mean?", default=False, err=True):
        click.echo("Nothing was changed.", err=True)
        sys.exit(2)
    return proposal.parsed


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
@_asking_options
def set_text(
    text: str,
    dry_run: bool,
    gateway: str,
    admin_key_file: Path | None,
    as_json: bool,
    ask: str | None,
    ask_model: str,
    ask_key_env: str,
    yes: bool,
) -> None:
    """Change the running budget to TEXT, for all workers at once. What was spent stays spent."""
    if ask is not None:
        settings = _settings("set", None)
        try:
            parse(text, timezone=settings.timezone, rates=settings.rates)
        except Unreadable as error:
            text = _reworded("set", text, error, settings, ask, ask_model, ask_key_env, yes=yes, quiet=as_json).text
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
