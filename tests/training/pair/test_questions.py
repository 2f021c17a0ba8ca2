"""Questions: right answers, disjoint splits, the same ones for the same seed."""

import re
from collections import Counter
from random import Random

import pytest

from training.pair.config import PRACTISED, REPEATED, TAUGHT
from training.pair.phrases import NAMES, TEMPLATES
from training.pair.questions import ASKED, DRAWS, Question, distinct, make, split_of, stream

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (?:(\d+) \+ (\d+) = )?(\d+)\.")


def questions(count: int, seed: int = 3) -> list[Question]:
    rng = Random(seed)
    return [make(rng) for _ in range(count)]


def calculate(left: int, operator: str, right: int) -> int:
    if operator == "/":
        assert left % right == 0
        return left // right
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def test_every_step_of_every_worked_answer_is_true_and_the_last_is_the_reference() -> None:
    for question in questions(4000):
        steps, final = question.worked.split("\n")
        found = STEP.findall(steps)
        assert " ".join(m.group(0) for m in STEP.finditer(steps)) == steps
        for left, operator, right, tens, ones, result in found:
            assert calculate(int(left), operator, int(right)) == int(result)
            assert not tens or int(tens) + int(ones) == int(result)
        assert found[-1][-1] == question.reference
        assert final == f"The answer is {question.reference}."


def test_an_expression_alone_has_the_value_of_its_expression() -> None:
    asked = [question for question in questions(8000) if question.group == "chain"]
    assert len(asked) > 100
    for question in asked:
        expression = re.sub(r"[^-+*/() \d]", "", question.prompt.replace("= ?", ""))
        assert eval(expression) == int(question.reference)


def test_the_steps_start_from_the_numbers_of_the_prompt() -> None:
    for question in questions(2000):
        given = set(re.findall(r"\d+", question.prompt))
        left, _, right, *_ = STEP.findall(question.worked)[0]
        assert {left, right} <= given


def test_references_are_small_counts_that_nobody_owes() -> None:
    values = [int(question.reference) for question in questions(4000)]
    assert min(values) >= 0
    assert max(values) < 1000


def test_the_same_seed_gives_the_same_questions_and_another_gives_others() -> None:
    assert distinct(5, 50, "test") == distinct(5, 50, "test")
    assert distinct(5, 50, "test") != distinct(6, 50, "test")


def test_no_prompt_lies_in_two_splits() -> None:
    train = stream(Random(1), "train")
    taught = {next(train).prompt for _ in range(5000)}
    held_out = {question.prompt for question in distinct(2, 500, "test")}
    assert not taught & held_out
    assert {split_of(prompt) for prompt in held_out} == {"test"}


def test_about_a_tenth_is_held_out() -> None:
    share = Counter(question.split for question in questions(8000))
    assert 0.08 < share["test"] / 8000 < 0.12
    assert 0.08 < share["val"] / 8000 < 0.12


def test_distinct_questions_are_distinct() -> None:
    chosen = distinct(0, 1000, None)
    assert len({question.prompt for question in chosen}) == len({question.id for question in chosen}) == 1000


def test_a_row_holds_what_collecting_reads() -> None:
    (question,) = distinct(0, 1, "val")
    assert question.row() == {
        "id": question.id,
        "prompt": question.prompt,
        "reference": question.reference,
        "group": question.group,
        "split": "val",
    }


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="number of questions is -1"):
        distinct(0, -1, "test")


def test_all_mixtures_name_every_group_and_sum_to_one() -> None:
    for shares in (ASKED, PRACTISED, TAUGHT, REPEATED):
        assert set(shares) == set(DRAWS)
        assert sum(shares.values()) == pytest.approx(1)


def test_every_wording_can_be_filled_in() -> None:
    prompts = " ".join(question.prompt for question in questions(8000))
    assert "{" not in prompts
    assert all(name in prompts for name, _ in NAMES)
    assert all(len(set(wordings)) == len(wordings) >= 3 for wordings in TEMPLATES.values())
