import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

from server.engines import EngineFailed, EngineSpec, EngineState, ManagedEngine
from server.engines.process import Timing

QUICK = Timing(first_backoff_s=0.05, last_backoff_s=0.2, ready_poll_s=0.05, starting_poll_s=0.02)
DEAF = dataclasses.replace(QUICK, deaf_s=0.3)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that runs the fake engine whatever module it is asked for."""
    script = tmp_path / "python"
    fake = Path(__file__).with_name("fake_engine.py")
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def make(python, tmp_path):
    engines = []

    def make_engine(timing: Timing = QUICK, log: bool = False, **told) -> ManagedEngine:
        spec = EngineSpec(
            role="student",
            kind="vllm",
            model="some/model",
            python=python,
            env={"FAKE_ENGINE": json.dumps(told)},
            log_path=tmp_path / "logs" / "student.log" if log else None,
        )
        engines.append(ManagedEngine(spec, timing))
        return engines[-1]

    yield make_engine
    for engine in engines:
        engine.stop(0)


def test_an_engine_gets_ready_and_stops_without_leaving_a_process(make, tmp_path):
    engine = make(children=2, pids=str(tmp_path / "pids"))
    assert engine.state() == EngineState("stopped")
    engine.start()
    engine.wait_ready(20)
    pid = engine.state().pid
    assert engine.state() == EngineState("ready", 0, pid)
    tree = [pid, *map(int, (tmp_path / "pids").read_text().split())]
    assert all(map(alive, tree))
    engine.stop(0.2)
    assert [p for p in tree if alive(p)] == []
    assert engine.state() == EngineState("stopped")


def test_a_stubborn_engine_is_ended_by_force_after_the_grace(make):
    engine = make(stubborn=True)
    engine.start()
    engine.wait_ready(20)
    pid, began = engine.state().pid, time.monotonic()
    engine.stop(0.3)
    assert not alive(pid)
    assert 0.3 <= time.monotonic() - began < 3


def test_a_killed_engine_is_restarted_on_the_same_port_and_leaves_no_orphans(make, tmp_path):
    engine = make(children=1, pids=str(tmp_path / "pids"))
    engine.start()
    engine.wait_ready(20)
    url, pid = engine.url, engine.state().pid
    orphan = int((tmp_path / "pids").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: engine.state().status == "restarting", 20)
    assert "SIGKILL" in engine.state().cause
    engine.wait_ready(20)
    assert not alive(orphan)
    assert engine.url == url
    assert engine.state().restarts == 1
    assert engine.state().pid not in (None, pid)
    assert urllib.request.urlopen(engine.url.removesuffix("/v1") + "/health").status == 200


def test_back_off_doubles_up_to_its_limit(make, tmp_path):
    engine = make(log=True, state=str(tmp_path / "lives"), die="RuntimeError: no luck", die_from=1, status=3)
    engine.start()
    engine.wait_ready(20)
    os.kill(engine.state().pid, signal.SIGTERM)
    wait_until(lambda: engine.state().restarts >= 4, 20)
    assert engine.state().status == "restarting"
    assert engine.state().cause == "it exited with status 3 after RuntimeError: no luck"
    engine.stop(0)
    log = (tmp_path / "logs" / "student.log").read_text()
    waits = [line.split("restarting in ")[1].split(" s,")[0] for line in log.splitlines() if "restarting in" in line]
    assert waits[:4] == ["0.05", "0.1", "0.2", "0.2"]


def test_a_deaf_engine_is_restarted(make, tmp_path):
    engine = make(DEAF, state=str(tmp_path / "lives"), deaf_after=3)
    engine.start()
    engine.wait_ready(20)
    wait_until(lambda: engine.state().restarts == 1, 20)
    assert engine.state().cause == "it has not answered /health for 0.3 s"
    engine.wait_ready(20)


def test_an_engine_that_dies_at_its_start_is_not_repeated(make, tmp_path):
    engine = make(state=str(tmp_path / "lives"), die="/usr/bin/python: No module named 'vllm'")
    engine.start()
    with pytest.raises(EngineFailed) as failure:
        engine.wait_ready(20)
    message = str(failure.value)
    assert message.startswith("The student engine (vllm, some/model) is not ready: vLLM is not installed")
    assert "TW_VLLM_PYTHON" in message
    assert "  /usr/bin/python: No module named 'vllm'" in message
    assert engine.state().status == "failed"
    assert (tmp_path / "lives").read_text() == "1"


def test_a_vllm_that_dies_of_its_first_answer_was_never_ready(make):
    engine = make(die_at_first_answer="RuntimeError: Unsupported CPU attention configuration: head_dim=8")
    engine.start()
    with pytest.raises(EngineFailed, match="it exited with status 1 after RuntimeError: Unsupported CPU attention"):
        engine.wait_ready(20)


def test_an_engine_that_takes_too_long_says_so_and_goes_on(make):
    engine = make(slow_s=1)
    engine.start()
    with pytest.raises(EngineFailed, match=r"it was not ready \(waited 0.1 s\)"):
        engine.wait_ready(0.1)
    engine.wait_ready(20)


def test_a_taken_port_is_named(make):
    with socket.socket() as taken:
        engine = make()
        taken.bind(("127.0.0.1", engine.port))
        taken.listen()
        engine.start()
        with pytest.raises(EngineFailed, match=f"port {engine.port} on 127.0.0.1 is taken"):
            engine.wait_ready(20)


def test_an_interpreter_that_is_not_there(tmp_path):
    engine = ManagedEngine(EngineSpec("student", "vllm", "some/model", python=str(tmp_path / "nowhere")))
    engine.start()
    with pytest.raises(EngineFailed, match=r"cannot run .*nowhere: No such file"):
        engine.wait_ready(20)
    engine.stop()


def test_a_model_directory_is_looked_at_before_anything_is_started(tmp_path):
    engine = ManagedEngine(EngineSpec("teacher", "vllm", str(tmp_path)))
    engine.start()
    with pytest.raises(EngineFailed, match=r"is not a model directory: it has no config\.json"):
        engine.wait_ready(20)
    assert engine.state().pid is None
    engine.stop()


def test_the_tree_dies_with_a_gateway_that_was_killed(python, tmp_path):
    program = textwrap.dedent(f"""
        import sys, time
        from server.engines import EngineSpec, ManagedEngine
        told = {json.dumps(json.dumps({"children": 1, "pids": str(tmp_path / "pids")}))}
        engine = ManagedEngine(EngineSpec("student", "vllm", "m", python={python!r}, env={{"FAKE_ENGINE": told}}))
        engine.start()
        engine.wait_ready(20)
        print(engine.state().pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as gateway:
        tree = [int(gateway.stdout.readline()), int((tmp_path / "pids").read_text())]
        gateway.kill()
    # The grandchild ignores SIGTERM, so it lasts until the warden's grace is over; the engine itself goes at once.
    wait_until(lambda: not alive(tree[0]), 5)
    wait_until(lambda: not alive(tree[1]), 15)


def test_secrets_reach_neither_the_engine_nor_the_log(make, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-engines")
    monkeypatch.setenv("TW_ADMIN_KEY", "not-for-engines-either")
    engine = make(log=True)
    engine.start()
    engine.wait_ready(20)
    seen = json.load(urllib.request.urlopen(engine.url.removesuffix("/v1") + "/health"))
    assert "not-for-engines" not in json.dumps(seen)
    assert seen["argv"][:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    engine.stop(0)
    assert "not-for-engines" not in (tmp_path / "logs" / "student.log").read_text()
