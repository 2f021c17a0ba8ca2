"""Writes docs/commands.md from the commands themselves: `make docs`. A test compares the two."""

from pathlib import Path

import click

from server.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
HEAD = """# Commands

Made from the commands themselves (`make docs`), so this is what `--help` says. Exit code 0: done; 1: failed; 2: wrong
use, or input that cannot be read. `--json`, where there is one, prints the result for programs.

Verbs, options and names complete with Tab after `eval "$(_TW_COMPLETE=bash_source tw)"` in `~/.bashrc` (`zsh_source` in
`~/.zshrc`; for fish, `_TW_COMPLETE=fish_source tw | source` in `config.fish`).
"""


def commands() -> dict[str, click.Command]:
    """Every command of `tw` by the words that call it."""
    found: dict[str, click.Command] = {}

    def walk(words: str, command: click.Command) -> None:
        found[words] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None, f"{words} {name} does not load"
                walk(f"{words} {name}", inner)

    walk("tw", main)
    del found["tw"]
    return found


def _sentences(text: str) -> str:
    """A docstring's paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").strip().split("\n\n"))


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if isinstance(option.type, click.Choice):
        names += f" {{{', '.join(map(str, option.type.choices))}}}"
    elif not option.is_flag:
        names += f" {option.metavar or option.type.name.removesuffix(' range').upper()}"
    said = [_sentences(option.help or ("Print the result as JSON." if "--json" in option.opts else ""))]
    if option.show_default and option.default is not None and not option.required:
        said.append(f"Default: {option.default}.")
    if option.required:
        said.append("Required.")
    if option.multiple:
        said.append("May be given more than once.")
    text = " ".join(filter(None, said))
    return f"- {names}: {text}" if text else f"- {names}"


def _section(words: str, command: click.Command) -> str:
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    title = " ".join([words, *arguments])
    parts = [f"## {title}", _sentences(command.help or "")]
    if options:
        parts.append("\n".join(_option(option) for option in options))
    return "\n\n".join(parts) + "\n"


def page() -> str:
    sections = [
        _section(words, command) for words, command in commands().items() if not isinstance(command, click.Group)
    ]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    PAGE.write_text(page())
