"""The Llama architecture in numpy: for models of a few million parameters.

There, what costs is not arithmetic but the road to it. numpy calls the same matrix products as torch with a quarter of
the overhead per operation, and needs neither torch (a download of gigabytes where pip brings the CUDA build) nor
transformers' modelling code (seconds of import). docs/decisions/0031 has the numbers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.cache import KeyValues
from server.engines.embedded.prefixes import Kept, Prefixes
from server.engines.embedded.sampler import Logits
from server.engines.spec import UnusableWeights
from server.engines.weights import weight_files

Floats = NDArray[np.float32]
Attend = Callable[[int, Floats, Floats], Floats]


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


def read_llama(directory: Path, shape: Shape) -> dict[str, Floats]:
    """The tensors in float32. Raises UnusableWeights where one is missing or not of the size that config.json says."""
    tensors: dict[str, NDArray[Any]] = {}
    for path in weight_files(directory):
        tensors.update(read_safetensors(path))
    expected = _expected(shape)
    missing = [name for name in expected if name not in tensors]
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise UnusableWeights(f"the weights of {directory} lack {len(missing)} tensors ({names}); copy the model again")
    for name, size in expected.items():
        if tensors[name].shape != size:
            raise UnusableWeights(
                f"cannot load {directory}: {name} is {tensors[name].shape} where config.json says {size}"
            )
    return {name: tensors[name].astype(np.float32, copy=False) for name in expected}


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Format: 8 bytes with the header's length, the header in JSON, the tensors' bytes. `check_directory` has looked at
    the file already. Raises UnusableWeights for a number format other than 16 and 32 bit floats."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        raw = data[start + first : start + last]
        match entry["dtype"]:
            case "F32":
                array: NDArray[Any] = np.frombuffer(raw, np.float32)
            case "F16":
                array = np.frombuffer(raw, np.float16)
            case "BF16":  # the upper half of a float32
                array = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            case other:
                raise UnusableWeights(f"{path}: {name} is {other}; expected floats of 16 or 32 bits")
        tensors[name] = array.reshape(entry["shape"])
    return tensors


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
    """Weights as (inputs, outputs), with biases; queries, keys and values are one matrix, gate and up another."""

    norm: Floats
    qkv: Floats
    qkv_bias: Floats | None
    out: Floats
    out_bias: Floats | None
    mlp_norm: Floats
    gate_up: Floats
    gate_up_bias: Floats | None
    down: Floats
    down_bias: Floats | None


class LlamaRunner:
    """Keeps `sampler.Runner`. A prompt is one pass of its own, so none is padded; a step is one pass for all rows."""

    def __init__(self, shape: Shape, tensors: Mapping[str, Floats], context: int) -> None:
        self.vocab_size = shape.vocabulary
        self.context = context
        self._heads, self._kv_heads, self._head = shape.heads, shape.kv_heads, shape.head
        self._inner = shape.inner
        self._eps = np.float32(shape.eps)
        self._scale = np.float32(shape.head**-0.5)
        self._embedding = tensors["model.embed_tokens.weight"]
        self._norm = tensors["model.norm.weight"]
        self._unembedding = _turned(self._embedding if shape.tied else tensors["lm_head.weight"])
        self._cos, self._sin = _angles(context, shape.head, shape.rope_base)
        self._layers = [_read(tensors, f"model.layers.{i}.") for i in range(shape.layers)]
        self._memory = KeyValues(shape.layers, context)
        self.prefixes: Prefixes | None = None
        """Where texts are kept for prompts that begin like them."""
        self._texts: list[list[int]] = []
        """Of each row, while `prefixes` keeps them."""

    def join(self, prompts: Sequence[Sequence[int]]) -> Logits:
        return np.concatenate([self._read_prompt(prompt) for prompt in prompts])

    def step(self, tokens: Sequence[int]) -> Logits:
        memory = self._memory
        memory.begin_step()
        if self.prefixes is not None:
            for text, token in zip(self._texts, tokens, strict=True):
                text.append(token)
        positions = memory.positions
        rows, groups = len(tokens), self._heads // self._kv_heads
        unseen = np.where(np.arange(memory.width) <= positions[:, None], 0, -np.inf).astype(np.float32)[:, None, None]

        def attend(layer: int, turned: Floats, values: Floats) -> Floats:
            new_keys = turned[:, self._heads :, None]
            keys, values = memory.write(layer, new_keys, values[:, :, None])
            # One query per row: the queries that share a key head stand in the place of a sequence.
            queries = turned[:, : self._heads].reshape(rows, self._kv_heads, groups, self._head)
            return self._mix(queries, keys, values, unseen).reshape(rows, -1)

        hidden = self._blocks(tokens, self._cos[positions], self._sin[positions], attend)
        return self._logits(hidden)

    def leave(self, row: int) -> None:
        if self.prefixes is not None:
            self.prefixes.keep(Kept(tuple(self._texts[row]), self._memory.copy(row)))
            last = self._texts.pop()
            if row < len(self._texts):
                self._texts[row] = last
        self._memory.leave(row)

    def clear(self) -> None:
        self._texts.clear()
        if self.prefixes is not None:
            self.prefixes.clear()
        self._memory.clear()

    def _read_prompt(self, prompt: Sequence[int]) -> Logits:
        """(1, vocabulary)"""
        whole, groups = len(prompt), self._heads // self._kv_heads
        known, kept = (0, None) if self.prefixes is None else self.prefixes.longest(prompt)
        if kept is None:
            self._memory.begin_join([whole])
        else:
            self._memory.begin_join_after(whole, kept.layers, known)
        if self.prefixes is not None:
            self._texts.append(list(prompt))
        length = whole - known
        unseen = np.triu(np.full((length, whole), -np.inf, np.float32), known + 1)

        def attend(layer: int, turned: Floats, values: Floats) -> Floats:
            heads_first = turned.swapaxes(0, 1)
            keys, values = self._memory.write(layer, heads_first[None, self._heads :], values.swapaxes(0, 1)[None])
            queries = heads_first[: self._heads].reshape(self._kv_heads, groups, length, self._head)
            mixed = self._mix(queries, keys[0, :, None], values[0, :, None], unseen)
            return mixed.reshape(self._heads, length, self._head).swapaxes(0, 1).reshape(length, -1)

        hidden = self._blocks(prompt[known:], self._cos[known:whole], self._sin[known:whole], attend)
        return self._logits(hidden[-1:])

    def _mix(self, queries: Floats, keys: Floats, values: Floats, unseen: Floats) -> Floats:
        """Attention. queries (..., q, head); keys, values (..., columns, head); unseen, 0 or -inf, broadcasts to
        (..., q, columns). Returns (..., q, head)."""
        scores = np.matmul(queries, keys.swapaxes(-1, -2))
        scores *= self._scale
        scores += unseen
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: Floats = np.matmul(scores, values)
        return mixed

    def _blocks(self, tokens: Sequence[int], cos: Floats, sin: Floats, attend: Attend) -> Floats:
        """`tokens`: n of them, of one sequence or of n; cos, sin (n, 1, head). `attend(layer, turned queries and keys,
        values)` gets (n, heads, head) each. Returns (n, hidden)."""
        heads, both, half = self._heads, self._heads + self._kv_heads, self._head // 2
        hidden: Floats = self._embedding[np.array(tokens)]
        for i, layer in enumerate(self._layers):
            qkv = _linear(self._normed(hidden, layer.norm), layer.qkv, layer.qkv_bias)
            qkv = qkv.reshape(len(tokens), heads + 2 * self._kv_heads, self._head)
            pairs = qkv[:, :both]
            turned = pairs * cos
            turned[..., :half] -= pairs[..., half:] * sin[..., :half]
            turned[..., half:] += pairs[..., :half] * sin[..., half:]
            mixed = attend(i, turned, qkv[:, both:])
            hidden = hidden + _linear(mixed, layer.out, layer.out_bias)
            gate_up = _linear(self._normed(hidden, layer.mlp_norm), layer.gate_up, layer.gate_up_bias)
            gate, up = gate_up[:, : self._inner], gate_up[:, self._inner :]
            with np.errstate(over="ignore"):  # exp of a large number is inf, and gate / inf is the right 0
                inner = gate / (1 + np.exp(-gate)) * up
            hidden = hidden + _linear(inner, layer.down, layer.down_bias)
        return hidden

    def _normed(self, hidden: Floats, weight: Floats) -> Floats:
        square = np.einsum("nd,nd->n", hidden, hidden)[:, None] / np.float32(hidden.shape[1])
        normed: Floats = hidden / np.sqrt(square + self._eps) * weight
        return normed

    def _logits(self, hidden: Floats) -> Logits:
        return _linear(self._normed(hidden, self._norm), self._unembedding, None)


def _linear(inputs: Floats, weight: Floats, bias: Floats | None) -> Floats:
    product: Floats = inputs @ weight
    if bias is not None:
        product += bias
    return product


def _angles(positions: int, head: int, base: float) -> tuple[Floats, Floats]:
    """cos and sin, each (positions, 1, head); the second half repeats the first."""
    frequencies = 1.0 / np.float32(base) ** (np.arange(0, head, 2, dtype=np.float32) / np.float32(head))
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    angles = np.concatenate((angles, angles), axis=-1)[:, None]
    return np.cos(angles), np.sin(angles)


def _turned(weight: Floats) -> Floats:
    """Files hold (outputs, inputs)."""
    return np.ascontiguousarray(weight.T)


def _read(tensors: Mapping[str, Floats], prefix: str) -> _Layer:
    def weight(*names: str) -> Floats:
        return _turned(np.concatenate([tensors[f"{prefix}{name}.weight"] for name in names]))

    def bias(*names: str) -> Floats | None:
        parts = [tensors[f"{prefix}{name}.bias"] for name in names if f"{prefix}{name}.bias" in tensors]
        return np.concatenate(parts) if parts else None

    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gate_up = ("mlp.gate_proj", "mlp.up_proj")
    return _Layer(
        norm=tensors[prefix + "input_layernorm.weight"],
        qkv=weight(*qkv),
        qkv_bias=bias(*qkv),
        out=weight("self_attn.o_proj"),
        out_bias=bias("self_attn.o_proj"),
        mlp_norm=tensors[prefix + "post_attention_layernorm.weight"],
        gate_up=weight(*gate_up),
        gate_up_bias=bias(*gate_up),
        down=weight("mlp.down_proj"),
        down_bias=bias("mlp.down_proj"),
    )
