"""The tokenizer: one token per digit, any text, and a chat template that transformers reads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from training.pair.config import QUICK
from training.pair.recipe import tokenizer_of
from training.pair.tokenizer import END, SPECIAL, prompt_text, save, token_id

TOKENIZER: Tokenizer = tokenizer_of(QUICK)


@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    if not any(token in text for token in SPECIAL):
        assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", ["リンゴを３個", "🍎🍏", "naïve café", "\t\n\r", "\x00", "़"])
def test_text_unlike_any_question_tokenises(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@pytest.mark.parametrize("text", ["1234567890", "17+26", "What is 17 + 26?", "3 bags of 45"])
def test_every_digit_is_a_token_of_its_own(text: str) -> None:
    pieces = [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text).ids]
    digits = [piece for piece in pieces if any(c.isdigit() for c in piece)]
    assert [piece.strip() for piece in digits] == [c for c in text if c.isdigit()]


def test_the_same_recipe_gives_the_same_tokenizer() -> None:
    assert tokenizer_of(QUICK).to_str() == TOKENIZER.to_str()


def test_an_unknown_token_has_no_id() -> None:
    with pytest.raises(KeyError, match=r"no token '<\|nothing\|>'"):
        token_id(TOKENIZER, "<|nothing|>")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    save(TOKENIZER, directory, 1024)
    return AutoTokenizer.from_pretrained(directory)


class TestInTransformers:
    def test_a_question_is_rendered_as_it_was_taught(self, loaded) -> None:
        messages = [{"role": "user", "content": " What is 17 + 26? "}]
        text = loaded.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert text == prompt_text("What is 17 + 26?") == "<|user|>What is 17 + 26?<|assistant|>"
        ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == TOKENIZER.encode(text).ids

    def test_the_end_is_the_end(self, loaded) -> None:
        assert (loaded.eos_token, loaded.eos_token_id) == (END, token_id(TOKENIZER, END))

    def test_only_the_last_question_is_shown(self, loaded) -> None:
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "What is 1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "What is 2 + 2?"},
        ]
        text = loaded.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert text == "<|user|>What is 2 + 2?<|assistant|>"

    def test_an_answer_can_be_continued(self, loaded) -> None:
        messages = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "2 + 2 ="}]
        text = loaded.apply_chat_template(messages, continue_final_message=True, tokenize=False)
        assert text == "<|user|>What is 2 + 2?<|assistant|>2 + 2 ="
