"""Loading whatever transformers can load, for models that are not the plain Llama of `llama.py`."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from server.engines.embedded.runner import TransformersRunner, check_runner
from server.engines.spec import UnusableWeights
from server.engines.weights import is_directory

# Up to here a model is held in float32 on a CPU whatever it was saved in: exact, and faster where the CPU has no bf16.
_FLOAT32_PARAMETERS = 1_000_000_000


def read_tokenizer(model_name: str) -> Any:
    """Raises what transformers raises."""
    return AutoTokenizer.from_pretrained(model_name, local_files_only=is_directory(model_name))


def read_model(model_name: str, dtype: str, threads: int) -> Any:
    """The model in evaluation mode. Raises UnusableWeights where tensors are missing, and what transformers raises."""
    torch.set_num_threads(threads)
    _quieten(transformers_logging)
    loader: Any = AutoModelForCausalLM
    local = is_directory(model_name)
    config = AutoConfig.from_pretrained(model_name, local_files_only=local)
    options: dict[str, Any] = {"config": config, "local_files_only": local, "output_loading_info": True}
    try:
        model, info = loader.from_pretrained(model_name, dtype="auto", attn_implementation="sdpa", **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        model, info = loader.from_pretrained(model_name, dtype="auto", attn_implementation="eager", **options)
    missing = sorted(info["missing_keys"])
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise UnusableWeights(
            f"the weights of {model_name} lack {len(missing)} tensors ({names}); copy the model again"
        )
    small = sum(parameter.numel() for parameter in model.parameters()) < _FLOAT32_PARAMETERS
    if dtype == "float32" or (dtype == "auto" and (small or model.dtype == torch.float16)):
        model = model.float()
    elif dtype == "bfloat16":
        model = model.bfloat16()
    return model.eval().requires_grad_(False)


def checked_runner(model: Any, context: int) -> TransformersRunner:
    """Raises UnusableWeights where the architecture cannot run as a batch."""
    try:
        runner = TransformersRunner(model, context)
        check_runner(runner, model)
    except UnusableWeights:
        raise
    except Exception as error:
        raise UnusableWeights(
            f"the embedded engine cannot run the architecture {model.config.model_type} ({error}); serve it with vLLM"
        ) from error
    return runner


def _quieten(logging_of_transformers: Any) -> None:
    logging_of_transformers.set_verbosity_error()
    logging_of_transformers.disable_progress_bar()
