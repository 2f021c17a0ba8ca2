"""Grading by number and by text."""

from decimal import Decimal

import pytest

from training.grading import exact, last_number, numeric


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("29", "29"),
        ("The answer is 29.", "29"),
        ("3 * 4 = 12. 12 + 12 = 24.\nThe answer is 24.", "24"),
        ("She pays 1,024.50 dollars.", "1024.50"),
        ("1'000'000 people", "1000000"),
        ("12-5", "5"),
        ("12 - 5", "5"),
        ("It is -5 outside", "-5"),
        ("x = −7", "-7"),
        ("(-3)", "-3"),
        ("3,4", "4"),
        ("-3,4", "4"),
        ("$29", "29"),
        ("about .5", ".5"),
        ("29,", "29"),
        ("答えは２９です。", "29"),
        ("#### 18", "18"),
        ("007", "7"),
    ],
)
def test_the_last_number_is_read(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "no idea", "twenty-nine", "🙂", "-", ",", "..."])
def test_text_without_digits_has_no_number(text: str) -> None:
    assert last_number(text) is None
    assert numeric(text, "29") == 0.0


@pytest.mark.parametrize(
    ("response", "reference", "grade"),
    [
        ("29", "29", 1.0),
        ("29.0", "29", 1.0),
        ("12 + 17 = 29", "29", 1.0),
        ("29 or perhaps 30", "29", 0.0),
        ("-29", "29", 0.0),
        ("290", "29", 0.0),
        ("1,024", "1024", 1.0),
        ("18", "She makes 9 * 2 = 18 dollars.\n#### 18", 1.0),
    ],
)
def test_numeric_compares_numbers_not_text(response: str, reference: str, grade: float) -> None:
    assert numeric(response, reference) == grade


def test_a_reference_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="reference 'blue' holds no number"):
        numeric("29", "blue")


@pytest.mark.parametrize(
    ("response", "reference", "grade"),
    [("Paris", " paris.\n", 1.0), ("New  York", "new york", 1.0), ("東京。", "東京", 1.0), ("Lyon", "Paris", 0.0)],
)
def test_exact_looks_past_case_spacing_and_one_full_stop(response: str, reference: str, grade: float) -> None:
    assert exact(response, reference) == grade
