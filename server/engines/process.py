"""An engine as a process that is started, watched, restarted and ended, from threads that know no event loop.

    spec --start()--> starting --healthy--> ready --died or deaf--> restarting --healthy--> ready
                          |                                             |  ^
                          +--died--> failed            back-off 1, 2, 4 .. 30 s

A start that fails is a mistake somebody has to mend, so it is told and not repeated. An engine that once was ready is
brought back for as long as the gateway runs, on the same port. `warden.py` makes sure that no process is left behind.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from server.engines import warden
from server.engines.command import Command, engine_command
from server.engines.diagnosis import diagnose
from server.engines.engine_log import EngineLog
from server.engines.hardware import gpu_count
from server.engines.spec import EngineFailed, EngineSpec, EngineState, EngineStatus, UnusableWeights
from server.engines.weights import check_directory

# vLLM measures a GPU's free memory while it starts; two that measure at once on the same GPU disturb one another.
_ONE_AT_A_TIME = threading.Lock()


# How long a server whose engine has died may take to end by itself, which is when it says why.
_SHUTDOWN_S = 20.0


@dataclass(frozen=True, slots=True)
class Timing:
    first_backoff_s: float = 1.0
    last_backoff_s: float = 30.0
    stable_s: float = 60.0
    """After so long without a fault the back-off starts anew."""
    starting_poll_s: float = 0.1
    ready_poll_s: float = 1.0
    health_timeout_s: float = 5.0
    deaf_s: float = 60.0
    """A process that lives but has not answered /health for so long is ended and restarted."""
    warm_up_s: float = 120.0


class ManagedEngine:
    """One engine. `start`, `wait_ready`, `state` and `stop` may be called from any thread, and more than once."""

    def __init__(self, spec: EngineSpec, timing: Timing | None = None) -> None:
        self.spec = spec
        self.port = spec.port or _free_port(spec.host)
        self._timing = timing or Timing()
        self._log = EngineLog(spec.log_path)
        self._changed = threading.Condition()
        self._state = EngineState("stopped")
        self._stopping = threading.Event()
        self._watch: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pid: int | None = None
        self._ready_at: float | None = None

    @property
    def url(self) -> str:
        host = f"[{self.spec.host}]" if ":" in self.spec.host else self.spec.host
        return f"http://{host}:{self.port}/v1"

    def state(self) -> EngineState:
        with self._changed:
            return self._state

    def last_log_lines(self) -> list[str]:
        return self._log.last_lines

    def start(self) -> None:
        """Returns at once; `wait_ready` waits. Starting an engine that runs changes nothing."""
        with self._changed:
            if self._watch is not None and self._watch.is_alive():
                return
            self._stopping.clear()
            self._state = EngineState("starting")
            self._watch = threading.Thread(target=self._run, name=f"engine-{self.spec.role}", daemon=True)
            self._watch.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Returns when the engine answers; raises EngineFailed when it died, was stopped, or takes longer."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.status in ("ready", "failed", "stopped"), timeout_s)
            state = self._state
        if state.status == "ready":
            return
        why = state.cause or "it was stopped"
        if state.status not in ("failed", "stopped"):
            why = f"{state.cause or 'it was not ready'} (waited {timeout_s:g} s)"
        raise EngineFailed(self._failure(why))

    def stop(self, grace_s: float = 10) -> None:
        """Ends the whole tree: SIGTERM, and SIGKILL after `grace_s`. Returns when nothing of it is left."""
        self._stopping.set()
        self._end_process(grace_s)
        watch = self._watch
        if watch is not None and watch is not threading.current_thread():
            watch.join(grace_s + 10)
        with self._changed:
            self._set("stopped", cause=None)
        self._log.close()

    def _run(self) -> None:
        timing = self._timing
        backoff_s = timing.first_backoff_s
        while not self._stopping.is_set():
            self._ready_at = None
            cause = self._one_life()
            if self._stopping.is_set():
                return
            with self._changed:
                if self._state.status == "starting":
                    self._set("failed", cause=cause)
                    return
                self._set("restarting", cause=cause, restarts=self._state.restarts + 1)
            if self._ready_at is not None and time.monotonic() - self._ready_at > timing.stable_s:
                backoff_s = timing.first_backoff_s
            self._note(f"restarting in {backoff_s:g} s, because {cause}")
            self._stopping.wait(backoff_s)
            backoff_s = min(2 * backoff_s, timing.last_backoff_s)

    def _one_life(self) -> str:
        """From the start of the process to its end; returns the cause of the end."""
        self._log.forget()
        alone = _ONE_AT_A_TIME if self.spec.kind == "vllm" and gpu_count() > 0 else contextlib.nullcontext()
        ailment = None
        try:
            with alone:
                check_directory(self.spec.model)
                _check_port(self.spec.host, self.port)
                self._launch(engine_command(self.spec, self.port))
                ailment = self._await_health()
            if ailment is None and self._alive():
                self._ready_at = time.monotonic()
                with self._changed:
                    self._set("ready", cause=self._state.cause)
                ailment = self._watch_health()
        except UnusableWeights as error:
            return str(error)
        except OSError as error:
            return f"{error.strerror or error}"
        finally:
            # Also after a death of its own: the warden may still be busy with what the engine left behind.
            if not self._stopping.is_set():  # stop() does it then, with a grace of its own
                self._end_process(warden.GRACE_S)
        return ailment or diagnose(self._log.last_lines, self._process.returncode if self._process else None)

    def _launch(self, command: Command) -> None:
        if self._stopping.is_set():
            return
        self._note(f"starting {command}")
        read_fd, write_fd = os.pipe()
        try:
            guarded = [
                sys.executable,
                "-I",
                "-S",
                warden.__file__,
                str(os.getpid()),
                str(write_fd),
                "--",
                *command.argv,
            ]
            self._process = subprocess.Popen(
                guarded,
                env=dict(command.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(write_fd,),
                start_new_session=True,  # Ctrl-C is for the gateway, which then stops its engines in order
            )
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        reader = threading.Thread(target=self._read_output, args=(self._process,), daemon=True)
        reader.start()
        self._reader = reader  # only now: stop() may come at any moment, and joins what it finds here
        with os.fdopen(read_fd, "rb") as pipe:
            told = pipe.readline()
        with self._changed:
            self._pid = int(told) if told.strip() else None
            self._set(self._state.status, cause=self._state.cause)
        if self._stopping.is_set():  # stop() may have looked for a process just before there was one
            self._end_process(0)

    def _read_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            while line := output.readline(64 << 10):
                self._log.write(line)

    def _await_health(self) -> str | None:
        """Returns when the engine is ready or has ended (None), or when it lives and fails to answer (the cause)."""
        while self._alive():
            if self._healthy():
                return None if self.spec.kind != "vllm" or self._answers() else "its first answer failed; see its log"
            self._stopping.wait(self._timing.starting_poll_s)
        return None

    def _watch_health(self) -> str | None:
        """Returns when the process has ended (None) or has been deaf for too long (the cause)."""
        heard_at = time.monotonic()
        while self._alive():
            if self._healthy():
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > self._timing.deaf_s:
                return f"it has not answered /health for {self._timing.deaf_s:g} s"
            self._wait_for_end(self._timing.ready_poll_s)
        return None

    def _alive(self) -> bool:
        return not self._stopping.is_set() and self._process is not None and self._process.poll() is None

    def _wait_for_end(self, timeout_s: float) -> None:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def _healthy(self) -> bool:
        return self._ask("GET", "/health", None, self._timing.health_timeout_s) == 200

    def _answers(self) -> bool:
        """vLLM's first answer takes seconds, and is where a model that its kernels do not know brings it down, so it is
        asked for one before it counts as ready. A refusal is no fault: it may want a key."""
        body = {"model": self.spec.role, "prompt": "Hello", "max_tokens": 2, "temperature": 0}
        status = self._ask("POST", "/v1/completions", json.dumps(body), self._timing.warm_up_s)
        if status is not None and status < 500:
            return True
        self._wait_for_end(_SHUTDOWN_S)
        return not self._alive()  # it has ended: its log says why

    def _ask(self, method: str, path: str, body: str | None, timeout_s: float) -> int | None:
        connection = http.client.HTTPConnection(self.spec.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read(64 << 10)
            return response.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _end_process(self, grace_s: float) -> None:
        """The warden ends the tree politely on SIGTERM, by force on SIGUSR1."""
        process = self._process
        if process is None:
            return
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGUSR1, 5.0), (signal.SIGKILL, 5.0)):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            if number == signal.SIGKILL and self._pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(5)
        with self._changed:
            self._pid = None
            self._set(self._state.status, cause=self._state.cause)

    def _set(self, status: EngineStatus, *, cause: str | None, restarts: int | None = None) -> None:
        """With `_changed` held."""
        count = self._state.restarts if restarts is None else restarts
        self._state = EngineState(status, count, self._pid, cause)
        self._changed.notify_all()

    def _note(self, text: str) -> None:
        self._log.write(f"[training-wheels] {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n".encode())

    def _failure(self, why: str) -> str:
        lines = [line for line in self._log.last_lines if line.strip()][-15:]
        where = f" The whole log: {self.spec.log_path}." if self.spec.log_path else ""
        tail = "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
        return f"The {self.spec.role} engine ({self.spec.kind}, {self.spec.model}) is not ready: {why}.{where}{tail}"


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_port(host: str, port: int) -> None:
    """An engine that cannot bind may say so late, and somebody else's server might pass for a healthy one."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                error.errno,
                f"port {port} on {host} is taken ({error.strerror}); stop what listens there or choose another",
            ) from None
