import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from server.engines.embedded.llama import LlamaRunner
from server.engines.embedded.loading import load
from server.engines.embedded.plain_tokenizer import read_plain_tokenizer
from server.engines.embedded.runner import TransformersRunner
from server.engines.embedded.tokens import TemplateError, Tokens
from tests.server.engines.tiny import save_model, tokenizer


def test_a_plain_llama_needs_neither_torch_nor_transformers(tiny_model):
    program = (
        "import sys; from server.engines.embedded.loading import load; load(sys.argv[1]);"
        "print(*({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny_model)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


CHATS = [
    [{"role": "user", "content": "Anna has 12 apples."}],
    [
        {"role": "system", "content": "Kind."},
        {"role": "user", "content": " x "},
        {"role": "assistant", "content": "So "},
    ],
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("how", ["ask", "continue", "as it is"])
@pytest.mark.parametrize("trim", ["", " | trim"])
def test_the_plain_tokenizer_equals_transformers(tmp_path, chat, how, trim):
    theirs = tokenizer()
    theirs.chat_template = theirs.chat_template.replace("message['content']", f"message['content'] {trim}") + (
        "{{ {'a': bos_token} | tojson }}"
    )
    theirs.save_pretrained(tmp_path)
    ours = read_plain_tokenizer(tmp_path)
    options = {"add_generation_prompt": how == "ask", "continue_final_message": how == "continue", "tokenize": False}
    text = ours.apply_chat_template(chat, **options)
    assert text == theirs.apply_chat_template(chat, **options)
    assert ours.encode(text, False) == theirs.encode(text, add_special_tokens=False)
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.convert_ids_to_tokens(50) == theirs.convert_ids_to_tokens(50)


def test_a_template_may_refuse(tmp_path):
    theirs = tokenizer()
    theirs.chat_template = "{{ raise_exception('no system messages') }}"
    theirs.save_pretrained(tmp_path)
    with pytest.raises(TemplateError, match="the chat template refused the messages: no system messages"):
        Tokens(read_plain_tokenizer(tmp_path)).encode_chat(
            CHATS[0], add_generation_prompt=True, continue_final_message=False, extra={}
        )


def test_half_precision_weights_run_in_float32(tmp_path):
    directory = save_model(tmp_path)
    whole = load(str(directory)).runner
    AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).save_pretrained(directory)
    half = load(str(directory)).runner
    assert type(whole) is type(half) is LlamaRunner
    scores = [runner.join([[5, 6, 7]]) for runner in (whole, half)]
    assert np.abs(scores[0] - scores[1]).max() < 0.1
    assert type(load(str(directory), dtype="bfloat16").runner) is TransformersRunner


def test_another_architecture_is_loaded_by_transformers(tmp_path):
    words = tokenizer()
    words.save_pretrained(tmp_path)
    config = Qwen3Config(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert type(loaded.runner) is TransformersRunner
    assert (loaded.runner.context, loaded.runner.vocab_size) == (128, len(words))
    assert loaded.eos == {words.eos_token_id}


def test_the_models_own_wishes_are_the_defaults(tmp_path):
    directory = save_model(tmp_path)
    wishes = {"eos_token_id": [4, 5], "top_k": 7, "temperature": 0.6, "max_new_tokens": 9, "pad_token_id": 0}
    (directory / "generation_config.json").write_text(json.dumps(wishes))
    loaded = load(str(directory))
    assert loaded.defaults == {"top_k": 7, "temperature": 0.6, "max_new_tokens": 9}
    assert loaded.eos == {4, 5}
    (directory / "generation_config.json").write_text(json.dumps({**wishes, "do_sample": False}))
    assert load(str(directory)).defaults["temperature"] == 0
