"""`tw`: one thin verb per thing a person does. Verbs load when they are used, so none needs what another needs."""

import importlib
from importlib.metadata import entry_points
from typing import Any

import click

# verb -> "module:attribute"; those outside server/ come from the entry points `training_wheels.verbs`.
VERBS = {
    "serve": "server.commands.serve:serve",
    "budget": "server.commands.budget:budget",
    "replay": "server.commands.replay:replay",
    "key": "server.commands.key:key",
    "policy": "server.commands.policy:policy",
    "log": "server.commands.log:log",
}


class LazyGroup(click.Group):
    """A click group that imports a verb's module when the verb is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._targets = dict(VERBS)
        for entry in entry_points(group="training_wheels.verbs"):
            self._targets[entry.name] = entry.value

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(self._targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        target = self._targets.get(cmd_name)
        if target is None:
            return None
        module_name, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="training-wheels", prog_name="tw")
def main() -> None:
    """Serve a small model, ask a big one when it pays, and keep a budget written in plain words."""
