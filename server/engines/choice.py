"""Which engine suits a model on this machine."""

import importlib.util
import os

from server.engines.hardware import gpu_count
from server.engines.spec import EngineKind
from server.engines.weights import is_masked_diffusion, weight_bytes

SMALL_BYTES = 200 << 20


def choose_kind(model: str) -> EngineKind:
    """vLLM where there is a GPU and vLLM is installed here or named by TW_VLLM_PYTHON; the embedded engine otherwise.

    A directory with less than 200 MB of weights is always embedded: it answers after seconds instead of half a minute,
    on a CPU core, and leaves the GPU's memory to the models that need it. So is a masked diffusion model, which vLLM
    would read as an autoregressive one.
    """
    size = weight_bytes(model)
    if size is not None and is_masked_diffusion(model):
        return "embedded"
    if size is not None and size < SMALL_BYTES:
        return "embedded"
    has_vllm = bool(os.environ.get("TW_VLLM_PYTHON")) or importlib.util.find_spec("vllm") is not None
    return "vllm" if has_vllm and gpu_count() > 0 else "embedded"
