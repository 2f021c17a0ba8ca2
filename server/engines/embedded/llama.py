"""The Llama architecture written out: the same numbers as transformers' in half the time for a model of a million
parameters, where what costs is not arithmetic but the road to it (modules, hooks, caches, mask building). It is read
straight from the files, so an engine that serves such a model never imports transformers' modelling code, which takes
longer than everything else at its start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from server.engines.embedded.cache import KeyValues
from server.engines.embedded.sampler import Logits
from server.engines.spec import UnusableWeights
from server.engines.weights import weight_files


@dataclass(frozen=True, slots=True)
class Shape:
    vocabulary: int
    size: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    eps: float
    rope_base: float
    tied: bool
    attention_bias: bool
    mlp_bias: bool


def plain_shape(settings: Mapping[str, Any]) -> Shape | None:
    """The shape that config.json describes, or None where it is anything but the plain architecture."""
    rope = settings.get("rope_parameters") or {"rope_theta": settings.get("rope_theta", 10000.0)}
    plain = (
        settings.get("model_type") == "llama"
        and settings.get("architectures") == ["LlamaForCausalLM"]
        and settings.get("hidden_act", "silu") == "silu"
        and not settings.get("rope_scaling")
        and rope.get("rope_type", "default") == "default"
        and set(rope) <= {"rope_type", "rope_theta"}
        and not settings.get("quantization_config")
    )
    if not plain:
        return None
    heads = settings["num_attention_heads"]
    return Shape(
        vocabulary=settings["vocab_size"],
        size=settings["hidden_size"],
        inner=settings["intermediate_size"],
        layers=settings["num_hidden_layers"],
        heads=heads,
        kv_heads=settings.get("num_key_value_heads") or heads,
        head=settings.get("head_dim") or settings["hidden_size"] // heads,
        eps=settings.get("rms_norm_eps", 1e-6),
        rope_base=rope.get("rope_theta", 10000.0),
        tied=settings.get("tie_word_embeddings", False),
        attention_bias=settings.get("attention_bias", False),
        mlp_bias=settings.get("mlp_bias", False),
    )


def read_llama(directory: Path, shape: Shape) -> dict[str, Tensor]:
    """The tensors in float32. Raises UnusableWeights where one is missing or not of the size that config.json says."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(directory):
        tensors.update(load_file(path))
    expected = _expected(shape)
    missing = [name for name in expected if name not in tensors]
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise UnusableWeights(f"the weights of {directory} lack {len(missing)} tensors ({names}); copy the model again")
    for name, size in expected.items():
        if tuple(tensors[name].shape) != size:
            raise UnusableWeights(
                f"cannot load {directory}: {name} is {tuple(tensors[name].shape)} where config.json says {size}"
            )
    return {name: tensors[name].float() for name in expected}


def _expected(shape: Shape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    sizes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.size),
        "model.norm.weight": (shape.size,),
    }
    if not shape.tied:
        sizes["lm_head.weight"] = (shape.vocabulary, shape.size)
    matrices = {
        "self_attn.q_proj": (queries, shape.size, shape.attention_bias),
        "self_attn.k_proj": (keys, shape.size, shape.attention_bias),
        "self_attn.v_proj": (keys, shape.size, shape.attention_bias),
        "self_attn.o_proj": (shape.size, queries, shape.attention_bias),
        "mlp.gate_proj": (shape.inner, shape.size, shape.mlp_bias),
        "mlp.up_proj": (shape.inner, shape.size, shape.mlp_bias),
        "mlp.down_proj": (shape.size, shape.inner, shape.mlp_bias),
    }
    for i in range(shape.layers):
        sizes[f"model.layers.{i}.input_layernorm.weight"] = (shape.size,)
        sizes[f"model.layers.{i}.post_attention_layernorm.weight"] = (shape.size,)
        for name, (rows, columns, biased) in matrices.items():
            sizes[f"model.layers.{i}.{name}.weight"] = (rows, columns)
            if biased:
                sizes[f"model.layers.{i}.{name}.bias"] = (rows,)
    return sizes


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights with their biases; queries, keys and values as one matrix, gate and up as another."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class LlamaRunner:
    """Keeps `sampler.Runner`."""

    @torch.inference_mode()
    def __init__(self, shape: Shape, tensors: Mapping[str, Tensor], context: int) -> None:
        self.vocab_size = shape.vocabulary
        self.context = context
        self._size, self._heads, self._kv_heads, self._head = shape.size, shape.heads, shape.kv_heads, shape.head
        self._eps = shape.eps
        self._embedding = tensors["model.embed_tokens.weight"]
        self._norm = tensors["model.norm.weight"]
        self._unembedding = self._embedding if shape.tied else tensors["lm_head.weight"]
        self._cos, self._sin = _angles(context, shape.head, shape.rope_base)
        self._layers = [_read(tensors, f"model.layers.{i}.") for i in range(shape.layers)]
        self._memory = KeyValues(shape.layers, context)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> Logits:
        lengths = [len(prompt) for prompt in prompts]
        self._memory.begin_join(lengths)
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        width = ids.shape[1]
        hidden = self._blocks(ids, self._cos[:width], self._sin[:width], None)
        return self._logits(hidden[torch.arange(len(prompts)), torch.tensor(lengths) - 1])

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Logits:
        memory = self._memory
        memory.begin_step()
        positions = memory.positions[:, None]
        seen = (torch.arange(memory.width) <= positions)[:, None, None]
        ids = torch.tensor(tokens)[:, None]
        return self._logits(self._blocks(ids, self._cos[positions], self._sin[positions], seen)[:, 0])

    def leave(self, row: int) -> None:
        self._memory.leave(row)

    def clear(self) -> None:
        self._memory.clear()

    def _blocks(self, ids: Tensor, cos: Tensor, sin: Tensor, seen: Tensor | None) -> Tensor:
        """ids (B, T); cos, sin broadcast to (B, T, 1, head size); seen (B, 1, 1, width) with T = 1, or None: causal.
        Returns (B, T, hidden)."""
        batch, length = ids.shape
        heads, kv_heads, head = self._heads, self._kv_heads, self._head
        half = head // 2
        groups = heads // kv_heads
        hidden = F.embedding(ids, self._embedding)
        for i, layer in enumerate(self._layers):
            normed = F.rms_norm(hidden, (self._size,), layer.norm, self._eps)
            qkv = F.linear(normed, layer.qkv, layer.qkv_bias).view(batch, length, heads + 2 * kv_heads, head)
            turning = qkv[:, :, : heads + kv_heads]
            turned = torch.cat((-turning[..., half:], turning[..., :half]), dim=-1)
            rotated = turning * cos + turned * sin
            new_keys = rotated[:, :, heads:].transpose(1, 2)
            new_values = qkv[:, :, heads + kv_heads :].transpose(1, 2)
            keys, values = self._memory.write(i, new_keys, new_values)
            if seen is not None:
                # One query per row: the queries that share a key head stand in the place of a sequence, so nothing is
                # repeated in memory.
                queries = rotated[:, 0, :heads].reshape(batch, kv_heads, groups, head)
                mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
                mixed = mixed.reshape(batch, 1, heads * head)
            else:
                queries = rotated[:, :, :heads].transpose(1, 2)
                mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=groups > 1)
                mixed = mixed.transpose(1, 2).reshape(batch, length, heads * head)
            hidden = hidden + F.linear(mixed, layer.out, layer.out_bias)
            normed = F.rms_norm(hidden, (self._size,), layer.mlp_norm, self._eps)
            gate, up = F.linear(normed, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down, layer.down_bias)
        return hidden

    def _logits(self, hidden: Tensor) -> Logits:
        normed = F.rms_norm(hidden, (self._size,), self._norm, self._eps)
        logits: Logits = F.linear(normed, self._unembedding).numpy()
        return logits


def _angles(positions: int, head: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each (positions, 1, head size); the second half repeats the first."""
    frequencies = 1.0 / base ** (torch.arange(0, head, 2, dtype=torch.float) / head)
    angles = torch.arange(positions, dtype=torch.float)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _read(tensors: Mapping[str, Tensor], prefix: str) -> _Layer:
    def joined(kind: str, *names: str) -> Tensor | None:
        parts = [tensors.get(f"{prefix}{name}.{kind}") for name in names]
        return None if parts[0] is None else torch.cat([part for part in parts if part is not None])

    def weight(*names: str) -> Tensor:
        found = joined("weight", *names)
        assert found is not None  # read_llama has seen to that
        return found

    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gate_up = ("mlp.gate_proj", "mlp.up_proj")
    return _Layer(
        norm=tensors[prefix + "input_layernorm.weight"],
        qkv=weight(*qkv),
        qkv_bias=joined("bias", *qkv),
        out=weight("self_attn.o_proj"),
        out_bias=joined("bias", "self_attn.o_proj"),
        mlp_norm=tensors[prefix + "post_attention_layernorm.weight"],
        gate_up=weight(*gate_up),
        gate_up_bias=joined("bias", *gate_up),
        down=weight("mlp.down_proj"),
        down_bias=joined("bias", "mlp.down_proj"),
    )
