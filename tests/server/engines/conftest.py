import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upstreams import free_port


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A directory with a random Llama of 50,000 parameters, 256 tokens of context."""
    from tests.server.engines.tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def embedded_url(tiny_model, tmp_path_factory) -> Iterator[str]:
    """The embedded engine as a process, serving `tiny_model` as `student` and as `tiny`."""
    port = free_port()
    log = (tmp_path_factory.mktemp("log") / "engine.log").open("wb")
    command = [sys.executable, "-P", "-m", "server.engines.embedded", "--model", str(tiny_model)]
    command += ["--served-model-name", "student", "tiny", "--port", str(port), "--max-batch", "8"]
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    base = f"http://127.0.0.1:{port}"
    try:
        wait_healthy(base, process, Path(log.name))
        yield f"{base}/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log.close()


def wait_healthy(base: str, process: subprocess.Popen, log: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{base}/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())
