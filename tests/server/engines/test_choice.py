"""Which engine is chosen, and with what it is started."""

import os
import sys

import pytest

from server.engines import EngineSpec, choose_kind
from server.engines.command import engine_command, served_names
from server.engines.engine_log import EngineLog
from server.engines.hardware import gpu_count


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a machine with so many GPUs, and vLLM or not."""

    def pretend(gpus: int, vllm: bool) -> None:
        for module in ("choice", "command"):
            monkeypatch.setattr(f"server.engines.{module}.gpu_count", lambda: gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("TW_VLLM_PYTHON", raising=False)
        if vllm:
            monkeypatch.setenv("TW_VLLM_PYTHON", "/opt/vllm/bin/python")

    return pretend


@pytest.mark.parametrize(
    ("gpus", "vllm", "model", "kind"),
    [
        (0, False, "Qwen/Qwen3-0.6B", "embedded"),
        (0, True, "Qwen/Qwen3-0.6B", "embedded"),
        (1, False, "Qwen/Qwen3-0.6B", "embedded"),
        (1, True, "Qwen/Qwen3-0.6B", "vllm"),
        (1, True, "tiny", "embedded"),
    ],
)
def test_vllm_where_it_is_and_there_is_a_gpu_and_the_model_is_worth_it(machine, tiny_model, gpus, vllm, model, kind):
    machine(gpus, vllm)
    assert choose_kind(str(tiny_model) if model == "tiny" else model) == kind


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0)])
def test_hidden_gpus_do_not_count(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count


def spec(role: str = "student", **more) -> EngineSpec:
    return EngineSpec(role, "vllm", "Qwen/Qwen3-0.6B", **more)


def flags(engine: EngineSpec) -> dict[str, str]:
    argv = engine_command(engine, 8101).argv
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    return {word: "" if after.startswith("--") else after for word, after in pairs if word.startswith("--")}


def test_vllm_without_a_gpu(machine, tiny_model):
    machine(0, True)
    command = engine_command(EngineSpec("student", "vllm", str(tiny_model)), 8101)
    assert command.argv == (
        *("/opt/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(tiny_model), "--served-model-name", "student", tiny_model.name),
        *("--host", "127.0.0.1", "--port", "8101", "--dtype", "float32", "--enforce-eager", "--enable-prefix-caching"),
    )
    chosen = {name: value for name, value in command.env.items() if name.startswith(("VLLM", "HF_HUB_OFF"))}
    bind = chosen.pop("VLLM_CPU_OMP_THREADS_BIND")
    assert set(map(int, bind.split(","))) < set(range(1024))
    assert chosen == {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to divide")
def test_student_and_teacher_run_on_cores_of_their_own(machine):
    machine(0, True)
    binds = [
        set(engine_command(spec(role), 1).env["VLLM_CPU_OMP_THREADS_BIND"].split(","))
        for role in ("student", "teacher")
    ]
    assert not binds[0] & binds[1]


def test_two_engines_share_one_gpu_or_take_one_each(machine):
    machine(1, True)
    assert flags(spec("student"))["--gpu-memory-utilization"] == "0.25"
    assert flags(spec("teacher"))["--gpu-memory-utilization"] == "0.6"
    machine(4, True)
    assert "--gpu-memory-utilization" not in flags(spec("teacher"))
    assert engine_command(spec("student"), 1).env["CUDA_VISIBLE_DEVICES"] == "0"
    assert engine_command(spec("teacher"), 1).env["CUDA_VISIBLE_DEVICES"] == "1,2,3"


def test_what_the_operator_says_wins(machine, monkeypatch):
    machine(1, True)
    told = flags(spec(args=("--gpu-memory-utilization=0.5", "--no-enable-prefix-caching")))
    assert "--gpu-memory-utilization" not in told
    assert "--gpu-memory-utilization=0.5" in told
    assert "--enable-prefix-caching" not in told
    machine(0, True)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert engine_command(spec(), 1).env["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert engine_command(spec(env={"VLLM_CPU_KVCACHE_SPACE": "9"}), 1).env["VLLM_CPU_KVCACHE_SPACE"] == "9"
    assert engine_command(spec(python="/mine/python"), 1).argv[0] == "/mine/python"


def test_the_embedded_engine_runs_in_this_interpreter(tiny_model):
    command = engine_command(EngineSpec("teacher", "embedded", str(tiny_model), args=("--threads", "1")), 8102)
    assert command.argv[:4] == (sys.executable, "-P", "-m", "server.engines.embedded")
    assert command.argv[-6:] == ("--host", "127.0.0.1", "--port", "8102", "--threads", "1")


def test_secrets_are_masked_where_a_command_is_shown():
    shown = str(engine_command(spec(args=("--api-key", "sk-1", "--hf-token=hf_2")), 1))
    assert shown.endswith("--api-key *** --hf-token=***")


def test_a_directory_named_like_its_role_has_one_name(tmp_path):
    (tmp_path / "student").mkdir()
    assert served_names(EngineSpec("student", "embedded", str(tmp_path / "student"))) == ("student",)
    assert served_names(spec()) == ("student", "Qwen/Qwen3-0.6B")


def test_a_log_keeps_the_last_lines_and_a_bounded_file(tmp_path):
    log = EngineLog(tmp_path / "logs" / "engine.log", max_bytes=100, backups=2)
    for i in range(400):
        log.write(f"line {i:03}\n".encode())
    log.close()
    assert log.last_lines[-1] == "line 399"
    assert len(log.last_lines) == 300
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["engine.log", "engine.log.1", "engine.log.2"]
    assert all(path.stat().st_size <= 110 for path in (tmp_path / "logs").iterdir())
    assert (tmp_path / "logs" / "engine.log").stat().st_mode & 0o777 == 0o600
