"""What can stand behind the gateway. All of it speaks OpenAI's HTTP; the gateway knows no other way to an engine.

`ManagedEngine` starts and watches a server on this machine (vLLM, or the embedded engine); `replay` answers from an
outcome table; anything else is a URL and needs no code here.
"""

from server.engines.choice import choose_kind
from server.engines.process import ManagedEngine
from server.engines.spec import EngineFailed, EngineKind, EngineSpec, EngineState, EngineStatus, UnusableWeights

__all__ = [
    "EngineFailed",
    "EngineKind",
    "EngineSpec",
    "EngineState",
    "EngineStatus",
    "ManagedEngine",
    "UnusableWeights",
    "choose_kind",
]
