"""`tw policy`: saved policies and which one serves."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from server.commands.key import state_dir_of, state_dir_option
from server.policy_store import PolicyStore, PolicyStoreError


@click.group()
def policy() -> None:
    """List, show, promote and roll back policies. A running gateway takes changes up within a second."""


@policy.command("list")
@click.option("--json", "as_json", is_flag=True)
@state_dir_option
def list_policies(as_json: bool, state_dir: Path | None) -> None:
    """List the kept policies."""
    store = PolicyStore(state_dir_of(state_dir))
    serving = _checked(store.serving)
    rows = [_row(store, version, serving.version if serving else None) for version in store.versions()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("version", "name", "signals", "serving")
    for row in rows:
        table.add_row(row["version"], str(row["name"]), str(row["signals"]), "yes" if row["serving"] else "")
    Console().print(table)


@policy.command()
@click.argument("version")
@state_dir_option
def show(version: str, state_dir: Path | None) -> None:
    """Print the manifest of a kept policy as JSON."""
    store = PolicyStore(state_dir_of(state_dir))
    click.echo(json.dumps(_checked(lambda: store.manifest(version)), indent=1, ensure_ascii=False))


@policy.command()
@click.argument("version_or_dir")
@state_dir_option
def promote(version_or_dir: str, state_dir: Path | None) -> None:
    """Let a policy serve: a version that is kept, or a directory that `tw train policy` wrote."""
    store = PolicyStore(state_dir_of(state_dir))
    path = Path(version_or_dir)
    version = _checked(lambda: store.add(path)) if path.is_dir() else version_or_dir
    serving = _checked(lambda: store.promote(version, time.time()))
    click.echo(f"Serving {serving.version}.")


@policy.command()
@state_dir_option
def rollback(state_dir: Path | None) -> None:
    """Go back to the policy that served before."""
    store = PolicyStore(state_dir_of(state_dir))
    serving = _checked(lambda: store.rollback(time.time()))
    click.echo(f"Serving {serving.version}.")


def _row(store: PolicyStore, version: str, serving: str | None) -> dict[str, Any]:
    manifest = store.manifest(version)
    return {
        "version": version,
        "name": manifest.get("name"),
        "signals": manifest.get("signals"),
        "created": manifest.get("created"),
        "serving": version == serving,
    }


def _checked(step: Any) -> Any:
    try:
        return step()
    except PolicyStoreError as error:
        click.echo(f"tw policy: {error}", err=True)
        sys.exit(1)
