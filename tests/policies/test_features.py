import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.arithmetic import Equations, read_equations
from policies.features import DRAFT_FEATURES, FEATURES_HASH, PROMPT_FEATURES, entropy_of, read_draft, read_prompt
from policies.observation import Draft, Prompt
from policies.prompt_features import LONGEST, NGRAMS

ANY_TEXT = st.text(st.characters(codec=None), max_size=400)
NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), max_size=12).map(tuple)


def prompt(text: str) -> dict[str, float]:
    return dict(zip(PROMPT_FEATURES, read_prompt(Prompt(text, text)).dense.tolist(), strict=True))


def draft(text: str, question: str = "", **fields) -> dict[str, float]:
    view = read_prompt(Prompt(question, question))
    return dict(zip(DRAFT_FEATURES, read_draft(Draft(text, **fields), view)[0].tolist(), strict=True))


@given(ANY_TEXT, ANY_TEXT, NUMBERS, NUMBERS, st.sampled_from([None, "stop", "length", "\ud800"]))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_finite_features(question, answer, logprobs, entropies, finish) -> None:
    view = read_prompt(Prompt(question, answer[:20], turn=3, last_route="teacher"))
    dense, ngrams = read_draft(Draft(answer, logprobs, entropies, finish), view)
    for vector, names in ((view.dense, PROMPT_FEATURES), (dense, DRAFT_FEATURES)):
        assert vector.shape == (len(names),)
        assert np.isfinite(vector).all()
    for indices in (view.ngrams, ngrams):
        assert indices.dtype == np.int64
        assert ((indices >= 0) & (indices < NGRAMS)).all()


@given(st.text("0123456789+-*/=x().,%$ \nab", max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_arithmetic_is_read_without_an_error(text: str) -> None:
    found = read_equations(text)
    assert 0 <= found.false <= found.seen


@pytest.mark.parametrize(
    ("text", "seen", "false"),
    [
        ("2 + 2 = 4", 1, 0),
        ("2 + 2 = 5", 1, 1),
        ("3 sprints x 60 meters = 180 meters", 1, 0),
        ("3 x 60 = <<3*60=180>>180", 1, 0),
        ("5 + 3 * 2 = 11", 1, 0),
        ("10 - 4 - 3 = 3", 1, 0),
        ("100,000 / 200 = 525", 1, 1),
        ("105,000 / 200 = $525.00", 1, 0),
        ("1/3 = 0.33", 1, 0),
        ("20% * 50 = 10", 1, 0),
        ("1/4 = 25%", 1, 0),
        ("x = 7", 0, 0),
        ("7 / 0 = 3", 0, 0),
        ("(2 + 3) * 4 = 20", 0, 0),
    ],
)
def test_equations_are_checked(text: str, seen: int, false: int) -> None:
    found = read_equations(text)
    assert (found.seen, found.false) == (seen, false)


def test_results_are_kept_in_order() -> None:
    assert read_equations("2*3=6, so 6+1 = 8") == Equations(2, 1, True, (6.0, 8.0))


def test_nasty_text_takes_no_long_time() -> None:
    view = read_prompt(Prompt("", ""))
    for text in (
        "1+" * LONGEST,
        "1 " * LONGEST,
        "=" * LONGEST,
        "9" * LONGEST,
        "answer is (" * LONGEST,
        "A. x\n" * LONGEST,
    ):
        began = time.perf_counter()
        read_draft(Draft(text), read_prompt(Prompt(text, text)))
        read_draft(Draft(text), view)
        assert time.perf_counter() - began < 2.0


def test_the_shape_of_a_prompt_is_seen() -> None:
    found = prompt("What is 12 plus 3.5?\nA. 15.5\nB. 16\nC. none of these")
    assert found["options"] == 3
    assert found["none_option"] == 1
    assert found["numeric_options"] == pytest.approx(2 / 3)
    assert found["decimal_numbers"] == pytest.approx(np.log1p(2))
    assert found["what_words"] == pytest.approx(np.log1p(1))
    assert found["last_user_part"] == 1
    assert prompt("Why? ```code```")["code_fence"] == 1
    assert prompt("質問です")["cjk_rate"] > 0.2


def test_log_probabilities_are_summed_up() -> None:
    found = draft("The answer is 29.", logprobs=(-0.1, -0.2, -3.0, -0.1), finish_reason="stop")
    assert found["has_logprobs"] == 1
    assert found["logprob_mean"] == pytest.approx(-0.85)
    assert found["logprob_min"] == -3.0
    assert found["logprob_first"] == -0.1
    assert found["logprob_below_half"] == 0.25
    assert found["finish_stop"] == 1
    without = draft("The answer is 29.")
    assert without["has_logprobs"] == 0
    assert without["logprob_mean"] == 0


def test_what_the_text_of_a_draft_shows() -> None:
    question = "Tom has 3 bags of 7 apples and eats 2. How many are left?"
    good = draft("3 * 7 = 21. 21 - 2 = 19. The answer is 19.", question)
    assert good["says_answer"] == 1
    assert good["final_integer"] == 1
    assert good["numbers_unused"] == 0
    assert good["false_equations"] == 0
    bad = draft("3 * 7 = 22. I think it might be 7.5", question)
    assert bad["says_answer"] == 0
    assert bad["final_integer"] == 0
    assert bad["numbers_unused"] == 1
    assert bad["false_share"] == 1
    assert bad["hedges"] > 0
    assert draft("", question)["empty"] == 1
    assert draft("no no no no no no")["repeated_pairs"] > 0.5


def test_agreement_with_the_options_asked_for() -> None:
    question = "How much is 6 * 7?\nA. 40\nB. 42\nC. 44"
    agrees = draft("6 * 7 = 42. The answer is (B).", question)
    assert (agrees["letter_in_options"], agrees["option_number_agrees"]) == (1, 1)
    differs = draft("6 * 7 = 42. The answer is (C).", question)
    assert (differs["option_number_agrees"], differs["option_number_elsewhere"]) == (-1, 1)
    assert draft("The answer is (Q).", question)["letter_in_options"] == 0


def test_entropy_counts_what_the_top_leaves_over() -> None:
    assert entropy_of([np.log(0.5), np.log(0.5)]) == pytest.approx(np.log(2))
    assert entropy_of([np.log(0.5), np.log(0.25)]) == pytest.approx(1.5 * np.log(2))
    assert entropy_of([0.0]) == 0
    assert entropy_of([float("-inf"), 0.0]) == 0


def test_prompt_features_are_quick() -> None:
    text = "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May. " * 26
    times = []
    for _ in range(40):
        began = time.perf_counter()
        read_prompt(Prompt(text, text))
        times.append(time.perf_counter() - began)
    # 200 microseconds is the aim on an idle core; a busy machine gets ten times that before this fails.
    assert min(times) < 2e-3


def test_the_hash_of_the_features_is_pinned() -> None:
    """Changes with the list of features: then old artifacts are refused, so change it knowingly."""
    assert len(FEATURES_HASH) == 16
    assert len(set(PROMPT_FEATURES)) == len(PROMPT_FEATURES)
    assert len(set(DRAFT_FEATURES)) == len(DRAFT_FEATURES)
