"""From a directory or a name to a model that runs; whatever is wrong with it is one clear line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from server.engines.embedded.llama import LlamaRunner, plain_shape, read_llama
from server.engines.embedded.masked import MARK, Denoiser
from server.engines.embedded.plain_tokenizer import read_plain_tokenizer
from server.engines.embedded.sampler import Runner
from server.engines.embedded.tokens import Tokens
from server.engines.spec import UnusableWeights
from server.engines.weights import check_directory, default_threads, is_directory, weight_bytes

Dtype = Literal["auto", "float32", "bfloat16"]
# Larger ones go to torch where it is installed: there arithmetic counts, and bfloat16 halves the memory.
_NUMPY_BYTES = 1 << 30
_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class Loaded:
    runner: Runner | Denoiser
    tokens: Tokens
    eos: frozenset[int]
    defaults: Mapping[str, float]
    """Of generation_config.json, for requests that say nothing; vLLM reads the same file."""
    parameters: int


@dataclass(frozen=True, slots=True)
class _Read:
    runner: Runner | Denoiser
    settings: Mapping[str, Any]
    """config.json"""
    generation: Mapping[str, Any]
    """generation_config.json, as far as it was written"""
    parameters: int


def load(
    model_name: str, dtype: Dtype = "auto", max_model_len: int | None = None, threads: int | None = None
) -> Loaded:
    """Raises UnusableWeights; ImportError where the model needs torch and transformers and they are not there."""
    check_directory(model_name)
    try:
        tokenizer = _read_tokenizer(model_name)
        read = _read_plain_llama(model_name, dtype, max_model_len) or _read_any(
            model_name, dtype, max_model_len, threads
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise UnusableWeights(f"cannot load {model_name}: {_first_line(error)}") from error
    except Exception as error:
        # safetensors raises a class of its own that derives from Exception only.
        if type(error).__name__ != "SafetensorError":
            raise
        raise UnusableWeights(f"the weights of {model_name} are damaged ({error}); copy the model again") from error
    eos = _ends(tokenizer.eos_token_id, read.generation, read.settings)
    return Loaded(read.runner, Tokens(tokenizer), eos, _defaults(read.generation), read.parameters)


def _read_tokenizer(model_name: str) -> Any:
    local = is_directory(model_name)
    plain = read_plain_tokenizer(Path(model_name).expanduser()) if local else None
    if plain is not None:
        return plain
    from server.engines.embedded.any_model import read_tokenizer

    return read_tokenizer(model_name)


def _read_plain_llama(model_name: str, dtype: Dtype, max_model_len: int | None) -> _Read | None:
    size = weight_bytes(model_name)
    if size is None or size > _NUMPY_BYTES or dtype == "bfloat16":
        return None
    directory = Path(model_name).expanduser()
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    shape = plain_shape(settings)
    if shape is None or MARK in settings or not list(directory.glob("*.safetensors")):
        return None
    tensors = read_llama(directory, shape)
    written = directory / "generation_config.json"
    generation = json.loads(written.read_text(encoding="utf-8")) if written.is_file() else {}
    runner = LlamaRunner(shape, tensors, _context(model_name, settings, max_model_len))
    return _Read(runner, settings, generation, sum(tensor.size for tensor in tensors.values()))


def _read_any(model_name: str, dtype: Dtype, max_model_len: int | None, threads: int | None) -> _Read:
    # Imported here: it takes seconds and needs torch, and the shipped pair does without.
    from server.engines.embedded.any_model import checked_runner, read_model

    model = read_model(model_name, dtype, threads or default_threads(model_name))
    settings = model.config.get_text_config().to_dict()
    runner: Runner | Denoiser
    if MARK in settings:
        from server.engines.embedded.masked_model import TransformersDenoiser

        runner = TransformersDenoiser(model, settings[MARK], max_model_len)
    else:
        runner = checked_runner(model, _context(model_name, settings, max_model_len))
    generation = model.generation_config.to_diff_dict() if model.generation_config is not None else {}
    return _Read(runner, settings, generation, sum(parameter.numel() for parameter in model.parameters()))


def _context(model_name: str, settings: Mapping[str, Any], asked: int | None) -> int:
    longest = settings.get("max_position_embeddings") or settings.get("n_positions")
    if asked is None:
        return longest or 4096
    if longest is not None and asked > longest:
        raise UnusableWeights(f"{model_name} holds {longest} tokens; --max-model-len {asked} is more than that")
    return asked


def _ends(of_tokenizer: int | None, *sources: Mapping[str, Any]) -> frozenset[int]:
    """All tokens with which the model ends by itself."""
    ends = {of_tokenizer}
    for source in sources:
        told = source.get("eos_token_id")
        ends |= set(told) if isinstance(told, (list, tuple)) else {told}
    return frozenset(end for end in ends if end is not None)


def _defaults(generation: Mapping[str, Any]) -> dict[str, float]:
    defaults = {name: float(generation[name]) for name in _DEFAULTS if generation.get(name) is not None}
    if generation.get("do_sample") is False:  # written down, not merely absent: this model wants to be greedy
        defaults["temperature"] = 0.0
    return defaults


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return json.dumps(line[:300])[1:-1] if not line.isprintable() else line[:300]
