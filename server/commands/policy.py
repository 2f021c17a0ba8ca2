"""`tw policy`: saved policies and what each of them does."""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.table import Table

from server.commands.key import state_dir_of, state_dir_option
from server.policy_store import PolicyStore, PolicyStoreError, Serving
from server.served_models import ServedModels

T = TypeVar("T")


def _share(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """`5%` or `0.05`, as a fraction."""
    if value is None:
        return None
    text = value.strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a share; write it like 5% or 0.05", context, option) from None
    if not 0.0 < share < 1.0:
        raise click.BadParameter(f"{value} does not lie above 0% and below 100%", context, option)
    return share


json_option = click.option("--json", "as_json", is_flag=True)


@click.group()
def policy() -> None:
    """Keep policies, and say which one serves, is tried on a share, or looks on. A running gateway takes changes up
    within a second or two, and drops no request over it."""


@policy.command("list")
@json_option
@state_dir_option
def list_policies(as_json: bool, state_dir: Path | None) -> None:
    """List the kept policies: what each does, and when it last began to."""
    store = PolicyStore(state_dir_of(state_dir))
    serving = _checked(store.serving)
    rows = [_row(store, version, serving) for version in store.versions()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("version", "name", "signals", "role", "since", "added from")
    for row in rows:
        since = "" if row["since"] is None else _time(row["since"])
        role = f"canary, {row['share']:.3g}" if row["role"] == "canary" else row["role"] or ""
        table.add_row(row["version"], str(row["name"]), str(row["signals"]), role, since, row["source"] or "")
    Console().print(table)


@policy.command()
@click.argument("version")
@state_dir_option
def show(version: str, state_dir: Path | None) -> None:
    """Print the manifest of a kept policy as JSON, and what was done with it when."""
    store = PolicyStore(state_dir_of(state_dir))
    history = [
        {"at": _time(each.at), "event": each.event, **_given(source=each.source, instead_of=each.instead_of)}
        for each in store.history()
        if each.version == version
    ]
    manifest = _checked(lambda: store.manifest(version))
    click.echo(json.dumps({**manifest, "history": history}, indent=1, ensure_ascii=False))


@policy.command()
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
@state_dir_option
def add(directory: Path, as_json: bool, state_dir: Path | None) -> None:
    """Keep a copy of a policy that `tw train policy` wrote; it does nothing yet."""
    store = PolicyStore(state_dir_of(state_dir))
    version = _checked(lambda: store.add(directory, time.time()))
    click.echo(json.dumps({"version": version}) if as_json else f"Kept {version}.")


@policy.command()
@click.argument("version_or_dir")
@json_option
@state_dir_option
def promote(version_or_dir: str, as_json: bool, state_dir: Path | None) -> None:
    """Let a policy serve: a version that is kept, or a directory that `tw train policy` wrote."""
    store, directory = _store(state_dir)
    version = _kept(store, version_or_dir)
    _warn(store, directory, version)
    _say(_checked(lambda: store.promote(version, time.time())), as_json)


@policy.command()
@json_option
@state_dir_option
def rollback(as_json: bool, state_dir: Path | None) -> None:
    """Go back to the policy that served before."""
    store, directory = _store(state_dir)
    serving = _checked(lambda: store.rollback(time.time()))
    _warn(store, directory, serving.version)
    _say(serving, as_json)


@policy.command()
@click.argument("version_or_dir", required=False)
@click.option("--off", is_flag=True, help="Let no policy look on.")
@json_option
@state_dir_option
def shadow(version_or_dir: str | None, off: bool, as_json: bool, state_dir: Path | None) -> None:
    """Let a policy look on: asked about every request, logged, and never acted upon."""
    _one_of("VERSION_OR_DIR", version_or_dir is not None, "--off", off)
    store, directory = _store(state_dir)
    if version_or_dir is None:
        _say(_checked(lambda: store.shadow_off(time.time())), as_json)
        return
    version = _kept(store, version_or_dir)
    serving = _checked(lambda: store.set_shadow(version, time.time()))
    _warn(store, directory, version)
    if _signals(store, version) == "draft" and _signals(store, serving.version) != "draft":
        _complain("the policy that serves reads no drafts, so there are none to ask this one about")
    _say(serving, as_json)


@policy.command()
@click.argument("version_or_dir", required=False)
@click.option(
    "--share", metavar="SHARE", callback=_share, help="How many of the conversations it decides: 5%, or 0.05."
)
@click.option("--off", is_flag=True, help="End the trial; the serving policy decides everything again.")
@click.option("--promote", "promoted", is_flag=True, help="End the trial; the canary serves from now on.")
@json_option
@state_dir_option
def canary(
    version_or_dir: str | None, share: float | None, off: bool, promoted: bool, as_json: bool, state_dir: Path | None
) -> None:
    """Let a policy decide a share of the requests: the same conversations always, chosen by a hash."""
    _one_of("VERSION_OR_DIR", version_or_dir is not None, "--off", off, "--promote", promoted)
    store, directory = _store(state_dir)
    if off:
        serving = _checked(lambda: store.canary_off(time.time()))
    elif version_or_dir is None:
        version = _canary_of(store)
        serving = _checked(lambda: store.promote(version, time.time()))
    elif share is None:
        raise click.UsageError("--share is needed: the share of the conversations that it decides, like 5%")
    else:
        version, decides = _kept(store, version_or_dir), share
        serving = _checked(lambda: store.set_canary(version, decides, time.time()))
        _warn(store, directory, version)
    _say(serving, as_json)


def _one_of(*names_and_given: Any) -> None:
    names, given = names_and_given[::2], names_and_given[1::2]
    if sum(given) != 1:
        raise click.UsageError(f"give one of {', '.join(names)}")


def _store(given: Path | None) -> tuple[PolicyStore, Path]:
    directory = state_dir_of(given)
    return PolicyStore(directory), directory


def _kept(store: PolicyStore, version_or_dir: str) -> str:
    if version_or_dir in store.versions():
        return version_or_dir
    path = Path(version_or_dir)
    return _checked(lambda: store.add(path, time.time())) if path.is_dir() else version_or_dir


def _canary_of(store: PolicyStore) -> str:
    serving = _checked(store.serving)
    if serving is None or serving.canary is None:
        _give_up("there is no canary")
    return serving.canary


def _warn(store: PolicyStore, directory: Path, version: str) -> None:
    """Where the gateway of this state directory serves other models than the policy was trained for."""
    for warning in ServedModels.read(directory).warnings(_checked(lambda: store.manifest(version))):
        _complain(f"warning: {warning}")


def _signals(store: PolicyStore, version: str) -> str:
    return str(_checked(lambda: store.manifest(version))["signals"])


def _say(serving: Serving, as_json: bool) -> None:
    if as_json:
        row = {"serving": serving.version, "canary": serving.canary, "canary_share": serving.canary_share}
        click.echo(json.dumps({**row, "shadow": serving.shadow}))
        return
    click.echo(f"Serving {serving.version}.")
    if serving.canary is not None:
        click.echo(f"Canary {serving.canary} decides {serving.canary_share:.3g} of the conversations.")
    if serving.shadow is not None:
        click.echo(f"Shadow {serving.shadow} looks on.")


def _row(store: PolicyStore, version: str, serving: Serving | None) -> dict[str, Any]:
    manifest = _checked(lambda: store.manifest(version))
    role = None if serving is None else serving.role_of(version)
    events = [each for each in store.history() if each.version == version]
    began = [each for each in events if each.event not in ("added", "canary_off", "shadow_off")]
    source = next((each.source for each in reversed(events) if each.event == "added"), None)
    return {
        "version": version,
        "name": manifest.get("name"),
        "signals": manifest.get("signals"),
        "created": manifest.get("created"),
        "serving": role == "serving",
        "role": role,
        "share": serving.canary_share if serving is not None and role == "canary" else None,
        "since": began[-1].at if began and role is not None else None,
        "instead_of": began[-1].instead_of if began and role == "serving" else None,
        "source": source,
    }


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _checked(step: Callable[[], T]) -> T:
    try:
        return step()
    except PolicyStoreError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"{error.filename}: {error.strerror}")


def _complain(message: str) -> None:
    click.echo(f"tw policy: {message}", err=True)


def _give_up(message: str) -> NoReturn:
    _complain(message)
    sys.exit(1)
