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
    """`model` read as x(z): probabilities of the true token at every masked place.

    `begin_id` stands before every text and is never masked. Without it a model with rotary positions, which knows
    distances only, gives every place of a text of nothing but MASK the same distribution, so no text can begin.
    """

    model: Any
    mask_id: int
    vocabulary: int
    begin_id: int | None = None

    def log_x(self, z: Tensor, where: Tensor) -> Tensor:
        """(B, L) noised tokens, (B, L) places -> (M, vocabulary) log-probabilities at these places, MASK's own being
        minus infinity. The head runs at these places only."""
        first = 0 if self.begin_id is None else 1
        read = z if self.begin_id is None else torch.nn.functional.pad(z, (1, 0), value=self.begin_id)
        length = read.shape[1]
        if self.model.config._attn_implementation == "sdpa":
            seen = torch.ones(1, 1, length, length, dtype=torch.bool, device=z.device)
        else:
            seen = torch.zeros(1, 1, length, length, device=z.device)
        positions = torch.arange(length, device=z.device)[None]
        states = self.model.base_model(
            input_ids=read, attention_mask=seen, position_ids=positions, use_cache=False
        ).last_hidden_state[:, first:]
        # In float32 even under autocast: a round learns from small differences, which bfloat16 would round off.
        with torch.autocast(z.device.type, enabled=False):
            logits = head_of(self.model, self.vocabulary).logits(states[where].float())
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
    begin = _begin(tokenizer, config) if known is None else known.get("begin_token_id")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and config.length + (begin is not None) > limit:
        raise CannotDistill(
            f"diffusion.length: {config.length} tokens and the begin token, and the student knows {limit} positions"
        )
    return Denoiser(model, int(tokenizer.convert_tokens_to_ids(config.mask_token)), size, begin)


def _begin(tokenizer: Any, config: DiffusionConfig) -> int:
    if config.begin_token is not None:
        if config.begin_token not in tokenizer.get_vocab():
            raise CannotDistill(f"diffusion.begin_token: {config.begin_token!r} is not in the student's tokenizer")
        return int(tokenizer.convert_tokens_to_ids(config.begin_token))
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise CannotDistill("diffusion.begin_token: the student's tokenizer has no begin or end token; name a token")
    return int(found)


def mark(denoiser: Denoiser, config: DiffusionConfig, steps: int) -> dict[str, Any]:
    """What config.json is to say about the model, the sampling steps it was trained for and their order."""
    told = {"mask_token_id": denoiser.mask_id, "length": config.length, "steps": steps, "order": config.order}
    return {MARK: told if denoiser.begin_id is None else {**told, "begin_token_id": denoiser.begin_id}}


def marked(model: Any, vocabulary: int) -> Denoiser:
    """The denoiser that a model's config.json says it is; students of before there was a begin token have none."""
    told = getattr(model.config, MARK)
    begin = told.get("begin_token_id")
    return Denoiser(model, int(told["mask_token_id"]), vocabulary, None if begin is None else int(begin))
