"""A masked diffusion language model is an ordinary decoder whose attention looks both ways, with one more word, MASK.

Weights and configuration stay those of the architecture (a Llama, say), so transformers loads them; config.json says
under `masked_diffusion` how they are to be read.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.distill.config import DiffusionConfig
from training.distill.errors import CannotDistill
from training.distill.models import check_head, head_of, load_model

MARK = "masked_diffusion"


@dataclass(frozen=True, slots=True)
class Denoiser:
    """`model` read as x(z): probabilities of the true token at every masked place."""

    model: Any
    mask_id: int
    vocabulary: int

    def log_x(self, z: Tensor, where: Tensor) -> Tensor:
        """(B, L) noised tokens, (B, L) places -> (M, vocabulary) log-probabilities at these places, MASK's own being
        minus infinity. The head runs at these places only."""
        length = z.shape[1]
        if self.model.config._attn_implementation == "sdpa":
            seen = torch.ones(1, 1, length, length, dtype=torch.bool, device=z.device)
        else:
            seen = torch.zeros(1, 1, length, length, device=z.device)
        positions = torch.arange(length, device=z.device)[None]
        states = self.model.base_model(
            input_ids=z, attention_mask=seen, position_ids=positions, use_cache=False
        ).last_hidden_state
        logits = head_of(self.model, self.vocabulary).logits(states[where])
        forbidden = torch.arange(logits.shape[-1], device=z.device) == self.mask_id
        return torch.log_softmax(logits.masked_fill(forbidden, float("-inf")), dim=-1)


def load_denoiser(path: str, tokenizer: Any, config: DiffusionConfig) -> Denoiser:
    """Raises CannotDistill where the model is none and no base training is asked for, or its text would not fit."""
    model = load_model(path, "float32", "student")
    check_head(model, "student")
    known = getattr(model.config, MARK, None)
    if known is None and config.base_steps == 0:
        raise CannotDistill(
            f"student.path: {path} is no masked diffusion model (its config.json has no {MARK!r}); set "
            "diffusion.base_steps to make it one first"
        )
    if config.mask_token not in tokenizer.get_vocab():
        if known is not None:
            raise CannotDistill(f"diffusion.mask_token: {config.mask_token!r} is not in the tokenizer of {path}")
        tokenizer.add_special_tokens({"mask_token": config.mask_token})
    size = max(tokenizer.get_vocab().values()) + 1
    if model.get_output_embeddings().weight.shape[0] < size:
        model.resize_token_embeddings(size)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and config.length > limit:
        raise CannotDistill(f"diffusion.length: {config.length} tokens, and the student knows {limit} positions")
    return Denoiser(model, int(tokenizer.convert_tokens_to_ids(config.mask_token)), size)


def mark(denoiser: Denoiser, config: DiffusionConfig, steps: int) -> dict[str, Any]:
    """What config.json is to say about the model, and the sampling steps it was trained for."""
    return {MARK: {"mask_token_id": denoiser.mask_id, "length": config.length, "steps": steps}}
