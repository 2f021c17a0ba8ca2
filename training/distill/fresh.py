"""A student that has learned nothing yet, with the words of a model that is there."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.distill.errors import CannotDistill
from training.distill.models import export, load_tokenizer, parameters


def fresh(
    like: str, out: Path, *, hidden: int, layers: int, heads: int, inner: int | None, context: int, seed: int
) -> int:
    """Writes a Llama of random weights (embeddings tied) with the tokenizer of `like` to `out`, and returns how many
    parameters it has. Raises CannotDistill where something is there already, or heads do not fit."""
    if out.exists():
        raise CannotDistill(f"{out}: is there already; a fresh student is written to a new directory")
    if hidden % heads or hidden // heads % 2:
        raise CannotDistill(f"--hidden {hidden} --heads {heads}: each head needs an even, whole number of dimensions")
    tokenizer = load_tokenizer(like, "--like")
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            # What Llama's own sizes are about; a multiple of eight.
            intermediate_size=inner or 8 * round(hidden * 8 / 3 / 8),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    export(model, None, tokenizer, out, "float32")
    return parameters(model)
