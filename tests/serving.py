"""The gateway as a user runs it, `tw serve` in a process group of its own, for tests from outside.

async with scripted_pair() as pair, gateway(tmp_path, pair.student.url, pair.teacher.url) as running:
    ...                      # running.url is "http://127.0.0.1:PORT"
    running.kill()           # SIGKILL to all of it
    await running.start()    # again, with the same state, on the same port
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from policies.artifact import Manifest, save_artifact
from policies.baselines import Levels, Threshold
from server.auth import Keys
from server.decision_log import read_rows
from tests.upstreams import Answer, free_port

TW = str(Path(sys.executable).with_name("tw"))
# A ledger or a policy that is late refuses, and the client gets another answer: with an operator's deadlines, on a busy
# machine, now and then. Tests that are about deadlines set their own.
PATIENT = {"TW_TIMEOUTS__LEDGER_S": "20", "TW_TIMEOUTS__POLICY_S": "10"}
SURE, DOUBTFUL = -0.05, -4.0
"""Log-probabilities per token with which `doubting_policy` keeps a draft, and with which it asks the teacher."""


def doubting_policy(directory: Path) -> Path:
    """Saves a policy that escalates drafts of low probability whatever the budget's share; returns its directory."""
    levels = Levels(np.linspace(2.0, 1.0, 201))
    policy = Threshold("logprob_mean", -1.0, levels)
    save_artifact(directory, Manifest(kind=policy.kind, name="doubting", signals="draft"), policy.arrays())
    return directory


def draft(text: str, logprob: float = SURE) -> Answer:
    """An answer of the student, one token per word, all equally probable."""
    words = text.split(" ")
    return Answer(tuple(word if i == 0 else f" {word}" for i, word in enumerate(words)), (logprob,) * len(words))


@dataclass
class RunningGateway:
    """`tw serve` with a state directory and a port that it keeps over restarts."""

    state: Path
    arguments: list[str]
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    admin_key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.state.with_suffix(".log")

    @property
    def as_admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.admin_key}"}

    async def start(self, timeout_s: float = 60.0) -> None:
        """Returns when it answers. Raises AssertionError with its log if it ends first or takes too long."""
        if not self.admin_key:
            self.admin_key = Keys(self.state / "keys.json", open_on_loopback=True).new("test", admin=True)
        self._spawn()
        assert self.process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while loop.time() < deadline:
                assert self.process.poll() is None, f"tw serve ended:\n{self.log.read_text()}"
                try:
                    async with http.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"tw serve was not ready within {timeout_s} s:\n{self.log.read_text()}")

    def kill(self) -> None:
        """SIGKILL to the gateway and everything that it started in its process group."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=10)

    async def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM, as an operator would; returns its exit code. Raises AssertionError where it does not come down."""
        assert self.process is not None
        self._signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"tw serve did not stop:\n{self.log.read_text()}") from None

    def decisions(self) -> list[dict[str, Any]]:
        """All records of the decision log, feedback left out."""
        return [row for row in read_rows(self.state / "decisions") if "steps" in row]

    async def balances(self) -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/v1/budget", headers=self.as_admin) as response,
        ):
            assert response.status == 200, await response.text()
            balances: list[dict[str, Any]] = (await response.json())["balances"]
            return balances

    def _spawn(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TW_")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [TW, "serve", "--host", "127.0.0.1", "--port", str(self.port), *self.arguments],
                env={**inherited, "TW_STATE_DIR": str(self.state), **PATIENT, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


@asynccontextmanager
async def gateway(
    folder: Path,
    student_url: str,
    teacher_url: str,
    *,
    budget: str = "At most 100% of requests.",
    policy: Path | None = None,
    workers: int = 1,
    options: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> AsyncIterator[RunningGateway]:
    """Runs for as long as the block does, its state in `folder`; with the doubting policy unless another is given."""
    policy = policy or doubting_policy(folder / "doubting")
    arguments = ["--student-url", student_url, "--teacher-url", teacher_url, "--policy", str(policy)]
    arguments += ["--budget", budget, "--workers", str(workers), *options]
    running = RunningGateway(folder / "state", arguments, env or {})
    try:
        await running.start()
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            await running.stop()
