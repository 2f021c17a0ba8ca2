"""`tw key`: API keys of the gateway."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from server.auth import KeyFileError, Keys
from server.settings import SettingsError, load_settings


def state_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--state-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its state; as for `tw serve`."
    )(command)


def state_dir_of(given: Path | None) -> Path:
    try:
        return load_settings(state_dir=given).state_dir
    except SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


@click.group()
def key() -> None:
    """Make, list and revoke API keys. A running gateway takes changes up within a second."""


@key.command()
@click.option("--name", required=True, help="Whose key it is.")
@click.option("--admin", is_flag=True, help="May read and change the budget.")
@click.option("--tenant", default="", help="Tenant it counts under in per-tenant limits; also its key group in rules.")
@click.option("--json", "as_json", is_flag=True)
@state_dir_option
def new(name: str, admin: bool, tenant: str, as_json: bool, state_dir: Path | None) -> None:
    """Make a key. It is shown once and kept only as a hash."""
    keys = _keys(state_dir)
    try:
        secret = keys.new(name, admin=admin, tenant=tenant)
    except KeyFileError as error:
        click.echo(f"tw key new: {error}", err=True)
        sys.exit(1)
    made = keys.all()[-1]
    if as_json:
        click.echo(json.dumps({"id": made.id, "name": name, "admin": admin, "tenant": tenant, "key": secret}))
    else:
        click.echo(secret)
        click.echo(f"This is {made.id}. It is shown only now: keep it.", err=True)


@key.command("list")
@click.option("--json", "as_json", is_flag=True)
@state_dir_option
def list_keys(as_json: bool, state_dir: Path | None) -> None:
    """List the keys, without the keys."""
    rows = [
        {"id": k.id, "name": k.name, "admin": k.admin, "tenant": k.tenant, "created_at": k.created_at}
        for k in _keys(state_dir).all()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("id", "name", "admin", "tenant")
    for row in rows:
        table.add_row(str(row["id"]), str(row["name"]), "yes" if row["admin"] else "", str(row["tenant"]))
    Console().print(table)


@key.command()
@click.argument("key_id")
@state_dir_option
def revoke(key_id: str, state_dir: Path | None) -> None:
    """Revoke a key by its id."""
    if not _keys(state_dir).revoke(key_id):
        click.echo(f"tw key revoke: no key {key_id!r}; `tw key list` shows them", err=True)
        sys.exit(1)
    click.echo(f"Revoked {key_id}.")


def _keys(state_dir: Path | None) -> Keys:
    try:
        return Keys(state_dir_of(state_dir) / "keys.json", open_on_loopback=True)
    except KeyFileError as error:
        click.echo(f"tw key: {error}", err=True)
        sys.exit(1)
