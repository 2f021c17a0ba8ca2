"""Tiny random models with a real tokenizer and chat template: made in a second, so that no test needs a download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<help>"]
TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEXT = [
    "Anna has 12 apples and gives 5 to Ben. How many apples are left? The answer is 7.",
    "A train leaves at 9:40 and arrives at 11:05. The journey takes 85 minutes.",
    "教師モデルの呼び出しは1日100回まで。Größe, naïve, façade, 😀 🎈.",
] * 20


def tokenizer(vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level, so that one character may take several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    backend.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[2:4] + SPECIAL[5:],
        chat_template=TEMPLATE,
    )


def save_model(directory: Path, seed: int = 0, context: int = 256, **changes) -> Path:
    """A random Llama of some 50,000 parameters; a wide initialisation keeps its likeliest tokens well apart."""
    words = tokenizer()
    words.save_pretrained(directory)
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 48,
        "head_dim": 32,  # the smallest that vLLM runs on a CPU
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    config = LlamaConfig(
        vocab_size=len(words),
        max_position_embeddings=context,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **{**shape, **changes},
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory
