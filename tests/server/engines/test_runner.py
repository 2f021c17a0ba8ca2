"""Rows of a batch get what each would get alone."""

import json
import random

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from server.engines.embedded.llama import LlamaRunner, plain_shape, read_llama
from server.engines.embedded.runner import TransformersRunner, check_runner
from server.engines.spec import UnusableWeights
from tests.server.engines.tiny import save_model

LENGTHS = (3, 40, 1, 17, 100, 9)
JOINS = {0: [0, 1], 3: [2], 7: [3, 4], 12: [5]}
"""step -> the prompts that join before it"""
NEW = 30


def staggered(runner, prompts) -> dict[int, list[int]]:
    """Greedy continuations, with sequences that join and leave while others run."""
    texts: dict[int, list[int]] = {}
    rows: list[int] = []
    step = 0
    while rows or step <= max(JOINS):
        if step in JOINS:
            for i, row in zip(JOINS[step], runner.join([prompts[i] for i in JOINS[step]]), strict=True):
                texts[i] = [int(row.argmax())]
                rows.append(i)
        for i, row in zip(rows, runner.step([texts[i][-1] for i in rows]), strict=True):
            texts[i].append(int(row.argmax()))
        for number in range(len(rows) - 1, -1, -1):
            if len(texts[rows[number]]) == NEW:
                runner.leave(number)
                last = rows.pop()
                if number < len(rows):
                    rows[number] = last
        step += 1
    return texts


def one_at_a_time(model, prompts) -> dict[int, list[int]]:
    """transformers' own generation."""
    with torch.inference_mode():
        return {
            i: model.generate(
                torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
            )[0, len(prompt) :].tolist()
            for i, prompt in enumerate(prompts)
        }


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(6, 300) for _ in range(length)] for length in LENGTHS]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def llama(directory) -> LlamaRunner:
    shape = plain_shape(json.loads((directory / "config.json").read_text()))
    return LlamaRunner(shape, read_llama(directory, shape), 256)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 0.1},
    ],
    ids=["grouped", "plain heads", "biases and tied", "other constants"],
)
def test_llama_written_out_equals_transformers(tmp_path, prompts, changes):
    directory = save_model(tmp_path, **changes)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    if changes.get("attention_bias"):
        with torch.no_grad():  # a fresh bias is zero, which would prove nothing
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_()
        model.save_pretrained(directory)
    runner = llama(directory)
    check_runner(runner, model)
    assert staggered(runner, prompts) == one_at_a_time(model, prompts)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"rope_scaling": {"rope_type": "llama3"}},
        {"hidden_act": "gelu"},
        {"model_type": "mistral"},
        {"quantization_config": {"bits": 4}},
    ],
)
def test_anything_else_is_left_to_transformers(tmp_path, changes):
    settings = json.loads((save_model(tmp_path) / "config.json").read_text())
    assert plain_shape(settings) is not None
    assert plain_shape({**settings, **changes}) is None


SMALL = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "mistral with a window": MistralConfig(**SMALL, sliding_window=8),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
    "qwen3 with windows in some layers": Qwen3Config(
        **SMALL, head_dim=16, use_sliding_window=True, sliding_window=8, max_window_layers=2
    ),
    "gpt2": GPT2Config(vocab_size=300, n_embd=48, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3),
}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_any_architecture_equals_transformers(config, prompts, implementation):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    runner = TransformersRunner(model, 256)
    check_runner(runner, model)
    assert staggered(runner, prompts) == one_at_a_time(model, prompts)


def test_state_space_models_are_refused():
    model = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2))
    with pytest.raises(UnusableWeights, match=r"cannot batch the architecture mamba .*; serve it with vLLM"):
        TransformersRunner(model, 256)


def test_a_runner_that_gives_other_scores_is_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path), dtype=torch.float32).eval()
    runner = llama(tmp_path)
    runner._cos = np.roll(runner._cos, 1, axis=0)
    with pytest.raises(UnusableWeights, match="get other scores"):
        check_runner(runner, model)


def test_memory_grows_and_is_let_go(tmp_path, monkeypatch):
    runner = llama(save_model(tmp_path))
    alone = runner.join([[7] * 200])[0].argmax()
    runner.clear()
    runner.join([[5, 6], [7, 8, 9]])
    assert runner.join([[7] * 200])[0].argmax() == alone
    assert (runner._memory._rows, runner._memory._columns) == (4, 256)
    monkeypatch.setattr("server.engines.embedded.cache._KEEP_BYTES", 0)
    runner.clear()
    assert runner._memory._keys == [None, None]
    assert runner.join([[7] * 200])[0].argmax() == alone
