"""Any causal language model of transformers, run as a batch that sequences join and leave."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from server.engines.embedded.cache import Array, KeyValues
from server.engines.embedded.sampler import Logits, Runner
from server.engines.spec import UnusableWeights


class TransformersRunner:
    """Keeps `sampler.Runner`.

    transformers hands each layer's keys and values to a cache object, takes back what to attend to, and uses a ready
    four-dimensional mask as it is: so rows of different lengths need nothing from the model but those two seams.
    """

    def __init__(self, model: Any, context: int) -> None:
        """Raises UnusableWeights where the architecture keeps more than keys and values (state space models)."""
        kinds = DynamicCache(config=model.config).layers
        odd = {type(kind).__name__ for kind in kinds if type(kind) not in (DynamicLayer, DynamicSlidingWindowLayer)}
        if odd or "chunked_attention" in (getattr(model.config, "layer_types", None) or ()):
            raise UnusableWeights(
                f"the embedded engine cannot batch the architecture {model.config.model_type} "
                f"({', '.join(sorted(odd)) or 'chunked attention'}); serve it with vLLM"
            )
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self.context = context
        self._model = model
        layers = len(kinds) or model.config.num_hidden_layers
        self._memory = KeyValues(layers, context)
        self._cache = Cache(layers=[_Layer(self._memory, i) for i in range(layers)])
        windows = {getattr(kind, "sliding_window", None) for kind in kinds} or {None}
        self._window: int | None = max((w for w in windows if w is not None), default=None)
        self._mixed = len(windows) > 1
        self._additive = model.config._attn_implementation != "sdpa"
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> Logits:
        lengths = [len(prompt) for prompt in prompts]
        self._memory.begin_join(lengths)
        # Padding stands right of the tokens: causal attention never looks there, and it needs no mask.
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        places = sorted({length - 1 for length in lengths})
        positions = torch.arange(ids.shape[1])[None]
        logits = self._forward(ids, positions, None, torch.tensor(places))
        columns = [places.index(length - 1) for length in lengths]
        return _numpy(logits[torch.arange(len(prompts)), torch.tensor(columns)])

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Logits:
        memory = self._memory
        memory.begin_step()
        positions = torch.from_numpy(memory.positions)[:, None]
        logits = self._forward(torch.tensor(tokens)[:, None], positions, self._masks(positions), torch.tensor([0]))
        return _numpy(logits[:, -1])

    def leave(self, row: int) -> None:
        self._memory.leave(row)

    def clear(self) -> None:
        self._memory.clear()

    def _forward(self, ids: Tensor, positions: Tensor, mask: Any, places: Tensor) -> Tensor:
        more = {"logits_to_keep": places} if self._keeps_logits else {}
        logits: Tensor = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **more,
        ).logits
        return logits if self._keeps_logits else logits[:, places]

    def _masks(self, positions: Tensor) -> Any:
        """For one token per row: (rows, 1, 1, width), or one such mask for each kind of layer."""
        columns = torch.arange(self._memory.width)
        seen = (columns <= positions)[:, None, None]
        if self._window is None:
            return self._as_mask(seen)
        near = self._as_mask(seen & (columns > positions - self._window)[:, None, None])
        return {"full_attention": self._as_mask(seen), "sliding_attention": near} if self._mixed else near

    def _as_mask(self, seen: Tensor) -> Tensor:
        if not self._additive:
            return seen
        dtype = self._model.dtype
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of `KeyValues`, as transformers wants to see it."""

    is_sliding = False

    def __init__(self, memory: KeyValues, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory
        self._layer = layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys, values = self._memory.write(self._layer, _array(key_states), _array(value_states))
        return _tensor(keys, key_states.dtype), _tensor(values, value_states.dtype)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002
        return self._memory.width, 0

    def get_seq_length(self) -> int:
        return self._memory.seen

    def get_max_length(self) -> int:
        return -1


def check_runner(runner: Runner, model: Any) -> None:
    """Raises UnusableWeights unless two sequences that run together get the scores that each gets alone.

    A batch of unequal rows relies on the model using positions, cache and mask as given; an architecture that does not
    would answer fluently and wrongly.
    """
    first, second, third = ([i % runner.vocab_size for i in ids] for ids in ((5, 17, 3, 29, 11, 7, 13), (23, 2), (19,)))
    got = list(runner.join([first]))
    got.extend(runner.step([1]))
    got.extend(runner.join([second, third]))
    got.extend(runner.step([4, 6, 8]))
    runner.leave(0)  # the third takes the place of the first
    got.extend(runner.step([9, 10]))
    runner.clear()
    texts = [first, [*first, 1], second, third, [*first, 1, 4], [*second, 6], [*third, 8]]
    texts += [[*third, 8, 9], [*second, 6, 10]]
    expected = [alone(model, text) for text in texts]
    loose = 1e-3 if model.dtype == torch.float32 else 0.1
    for row, truth in zip(got, expected, strict=True):
        if not np.abs(row - truth).max() <= loose * (1 + np.abs(truth).max()):
            raise UnusableWeights(
                f"the embedded engine cannot batch the architecture {model.config.model_type}: rows that run together "
                "get other scores than rows that run alone; serve it with vLLM"
            )


@torch.inference_mode()
def alone(model: Any, ids: Sequence[int]) -> Logits:
    """(vocabulary,): the scores after `ids`, in one plain pass."""
    return _numpy(model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1])


def _array(tensor: Tensor) -> Array:
    """The same memory. numpy knows no bfloat16, and storing needs to know only how many bytes a number has."""
    array: Array = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if dtype == torch.bfloat16 else tensor


def _numpy(logits: Tensor) -> Logits:
    array: Logits = logits.float().numpy()
    return array
