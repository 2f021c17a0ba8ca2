"""An engine's output: the last lines in memory, all of it in a file that cannot grow without end."""

import contextlib
import os
from collections import deque
from pathlib import Path
from threading import Lock
from typing import BinaryIO

_LAST_LINES = 300
_LINE_BYTES = 2000


class EngineLog:
    """May be written and read by any thread."""

    def __init__(self, path: Path | None, max_bytes: int = 10 << 20, backups: int = 2) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._file: BinaryIO | None = None
        self._lock = Lock()
        self._size = 0

    @property
    def last_lines(self) -> list[str]:
        with self._lock:
            return list(self._last)

    def forget(self) -> None:
        """Called before a restart: a cause is looked for in the lines of one life only."""
        self._last.clear()

    def write(self, line: bytes) -> None:
        """A full disk loses lines of the log, not the engine: a pipe that nobody empties would stop it."""
        with self._lock:
            self._last.append(line[:_LINE_BYTES].decode(errors="replace").rstrip())
            if self._path is None:
                return
            with contextlib.suppress(OSError):
                if self._file is None or self._size >= self._max_bytes:
                    self._rotate(self._path)
                assert self._file is not None
                self._size += self._file.write(line if line.endswith(b"\n") else line + b"\n")
                self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _rotate(self, path: Path) -> None:
        if self._file is not None:
            self._close()
            for i in range(self._backups, 0, -1):
                older = path.with_name(f"{path.name}.{i}")
                newer = path if i == 1 else path.with_name(f"{path.name}.{i - 1}")
                if newer.exists():
                    newer.replace(older)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Prompts may stand in an engine's log: its owner reads it and nobody else.
        self._file = open(path, "ab", opener=_private)  # noqa: SIM115 - kept open from line to line
        self._size = path.stat().st_size


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
