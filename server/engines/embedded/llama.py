"""The Llama architecture written out: the same numbers as transformers' in half the time for a model of a million
parameters, where what costs is not arithmetic but the road to it (modules, hooks, caches, mask building).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from server.engines.embedded.cache import KeyValues
from server.engines.embedded.sampler import Logits

# Scalings of the rotary angles that depend on nothing but the position.
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")


def is_plain_llama(model: Any) -> bool:
    config = model.config
    return (
        type(model) is LlamaForCausalLM
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in _FIXED_ROPE
        and model.dtype == torch.float32
    )


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
    def __init__(self, model: LlamaForCausalLM, context: int) -> None:
        config = model.config
        self.vocab_size: int = model.lm_head.weight.shape[0]
        self.context = context
        self._size: int = config.hidden_size
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads or self._heads
        self._head: int = getattr(config, "head_dim", None) or self._size // self._heads
        self._eps: float = config.rms_norm_eps
        self._embedding = model.model.embed_tokens.weight.detach()
        self._norm = model.model.norm.weight.detach()
        self._unembedding = model.lm_head.weight.detach()
        cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(context)[None])
        self._cos, self._sin = cos[0, :, None], sin[0, :, None]  # (positions, 1, head size)
        self._layers = [_read(layer) for layer in model.model.layers]
        self._memory = KeyValues(len(self._layers), context)

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


def _read(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
    gate_up, gate_up_bias = _joined(mlp.gate_proj, mlp.up_proj)
    return _Layer(
        norm=layer.input_layernorm.weight.detach(),
        qkv=qkv,
        qkv_bias=qkv_bias,
        out=attention.o_proj.weight.detach(),
        out_bias=attention.o_proj.bias,
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=mlp.down_proj.weight.detach(),
        down_bias=mlp.down_proj.bias,
    )


def _joined(*parts: Any) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([part.weight for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    at = 0
    for part in parts:  # the model goes on working, out of the same memory
        part.weight.data = weight[at : at + part.weight.shape[0]]
        at += part.weight.shape[0]
    return weight, bias
