"""A small process between the gateway and one engine that makes sure nothing of the engine outlives its purpose.

    python warden.py GATEWAY_PID PID_FD -- engine command line

An engine is a tree (vLLM's server starts an EngineCore, which may start workers), and any of its branches may be
killed, hang, or move to a session of its own. The warden is the tree's *subreaper* (Linux): whoever loses its parent
becomes the warden's child, so the whole tree can always be found. Elsewhere the engine's process group has to do.
It ends the tree

- on SIGTERM: politely, and by force after a grace or on SIGUSR1 (a second SIGTERM might melt into the first);
- when the gateway is gone, by whatever cause, SIGKILL included: it watches its parent's pid;
- when the engine's first process is gone: what it left behind would hold the port or the GPU's memory.

The one death it cannot act on is its own by SIGKILL; then the kernel kills the engine's first process
(PR_SET_PDEATHSIG; the warden has a single thread, so that signal means what its name says).

It is run as a file and imports nothing of ours, which keeps it at a few megabytes and its start at milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

# Somebody who asks may also force, so the grace is long. A gateway that died may be started again at
# once and want the port. And an engine whose first process is gone has nothing left to finish.
GRACE_S = 10.0
GRACE_WITHOUT_GATEWAY_S = 5.0
GRACE_WITHOUT_ENGINE_S = 0.5
_POLL_S = 0.1
_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_HAS_PROC = Path("/proc/self/stat").exists()
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Returns the engine's exit status, as a shell would say it: 128 + n after signal n."""
    if len(arguments) < 4 or arguments[2] != "--":
        raise SystemExit("usage: warden.py GATEWAY_PID PID_FD -- COMMAND...")
    gateway, pid_fd, command = int(arguments[0]), int(arguments[1]), arguments[3:]
    os.set_inheritable(pid_fd, False)
    heard: list[int] = []
    for number in _HEEDED:
        signal.signal(number, lambda signum, _: heard.append(signum))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    engine = _spawn(command)
    with contextlib.suppress(OSError):  # the gateway may be gone already; the loop below sees to that
        os.write(pid_fd, f"{engine}\n".encode())
    os.close(pid_fd)

    status: int | None = None
    while status is None and not heard and os.getppid() == gateway:
        time.sleep(_POLL_S)
        status = _reap(engine)
    grace_s = GRACE_S if heard else GRACE_WITHOUT_GATEWAY_S if status is None else GRACE_WITHOUT_ENGINE_S
    status = _end_tree(engine, status, heard, grace_s)
    return 128 + signal.SIGKILL if status is None else status


def _spawn(command: list[str]) -> int:
    warden = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    for number in _HEEDED:
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if os.getppid() == warden:
            os.execvpe(command[0], command, os.environ)  # noqa: S606 - the command line is the operator's
    except OSError as error:
        print(f"error: cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(127)


def _end_tree(engine: int, status: int | None, heard: list[int], grace_s: float) -> int | None:
    """SIGTERM to the whole tree, SIGKILL to what is still there after the grace; returns the engine's status."""
    deadline = time.monotonic() + grace_s
    _signal_tree(engine, signal.SIGTERM)
    while _tree_lives(engine):
        time.sleep(_POLL_S / 2)
        found = _reap(engine)
        status = found if status is None else status
        if signal.SIGUSR1 in heard or time.monotonic() > deadline:
            _signal_tree(engine, signal.SIGKILL)
    return status


def _reap(engine: int) -> int | None:
    """Collects every child that has ended; the engine's exit status if it was among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == engine:
            code = os.waitstatus_to_exitcode(raw)
            status = code if code >= 0 else 128 - code


def _signal_tree(engine: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if not _HAS_PROC:
            os.killpg(engine, number)
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _tree_lives(engine: int) -> bool:
    if _HAS_PROC:
        # Twice: whose parent ends while /proc is being read may be missed once, and is this process's child afterwards.
        return bool(_descendants() or _descendants())
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(engine, 0)
        return True
    return False


def _descendants() -> list[int]:
    """The pids below this process, zombies aside."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid ...: the name may hold spaces and parentheses.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        pid = int(path.parent.name)
        children.setdefault(int(parent), []).append(pid)
        if state == "Z":
            zombies.add(pid)
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return [pid for pid in found if pid not in zombies]


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # only Linux has it
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
