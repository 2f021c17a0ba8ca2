"""Asks a model held-out questions in batches and grades what it says: what the report and the tests stand on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import pad

from training.grading import numeric
from training.pair.questions import Question

MOST_TOKENS: Final = 96


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer: its text, the log-probability of every token generated (the end included), its grade."""

    text: str
    logprobs: tuple[float, ...]
    quality: float


@torch.inference_mode()
def ask(model: Any, tokenizer: Any, questions: Sequence[Question], batch: int = 100) -> list[Answer]:
    """Greedy answers in the order of the questions, from what transformers' Auto classes load."""
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        batched = _answer(model, tokenizer, [questions[index] for index in chosen])
        answers.update(zip(chosen, batched, strict=True))
    return [answers[index] for index in range(len(questions))]


def _answer(model: Any, tokenizer: Any, questions: Sequence[Question]) -> list[Answer]:
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question.prompt}], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    width = max(map(len, prompts))
    # On the left, so that every answer begins in the same column.
    tokens = torch.stack([pad(torch.tensor(p), (width - len(p), 0), value=tokenizer.pad_token_id) for p in prompts])
    mask = torch.stack([pad(torch.ones(len(p), dtype=torch.long), (width - len(p), 0)) for p in prompts])
    made = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=MOST_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    said = made.sequences[:, width:]
    scores = torch.stack(made.logits, dim=1).float().log_softmax(-1).gather(2, said[:, :, None])[:, :, 0]
    answers = []
    for question, ids, logprobs in zip(questions, said.tolist(), scores.tolist(), strict=True):
        end = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        answers.append(Answer(text, tuple(logprobs[:end]), numeric(text, question.reference)))
    return answers
