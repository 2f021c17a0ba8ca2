"""From a directory or a name to a model that runs; whatever is wrong with it is one clear line."""

import json
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from server.engines.embedded.llama import LlamaRunner, is_plain_llama
from server.engines.embedded.runner import TransformersRunner, check_runner
from server.engines.embedded.sampler import Runner
from server.engines.embedded.tokens import Tokens
from server.engines.hardware import cores
from server.engines.spec import UnusableWeights
from server.engines.weights import check_directory, is_directory

Dtype = Literal["auto", "float32", "bfloat16"]
# Up to here a model is held in float32 on a CPU whatever it was saved in: exact, and faster where the CPU has no bf16.
_FLOAT32_PARAMETERS = 1_000_000_000
# Below, a second thread costs more than it brings.
_ONE_THREAD_PARAMETERS = 50_000_000
_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    runner: Runner
    tokens: Tokens
    eos: frozenset[int]
    defaults: dict[str, float]
    """Sampling values of generation_config.json, for requests that say nothing; vLLM reads the same ones."""
    parameters: int


def load(
    model_name: str, dtype: Dtype = "auto", max_model_len: int | None = None, threads: int | None = None
) -> Loaded:
    """Raises UnusableWeights."""
    check_directory(model_name)
    _quieten(transformers_logging)
    local = is_directory(model_name)
    try:
        config = AutoConfig.from_pretrained(model_name, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(model_name, local_files_only=local)
        model, missing = _read_weights(model_name, config, dtype, local)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        raise UnusableWeights(f"cannot load {model_name}: {_first_line(error)}") from error
    except Exception as error:
        # safetensors raises a class of its own that derives from Exception only.
        if type(error).__name__ != "SafetensorError":
            raise
        raise UnusableWeights(f"the weights of {model_name} are damaged ({error}); copy the model again") from error
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (" ..." if len(missing) > 3 else "")
        raise UnusableWeights(
            f"the weights of {model_name} lack {len(missing)} tensors ({names}); copy the model again"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    torch.set_num_threads(threads or (1 if parameters < _ONE_THREAD_PARAMETERS else max(1, len(cores()) // 2)))
    context = _context(model_name, config, max_model_len)
    runner: Runner = LlamaRunner(model, context) if is_plain_llama(model) else TransformersRunner(model, context)
    try:
        check_runner(runner, model)
    except UnusableWeights:
        raise
    except Exception as error:
        raise UnusableWeights(
            f"the embedded engine cannot run the architecture {config.model_type} ({_first_line(error)}); "
            "serve it with vLLM"
        ) from error
    return Loaded(runner, Tokens(tokenizer), _ends(model, tokenizer), _defaults(model), parameters)


def _read_weights(model_name: str, config: Any, dtype: Dtype, local: bool) -> tuple[Any, set[str]]:
    """The model in evaluation mode, and the names of tensors that the files did not hold."""
    loader: Any = AutoModelForCausalLM
    options: dict[str, Any] = {"config": config, "local_files_only": local, "output_loading_info": True}
    try:
        model, info = loader.from_pretrained(model_name, dtype="auto", attn_implementation="sdpa", **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        model, info = loader.from_pretrained(model_name, dtype="auto", attn_implementation="eager", **options)
    small = sum(parameter.numel() for parameter in model.parameters()) < _FLOAT32_PARAMETERS
    if dtype == "float32" or (dtype == "auto" and (small or model.dtype == torch.float16)):
        model = model.float()
    elif dtype == "bfloat16":
        model = model.bfloat16()
    return model.eval().requires_grad_(False), set(info["missing_keys"])


def _context(model_name: str, config: Any, asked: int | None) -> int:
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if asked is None:
        return longest or 4096
    if longest is not None and asked > longest:
        raise UnusableWeights(f"{model_name} holds {longest} tokens; --max-model-len {asked} is more than that")
    return asked


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens with which the model ends by itself."""
    ends = {tokenizer.eos_token_id}
    for source in (model.generation_config, model.config):
        told = getattr(source, "eos_token_id", None)
        ends |= set(told) if isinstance(told, (list, tuple)) else {told}
    return frozenset(end for end in ends if end is not None)


def _defaults(model: Any) -> dict[str, float]:
    config = model.generation_config
    written = config.to_diff_dict() if config is not None else {}
    return {name: float(written[name]) for name in _DEFAULTS if written.get(name) is not None}


def _quieten(logging_of_transformers: Any) -> None:
    logging_of_transformers.set_verbosity_error()
    logging_of_transformers.disable_progress_bar()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return json.dumps(line[:300])[1:-1] if not line.isprintable() else line[:300]
