"""Servers that a benchmark starts, waits for and takes down again, whole process tree and all."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


class StartFailed(Exception):
    """A server ended, or did not answer in time; the message carries the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tw(*arguments: str) -> list[str]:
    """The `tw` that belongs to the interpreter this benchmark runs on."""
    return [str(Path(sys.executable).with_name("tw")), *arguments]


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the server and all it has started: it leads a process group of its own."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, that a process has used with all its threads; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run; none where /proc does not tell."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    """Returns when GET `url` answers 200. Raises StartFailed if the process ends first or time runs out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailed(f"{process.args!r} ended with status {process.returncode}:\n{tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise StartFailed(f"{url} did not answer within {timeout_s:.0f} s:\n{tail(log)}")


@contextmanager
def serving(
    command: Sequence[str], ready_url: str, log: Path, *, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` in a process group of its own until the block ends; its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        wait_until_ready(process, ready_url, log, timeout_s)
        yield process
    finally:
        signal_group(process, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            signal_group(process, signal.SIGKILL)
            process.wait()
