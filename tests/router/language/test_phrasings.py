import pytest

from router.budget import Budget
from router.language import parse
from tests.router.language import phrasings_en, phrasings_ja

ENGLISH = phrasings_en.PHRASINGS
JAPANESE = phrasings_ja.PHRASINGS


@pytest.mark.parametrize(("text", "budget"), ENGLISH.items(), ids=list(ENGLISH))
def test_an_english_phrasing_says_its_budget(text: str, budget: Budget) -> None:
    parsed = parse(text, rates=phrasings_en.RATES)
    assert parsed.budget == budget
    assert parsed.language == "en"
    assert parse(parsed.canonical).budget == budget


@pytest.mark.parametrize(("text", "budget"), JAPANESE.items(), ids=list(JAPANESE))
def test_a_japanese_phrasing_says_its_budget(text: str, budget: Budget) -> None:
    parsed = parse(text, rates=phrasings_en.RATES)
    assert parsed.budget == budget
    assert parsed.language == "ja"
    assert parse(parsed.canonical).budget == budget


def test_there_are_sixty_phrasings_in_each_language() -> None:
    assert len(ENGLISH) >= 60
    assert len(JAPANESE) >= 60
