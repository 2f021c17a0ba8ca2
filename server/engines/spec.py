"""What an engine is, as values: what to start, and how it is doing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

EngineKind = Literal["vllm", "embedded"]
EngineStatus = Literal["starting", "ready", "restarting", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to start."""

    role: str
    """`student` or `teacher`: the first name under which the engine serves the model."""
    kind: EngineKind
    model: str
    """A name on the Hugging Face hub, or a directory of weights."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one is picked and kept across restarts."""
    log_path: Path | None = None
    """Where the engine's output goes, rotated; None keeps only the last lines, in memory."""
    args: tuple[str, ...] = ()
    """Extra arguments for the engine; they win over the ones chosen here."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Extra environment; wins over the inherited one."""
    python: str | None = None
    """The interpreter: vLLM may live in an environment of its own. None: TW_VLLM_PYTHON for vLLM, or this one."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """How an engine is doing.

    starting: never been ready yet. restarting: was ready, is being brought back. failed: died before it was ever ready,
    which no restart will mend; `cause` says why.
    """

    status: EngineStatus
    restarts: int = 0
    pid: int | None = None
    """Of the engine's first process, while it runs."""
    cause: str | None = None
    """Why it last went down, in a sentence."""


class EngineFailed(Exception):
    """An engine did not get ready. The message says which, why, what to do, and ends with the last lines of its log."""


class UnusableWeights(Exception):
    """A model directory that cannot be served. The message names the directory, what is wrong, and what to do."""
