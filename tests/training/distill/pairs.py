"""Tiny random pairs with a real tokenizer, and a few rows to learn from: made in a second, no download."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|end|>", "<|mask|>"]
WORDS = [f"{a} and {b} make {a + b}." for a in range(12) for b in range(12)]
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}{{ 'assistant: ' }}"


def tokenizer(size: int = 320, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        WORDS * 4,
        trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    found = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        mask_token="<|mask|>",
        chat_template=TEMPLATE,
    )
    if extra:
        found.add_tokens(list(extra))
    return found


def llama(
    vocabulary: int, *, seed: int = 0, hidden: int = 24, layers: int = 2, context: int = 64, **changes: Any
) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
        "max_position_embeddings": context,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **{**shape, **changes}))


def save_model(
    directory: Path, *, size: int = 320, extra: tuple[str, ...] = (), padded_to: int | None = None, **shape: Any
) -> Path:
    words = tokenizer(size, extra)
    llama(padded_to or len(words), **shape).save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def save_rows(file: Path, count: int = 24) -> Path:
    rows = [{"prompt": f"{a} and {b} make", "answer": f" {a + b}."} for a in range(5) for b in range(count // 5 + 1)][
        :count
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def toml(value: dict[str, Any], prefix: str = "") -> str:
    """Enough of TOML for a configuration."""
    plain = {k: v for k, v in value.items() if not isinstance(v, dict)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items()]
    for name, table in value.items():
        if isinstance(table, dict):
            lines += ["", f"[{prefix}{name}]", toml(table, f"{prefix}{name}.")]
    return "\n".join(lines)


def settings(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A configuration for the pair and rows under `folder` (made by the fixture `pair`)."""
    base: dict[str, Any] = {
        "out": str(folder / "out"),
        "seed": 3,
        "student": {"path": str(folder / "student")},
        "teacher": {"path": str(folder / "teacher")},
        "data": {"train": [str(folder / "rows.jsonl")], "validation_rows": 2, "context": 48},
        "training": {
            "steps": 4,
            "rows": 4,
            "learning_rate": 1e-2,
            "log_every": 1,
            "evaluate_every": 2,
            "checkpoint_every": 2,
        },
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base
