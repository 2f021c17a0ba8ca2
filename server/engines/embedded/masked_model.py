"""A decoder of transformers read in both directions: what `tw distill through-time` makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from server.engines.embedded.masked import MARK, ORDERS, Ids
from server.engines.embedded.sampler import Logits
from server.engines.spec import UnusableWeights


class TransformersDenoiser:
    """Keeps `masked.Denoiser`."""

    def __init__(self, model: Any, mark: Mapping[str, Any], asked: int | None) -> None:
        """`asked`: a shorter context than the trained one. Raises UnusableWeights."""
        try:
            self.mask_id, self.context, self.steps = (int(mark[name]) for name in ("mask_token_id", "length", "steps"))
            # Before every text, on top of its length; models made before there was one have none.
            self._begin = [int(mark["begin_token_id"])] if "begin_token_id" in mark else []
        except (KeyError, TypeError, ValueError) as error:
            raise UnusableWeights(
                f"config.json: {MARK} needs mask_token_id, length and steps ({error}); export the model again"
            ) from None
        # Models made before there was a choice have none.
        self.order = str(mark.get("order", ORDERS[0]))
        if self.order not in ORDERS:
            raise UnusableWeights(f"config.json: {MARK}.order is {self.order!r}; it is one of {', '.join(ORDERS)}")
        if asked is not None and asked > self.context:
            raise UnusableWeights(
                f"the model was trained on texts of {self.context} tokens; --max-model-len {asked} is more than that"
            )
        if asked is not None:
            if self.order == "ancestral":
                self.steps = max(1, round(self.steps * asked / self.context))
            self.context = asked
        self._model, self._head = model, model.get_output_embeddings()
        self.vocab_size: int = self._head.weight.shape[0]
        self._additive = model.config._attn_implementation != "sdpa"
        self._check_head()

    @torch.inference_mode()
    def scores(self, texts: Sequence[Ids], places: Sequence[Ids]) -> list[Logits]:
        first = len(self._begin)
        width = max(map(len, texts)) + first
        ids = torch.full((len(texts), width), self.mask_id)
        ids[:, :first] = torch.tensor(self._begin, dtype=torch.long)
        seen = torch.zeros(len(texts), 1, 1, width, dtype=torch.bool)
        for row, text in enumerate(texts):
            ids[row, first : first + len(text)] = torch.from_numpy(text)
            seen[row, ..., : first + len(text)] = True
        states = self._model.base_model(
            input_ids=ids, attention_mask=self._mask(seen), position_ids=torch.arange(width)[None], use_cache=False
        ).last_hidden_state
        rows = np.repeat(np.arange(len(texts)), [len(some) for some in places])
        logits = self._head(states[torch.from_numpy(rows), torch.from_numpy(np.concatenate(places) + first)]).float()
        logits[:, self.mask_id] = float("-inf")
        return [part.numpy() for part in torch.split(logits, [len(some) for some in places])]

    def _mask(self, seen: torch.Tensor) -> torch.Tensor:
        """Every place sees all of its text, on both sides, and none of the padding."""
        whole = seen.expand(-1, -1, seen.shape[-1], -1)
        if not self._additive:
            return whole
        return torch.zeros(whole.shape).masked_fill(~whole, torch.finfo(torch.float32).min)

    @torch.inference_mode()
    def _check_head(self) -> None:
        ids = torch.arange(4)[None] % self.vocab_size
        whole = self._model(input_ids=ids, use_cache=False).logits.float()
        ours = self._head(self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
        if not torch.allclose(whole, ours, rtol=2e-2, atol=2e-2):
            raise UnusableWeights(
                f"the head of {self._model.config.model_type} is more than a linear map, which the embedded engine "
                "cannot run as a masked diffusion model"
            )
