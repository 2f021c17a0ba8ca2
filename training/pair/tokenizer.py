"""The one tokenizer of the pair: byte-level BPE over the recipe's own questions, every digit a token of its own.

Bytes are the base, so any text tokenises. The files load unchanged in transformers and in vLLM.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PAD: Final = "<|pad|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
SPECIAL: Final = (PAD, USER, ASSISTANT, END)

# One digit at most (with the space before it), words with the space before them, then all the rest.
PIECES: Final = r" ?\d|\s?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"

# The models know one question at a time, so the last question is all they are shown: earlier turns and system
# messages would only be noise to them. What follows it (an answer to be continued) is kept.
CHAT_TEMPLATE: Final = """\
{%- set last = namespace(user=0) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages[last.user:] -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' + message['content'] + '<|end|>' -}}
{%- else -%}
{{- '<|user|>' + message['content'] | trim -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens learned from `texts`; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The digits first and often: each must have its token with a space before it, however rare it is in the texts.
    digits = [f" {digit}" for digit in range(10)] * 100
    tokenizer.train_from_iterator([*digits, *texts], trainer)
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, context: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"eos_token": END, "pad_token": PAD}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
        **names,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def prompt_text(question: str) -> str:
    """What the chat template makes of one user message, with the answer still to come."""
    return f"{USER}{question.strip()}{ASSISTANT}"


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token known to be there (one of SPECIAL, say); KeyError where it is not."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(f"the tokenizer has no token {token!r}")
    return int(found)
