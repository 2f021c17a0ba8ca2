"""The command line and the environment of each kind of engine."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from server.engines.hardware import cores, gpu_count
from server.engines.spec import EngineSpec
from server.engines.weights import is_directory, weight_bytes

# A model this small is served in float32 on a CPU: in bfloat16 vLLM's attention kernel died of an illegal instruction
# (AMX is switched on by the first larger matrix product, and a tiny model has none).
_TINY_BYTES = 50 << 20
_SECRET_ARGUMENTS = ("--api-key", "--hf-token")


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str]

    def __str__(self) -> str:
        """As it may be logged: without the environment, and with secrets masked."""
        shown = list(self.argv)
        for i, word in enumerate(self.argv):
            if word.split("=")[0] in _SECRET_ARGUMENTS:
                shown[i : i + 2] = [word.split("=")[0], "***"] if "=" not in word else [word.split("=")[0] + "=***"]
        return " ".join(shown)


def engine_command(spec: EngineSpec, port: int) -> Command:
    match spec.kind:
        case "embedded":
            return _embedded(spec, port)
        case "vllm":
            return _vllm(spec, port)
        case _:
            assert_never(spec.kind)


def served_names(spec: EngineSpec) -> tuple[str, ...]:
    """The role first: engines put the first name into their answers. Then the model's own name."""
    own = Path(spec.model).expanduser().resolve().name if is_directory(spec.model) else spec.model
    return (spec.role,) if own == spec.role else (spec.role, own)


def _embedded(spec: EngineSpec, port: int) -> Command:
    # -P: `python -m` would otherwise look for the package `server` in the working directory first.
    argv = [spec.python or sys.executable, "-P", "-m", "server.engines.embedded"]
    argv += ["--model", spec.model, "--served-model-name", *served_names(spec)]
    argv += ["--host", spec.host, "--port", str(port), *spec.args]
    # One process per model, each with its own few threads: idle OpenMP threads must not spin on a neighbour's core.
    return Command(tuple(argv), _environment(spec, {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}))


def _vllm(spec: EngineSpec, port: int) -> Command:
    python = spec.python or os.environ.get("TW_VLLM_PYTHON") or sys.executable
    chosen = {"--host": spec.host, "--port": str(port)}
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if is_directory(spec.model):
        env["HF_HUB_OFFLINE"] = "1"
    gpus = gpu_count()
    if gpus == 0:
        env["VLLM_CPU_KVCACHE_SPACE"] = "1"
        env["VLLM_CPU_OMP_THREADS_BIND"] = _bind(spec.role)
        if (weight_bytes(spec.model) or _TINY_BYTES) < _TINY_BYTES:
            chosen["--dtype"] = "float32"
    elif gpus == 1:
        # vLLM takes nine tenths of a GPU unless told otherwise; two of them have to share this one.
        chosen["--gpu-memory-utilization"] = "0.25" if spec.role == "student" else "0.6"
    elif "CUDA_VISIBLE_DEVICES" not in os.environ:
        env["CUDA_VISIBLE_DEVICES"] = "0" if spec.role == "student" else ",".join(str(i) for i in range(1, gpus))
    given = {word.split("=")[0] for word in spec.args}
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", spec.model]
    argv += ["--served-model-name", *served_names(spec)]
    for name, value in chosen.items():
        if name not in given:
            argv += [name, value]
    if gpus == 0 and "--enforce-eager" not in given:
        argv.append("--enforce-eager")
    if "--no-enable-prefix-caching" not in given:
        argv.append("--enable-prefix-caching")
    return Command(tuple(argv) + spec.args, _environment(spec, env))


def _bind(role: str) -> str:
    """Half of the cores each, so that student and teacher run side by side."""
    mine = cores()
    half = len(mine) // 2
    if half:
        mine = mine[:half] if role == "student" else mine[half:]
    return ",".join(str(core) for core in mine)


def _environment(spec: EngineSpec, chosen: Mapping[str, str]) -> dict[str, str]:
    """The inherited one without the gateway's own settings and other people's keys, then the spec's."""
    inherited = {k: v for k, v in os.environ.items() if not (k.startswith("TW_") or k.endswith("_API_KEY"))}
    # What the operator has set for vLLM, say, wins over what is chosen here.
    return {**chosen, **inherited, "PYTHONUNBUFFERED": "1", **spec.env}
