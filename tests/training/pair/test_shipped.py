"""The pair as shipped: it loads, is as large and as good as promised, and is the one the report speaks of."""

import json
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from training.pair.config import ROLES
from training.pair.grade import Answer, ask
from training.pair.model import parameters
from training.pair.questions import distinct
from training.pair.report import sha256
from training.pair.tokenizer import END

SHIPPED = Path(__file__).parents[3] / "server" / "shipped"
QUESTIONS = distinct(11, 150, "test")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def loaded(role: str) -> tuple[Any, Any]:
    return LlamaForCausalLM.from_pretrained(SHIPPED / role), AutoTokenizer.from_pretrained(SHIPPED / role)


@cache
def answers(role: str) -> list[Answer]:
    return ask(*loaded(role), QUESTIONS)


def report() -> dict[str, Any]:
    return json.loads((SHIPPED / "report.json").read_text())


@pytest.mark.parametrize(("role", "least", "most"), [("student", 0.9e6, 1.2e6), ("teacher", 9e6, 11e6)])
def test_it_has_the_promised_size(role: str, least: float, most: float) -> None:
    model, _ = loaded(role)
    assert least <= parameters(model) <= most
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.dtype == torch.float32


def test_together_the_weights_are_forty_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 40e6


def test_both_read_with_the_same_tokenizer() -> None:
    assert len({(SHIPPED / role / "tokenizer.json").read_bytes() for role in ROLES}) == 1


@pytest.mark.parametrize("role", ROLES)
def test_generation_stops_where_the_answer_ends(role: str) -> None:
    model, tokenizer = loaded(role)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END)
    assert all(answer.text.rstrip(".")[-1].isdigit() for answer in answers(role))


def test_the_teacher_is_right_where_the_student_often_is_not() -> None:
    assert fmean(answer.quality for answer in answers("teacher")) >= 0.85
    assert 0.40 <= fmean(answer.quality for answer in answers("student")) <= 0.80


def test_the_teacher_works_step_by_step_and_the_student_answers_at_once() -> None:
    assert all("\nThe answer is " in answer.text and "=" in answer.text for answer in answers("teacher"))
    assert fmean(answer.text.isdigit() for answer in answers("student")) == 1.0


def test_answers_are_short() -> None:
    assert max(len(answer.logprobs) for answer in answers("teacher")) <= 60
    assert max(len(answer.logprobs) for answer in answers("student")) <= 6


@pytest.mark.parametrize("text", ["リンゴは何個？", "🍎 + 🍏 = ?", "", "hello"])
def test_any_question_gets_some_answer(text: str) -> None:
    model, tokenizer = loaded("student")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        said = model.generate(**ids, do_sample=False, max_new_tokens=16)
    assert said.shape[1] > ids["input_ids"].shape[1]


def test_the_report_speaks_of_these_files() -> None:
    told = report()
    for role in ROLES:
        assert told[role]["weights_sha256"] == sha256(SHIPPED / role / "model.safetensors")
        assert told["tokenizer_sha256"] == sha256(SHIPPED / role / "tokenizer.json")
    assert told["teacher"]["quality"] >= 0.90
    assert 0.45 <= told["student"]["quality"] <= 0.75
