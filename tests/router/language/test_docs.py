"""Every row of docs/budget-language.md reads as the page says it does."""

import re
from pathlib import Path

import pytest

from router.language import Unreadable, parse

PAGE = Path(__file__).parents[3] / "docs" / "budget-language.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| `", line)
]
READ = [(row[0].strip("`"), row[1].removesuffix(" |")) for row in ROWS if len(row) == 2]
REFUSED = [(row[0].strip("`"), row[1].strip("`")) for row in ROWS if len(row) == 3]
USUAL = ("When the budget is exhausted the student answers.", "予算を使い切ったら生徒モデルが答える。")


@pytest.mark.parametrize(("text", "understood"), READ, ids=[text for text, _ in READ])
def test_a_row_of_the_page_is_understood_so(text: str, understood: str) -> None:
    said = parse(text).canonical
    shortened = said
    for usual in USUAL:
        shortened = shortened.removesuffix(usual).strip()
    assert understood in (said, shortened)
    assert parse(understood).budget == parse(text).budget


@pytest.mark.parametrize(("text", "phrase"), REFUSED, ids=[text for text, _ in REFUSED])
def test_a_row_of_the_page_is_refused_with_its_phrase(text: str, phrase: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(text)
    assert caught.value.phrase == phrase


def test_the_page_has_rows() -> None:
    assert len(READ) > 60
    assert len(REFUSED) > 10
