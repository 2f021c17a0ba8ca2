"""Rows of benchmarks.wheels.served: what a client got, and the most that the teacher ever wrote of it."""

import json

import pytest

from benchmarks.wheels.arms import WHEELS
from benchmarks.wheels.served import WATCHED, row, settings, table
from training.distill.wheels.restrictions import TRAINED, read_restriction

TEXTS = ["a man rides a bicycle down the street", "two dogs play in the snow", "a girl jumps", "people wait for a bus"]


def answers(*tokens: tuple[int, int]) -> list[dict[str, object]]:
    """(the teacher's, all) of each answer."""
    return [
        {"text": text, "ms": 10.0 * index, "tokens": of, "teacher": some}
        for index, (text, (some, of)) in enumerate(zip(TEXTS, tokens, strict=False), 1)
    ]


def test_a_share_is_of_all_tokens_and_its_peak_is_kept() -> None:
    found = row(WHEELS, 0.2, answers((0, 10), (5, 10), (1, 10), (2, 10)), TEXTS)
    assert found["share"] == pytest.approx(8 / 40)
    assert found["most"] == pytest.approx(5 / 20)
    assert found["ms"] == pytest.approx(25.0)


def test_the_sentence_that_serving_writes_is_one_of_training() -> None:
    told = settings(WHEELS)
    sentence, _, prompt = told["TW_HELP__RESTRICTION"].partition("\n")
    assert prompt == "{prompt}"
    levels = json.loads(told["TW_HELP__LEVELS"])
    for level in levels:
        said = sentence.replace("{percent}", str(level))
        assert said == TRAINED[0].replace("{share}", f"{level}%")
        assert read_restriction(said) == pytest.approx(level / 100)
    assert settings(WATCHED)["TW_HELP__BY"] == "policy"


def test_the_table_has_a_line_for_each_way_and_intervals_over_seeds() -> None:
    seeds = [[row(WHEELS, 0.2, answers((some, 10), (0, 10)), TEXTS[:2])] for some in (1, 2, 3)]
    lines = table(seeds).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(f"| {WHEELS} | 20% | 10.0 [")
