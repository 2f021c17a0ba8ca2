"""`tw serve`: starts what must be started (models, workers), watches it, and ends all of it."""

import sys
from pathlib import Path
from typing import Any

import click

from server.running import StartError, run
from server.settings import SettingsError, load_settings


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings as TOML.")
@click.option("--student", metavar="MODEL", help="Directory or hub name of the student; the shipped one by default.")
@click.option("--teacher", metavar="MODEL", help="Directory or hub name of the teacher; the shipped one by default.")
@click.option("--student-url", metavar="URL", help="A running OpenAI-compatible server, ending in /v1.")
@click.option("--teacher-url", metavar="URL", help="A running OpenAI-compatible server, ending in /v1.")
@click.option("--student-name", metavar="NAME", help="The student's model name at its URL; asked for by default.")
@click.option("--teacher-name", metavar="NAME", help="The teacher's model name at its URL; asked for by default.")
@click.option("--student-key-env", metavar="VAR", help="Environment variable with the student's API key.")
@click.option("--teacher-key-env", metavar="VAR", help="Environment variable with the teacher's API key.")
@click.option("--engine", type=click.Choice(["auto", "vllm", "embedded"]), help="What serves --student and --teacher.")
@click.option("--vllm-python", metavar="PATH", help="Interpreter with vLLM, where it has an environment of its own.")
@click.option("--budget", metavar="TEXT", help='In plain words. Default: "At most 20% of requests."')
@click.option("--policy", metavar="DIR", type=click.Path(path_type=Path), help="Policy to serve; the shipped one.")
@click.option(
    "--help-by",
    type=click.Choice(["off", "student", "policy"]),
    help="The teacher helps inside answers: asked by the student's own <help> token, or by a policy that watches it.",
)
@click.option("--help-tokens", metavar="K", type=int, help="Tokens the teacher writes each time. Default 8.")
@click.option(
    "--help-share", metavar="PERCENT", help="The teacher's part of the tokens of helped answers, at most: 20%."
)
@click.option("--host", help="Address to listen on. Default 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on; 0 picks one. Default 8080.")
@click.option("--workers", type=int, help="Worker processes. Default 1.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Ledger, logs, keys and policies live here.")
@click.option("--log-text/--no-log-text", default=None, help="Write prompts and answers into the decision log.")
@click.option("--dry-run", is_flag=True, help="Check and print the settings and the budget; start nothing.")
def serve(config: Path | None, dry_run: bool, **flags: Any) -> None:
    """Serve a student by default and ask a teacher within a budget.

    Without options: the shipped pair on 127.0.0.1:8080 with "At most 20% of requests."
    """
    try:
        run(load_settings(config, **_as_settings(flags)), dry_run=dry_run)
    except SettingsError as error:
        click.echo(f"tw serve: {error}", err=True)
        sys.exit(2)
    except StartError as error:
        click.echo(f"tw serve: {error}", err=True)
        sys.exit(error.exit_code)


def _as_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as nested settings; those not given are left out, so that the file and the environment keep theirs."""
    settings = {name: flags[name] for name in ("budget", "policy", "host", "port", "workers", "state_dir", "log_text")}
    helping = {"by": flags["help_by"], "tokens": flags["help_tokens"], "token_share": _share(flags["help_share"])}
    if given_help := {name: value for name, value in helping.items() if value is not None}:
        settings["help"] = given_help
    for role in ("student", "teacher"):
        upstream: dict[str, Any] = {}
        model, url = flags[role], flags[f"{role}_url"]
        if model is not None and url is not None:
            raise SettingsError(f"--{role} and --{role}-url: give one of them")
        if model is not None or url is not None:
            upstream |= {"model": model, "url": url}  # naming one on the command line takes back the file's other
        given = {"name": f"{role}_name", "api_key_env": f"{role}_key_env", "engine": "engine", "python": "vllm_python"}
        upstream |= {key: flags[flag] for key, flag in given.items() if flags[flag] is not None}
        if upstream:
            settings[role] = upstream
    return {name: value for name, value in settings.items() if value is not None}


def _share(text: str | None) -> float | None:
    """ "20%", "20" and "0.2" are the same."""
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise SettingsError(f"--help-share {text}: not a percentage; write 20%") from None
    return value / 100 if text.strip().endswith("%") or value > 1 else value
