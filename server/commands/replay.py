"""`tw replay`: an OpenAI-compatible upstream that answers from an outcome table."""

import socket
import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--outcomes",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Outcome table (Parquet or JSONL); repeatable.",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only the rows of this split.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9000, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option(
    "--tokens-per-second", type=click.FloatRange(min=0, min_open=True), help="Pace of one answer. Default: at once."
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="[F...]")
def replay(
    outcomes: tuple[Path, ...],
    split: str | None,
    host: str,
    port: int,
    tokens_per_second: float | None,
    more: tuple[Path, ...],
) -> None:
    """Answer as `student` and as `teacher` what the models of an outcome table have answered; where the table holds
    several teachers, as each of them by its name.

    Prompts are found by their text. A prompt that is not in the table gets 404; a row without a text gets a sentence
    that says so. Ends with Ctrl-C.
    """
    import uvicorn

    from policies.outcomes import OutcomeTableError, read_outcomes
    from server.engines.replay import ReplayApp
    from server.engines.replay_table import ReplayTable

    try:
        rows = read_outcomes(*outcomes, *more)
    except OutcomeTableError as error:
        click.echo(f"tw replay: {error}", err=True)
        sys.exit(2)
    table = ReplayTable(row for row in rows if split is None or row.split == split)
    if not len(table):
        click.echo(f"tw replay: no row belongs to the split {split!r}", err=True)
        sys.exit(2)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        click.echo(
            f"tw replay: cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host", err=True
        )
        sys.exit(1)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{len(table):,} prompts on http://{shown}:{listener.getsockname()[1]}/v1 as {', '.join(table.names())}")
    if table.repeated:
        click.echo(f"{table.repeated:,} rows repeat an earlier prompt and are never answered from.")
    for side in table.sides():
        absent = table.without_text(side)
        if absent:
            click.echo(f"{absent:,} rows hold no text of the {side}; a sentence stands in.")
    config = uvicorn.Config(
        ReplayApp(table, tokens_per_second), log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listener])
