"""From questions to rows of tokens: several questions lie in one row, and none sees another.

The lessons of a step depend on the seed and the step alone, so a run that was stopped goes on with the same ones.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer

from training.pair.config import Course, Role
from training.pair.questions import Question, stream
from training.pair.tokenizer import END, PAD, prompt_text, token_id

IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Lesson:
    """Rows of one step, each (rows, row_tokens): token ids, positions within the question, the token to come at each
    place (IGNORED outside answers), and the attention mask (rows, 1, row_tokens, row_tokens)."""

    tokens: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    questions: int


def answer(question: Question, worked: bool) -> str:
    return question.worked if worked else question.reference


def lesson(course: Course, role: Role, tokenizer: Tokenizer, step: int) -> Lesson:
    """The rows of one step. Questions come in a fixed order and go to the first row with room for them; a step ends
    when eight in a row found none."""
    questions = stream(Random(f"{role}-{course.seed}-{step}"), "train", course.at(step)[0].shares)
    pad, end = token_id(tokenizer, PAD), token_id(tokenizer, END)
    size = (course.rows, course.row_tokens)
    tokens, targets = torch.full(size, pad), torch.full(size, IGNORED)
    positions, owners = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
    filled = [0] * course.rows
    count = refused = 0
    while refused < 8:
        question = next(questions)
        asked = tokenizer.encode(prompt_text(question.prompt)).ids
        told = [*tokenizer.encode(answer(question, course.worked)).ids, end]
        length = len(asked) + len(told)
        row = next((index for index, used in enumerate(filled) if used + length <= course.row_tokens), None)
        if row is None:
            refused += 1
            continue
        count += 1
        start, stop = filled[row], filled[row] + length
        tokens[row, start:stop] = torch.tensor(asked + told)
        targets[row, stop - len(told) - 1 : stop - 1] = torch.tensor(told)
        positions[row, start:stop] = torch.arange(length)
        owners[row, start:stop] = count
        filled[row] = stop
    same = owners[:, :, None] == owners[:, None, :]
    mask = same & torch.ones(course.row_tokens, course.row_tokens, dtype=torch.bool).tril()
    return Lesson(tokens, positions, targets, mask[:, None], count)
