"""Progress of long work on standard error: a bar for each stage on a terminal; where there is none, as in a log file, a
line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUIET_S = 30.0
"""Between two lines, so that short work says nothing and a night's work can be followed."""


class Stages:
    """Says how far the stage that was begun last has come. Calls before the first stage are ignored."""

    def __init__(self, begun: Callable[[str, int | None], None], moved: Callable[[int, int | None, str], None]) -> None:
        self._begun, self._moved = begun, moved
        self._done: int | None = None
        self._total: int | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        self._done, self._total = 0, total
        self._begun(name, total)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self._done is None:
            return
        self._done, self._total = done, self._total if total is None else total
        self._moved(done, self._total, note)

    def advance(self, count: int, note: str = "") -> None:
        self.at((self._done or 0) + count, None, note)


@contextmanager
def stages(*, shown: bool = True) -> Iterator[Stages]:
    """`shown=False`: says nothing, for all processes of a run but one."""
    from rich.console import Console

    console = Console(stderr=True)
    if not shown:
        yield Stages(lambda _name, _total: None, lambda _done, _total, _note: None)
    elif console.is_terminal:
        with _on_terminal(console) as found:
            yield found
    else:
        yield _in_lines()


@contextmanager
def _on_terminal(console: Any) -> Iterator[Stages]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        tasks: list[Any] = []
        yield Stages(
            lambda name, total: tasks.append(bar.add_task(name, total=total, note="")),
            lambda done, total, note: bar.update(tasks[-1], completed=done, total=total, note=note),
        )


def _in_lines() -> Stages:
    name, said = "", time.monotonic()

    def begun(of: str, _total: int | None) -> None:
        nonlocal name
        name = of

    def moved(done: int, total: int | None, note: str) -> None:
        nonlocal said
        if time.monotonic() - said < QUIET_S:
            return
        said = time.monotonic()
        whole = f"{done}" if total is None else f"{done}/{total}"
        print(f"{time.strftime('%H:%M:%S')} {name}: {whole} {note}".rstrip(), file=sys.stderr, flush=True)

    return Stages(begun, moved)
