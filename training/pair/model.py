"""From a shape to a Llama, and from a Llama to a directory that transformers and vLLM serve."""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from training.pair.config import Role, Shape
from training.pair.tokenizer import END, PAD, save, token_id

CONTEXT: Final = 1024

# 10 M parameters in half precision are 20 MB. fp16 rather than bf16: weights this small in size lie well inside its
# range, and it keeps three more bits of each. config.json says float32, which is what they are computed in.
STORED: Final[dict[Role, torch.dtype]] = {"student": torch.float32, "teacher": torch.float16}


def build(shape: Shape, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A fresh model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=token_id(tokenizer, END),
            pad_token_id=token_id(tokenizer, PAD),
            use_cache=True,
            dtype="float32",
        )
    )


def grown(model: LlamaForCausalLM, shape: Shape, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """`model` with fresh layers on top, up to `shape`, that at first change nothing: what they write is zero.

    A shallow model learns the digits at a fraction of the cost; the layers added go on from there (net2net, Chen et
    al. 2016, 1511.05641). Raises RuntimeError where more than the number of layers differs.
    """
    larger = build(shape, tokenizer, seed)
    young = len(model.model.layers)
    missing = larger.load_state_dict(model.state_dict(), strict=False)
    if missing.unexpected_keys:
        raise RuntimeError(f"cannot grow into {shape}: nowhere to put {missing.unexpected_keys}")
    for layer in larger.model.layers[young:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return larger


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, directory: Path, dtype: torch.dtype) -> None:
    """Writes weights, configurations and tokenizer to `directory`, made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    # The head is the embedding (tied), so it is not stored twice.
    weights = {
        name: value.detach().to(dtype).contiguous()
        for name, value in sorted(model.state_dict().items())
        if name != "lm_head.weight"
    }
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # safetensors makes it readable to its owner alone
    config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    config.pop("_name_or_path", None)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {
        "do_sample": False,
        "eos_token_id": token_id(tokenizer, END),
        "pad_token_id": token_id(tokenizer, PAD),
        "max_new_tokens": 128,
    }
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save(tokenizer, directory, CONTEXT)
