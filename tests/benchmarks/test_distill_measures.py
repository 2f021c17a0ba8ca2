"""What the distillation benchmarks measure with: worked out by hand."""

import math
import random

import pytest

pytest.importorskip("torch")

from benchmarks.distill.arms import pairs
from benchmarks.distill.diffusion import closed, halved, line_entropy, self_bleu, valid_sums, valid_words
from benchmarks.distill.material import stuttered
from benchmarks.distill.measuring import steps_to
from benchmarks.distill.tables import cell, interval, paired


def test_a_sum_counts_where_its_whole_line_is_right():
    # A text is whole lines: every one counts.
    assert valid_sums(["12+34=046\n12+34=047\n99+01=100\n", "50+1\n"]) == pytest.approx(1 / 2)
    assert valid_sums(["12+34=46\n12 34=046\n\n5"]) == 0.0
    assert valid_sums(["1+3=04\n1+3=4\n"]) == pytest.approx(1 / 2)
    assert valid_sums([""]) == 0.0


def test_steps_are_halved_down_to_two():
    assert halved(64) == [64, 32, 16, 8, 4, 2]
    assert halved(3) == [3]


def test_the_entropy_of_lines_counts_right_sums_only():
    assert line_entropy(["1+3=04\n1+2=03\n1+2=04\n"]) == pytest.approx(math.log(2))
    assert line_entropy(["1+3=04\n1+3=04\n"]) == pytest.approx(0.0)
    assert line_entropy(["1+3=05\n"]) == 0.0


def test_a_word_counts_where_it_is_whole_and_known():
    assert valid_words(["ing the cat sxt on the m", "one"], {"the", "cat", "on"}) == pytest.approx(4 / 5)


def test_self_bleu_is_one_among_equals_and_small_among_strangers():
    words = ["a", "b", "c", "d", "e", "f"]
    assert self_bleu([words, words, words]) == pytest.approx(1.0)
    assert self_bleu([list("abcdef"), list("ghijkl")]) < 0.15


def test_the_closed_share_of_a_gap():
    assert closed(2.0, 1.0, 1.25) == pytest.approx(0.75)
    assert closed(0.2, 0.6, 0.1) == pytest.approx(-0.25)
    assert closed(1.0, 1.0, 1.0) is None
    assert closed(1.0, None, 1.0) is None


def test_steps_to_a_goal_lie_between_two_validations():
    curve = [
        {"step": 0, "val_kl": 1.0},
        {"step": 5, "loss": 9.0},
        {"step": 10, "val_kl": 0.6},
        {"step": 20, "val_kl": 0.4},
    ]
    assert steps_to(curve, 0.7) == pytest.approx(7.5)
    assert steps_to(curve, 0.4) == pytest.approx(20.0)
    assert steps_to(curve, 2.0) == pytest.approx(0.0)
    assert steps_to(curve, 0.3) is None


def test_an_interval_needs_two_seeds_and_is_students():
    assert interval([1.0]) is None
    low, high = interval([1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3026527 / 3**0.5, 2 + 4.3026527 / 3**0.5))
    # However many there are; half of twenty values 0 and half 1 have a variance of 5 / 19.
    assert interval([0.0, 1.0] * 10) == pytest.approx([0.5 + side * 2.0930241 / 76**0.5 for side in (-1, 1)])
    assert cell([1.0], 1) == "1.0"
    assert cell([None], 1) == "-"


def test_arms_are_compared_seed_by_seed():
    results = {
        "kd": [{"held": {"kl": 1.0, "nll": 2.0}}, {"held": {"kl": 3.0, "nll": 2.0}}],
        "better": [{"held": {"kl": 0.5, "nll": 2.0}}, {"held": {"kl": 2.5, "nll": 2.0}}],
        "of one seed": [{"held": {"kl": 2.0, "nll": 2.1}}],
    }
    assert paired(results, {"KL": ("held.kl", 2)}, "kd").splitlines()[2:] == [
        "| better | 2 | -0.50 [-0.50, -0.50] | 0.0 [0.0, 0.0] |",
        "| of one seed | 1 | 1.00 | 10.5 |",
    ]


def test_layers_are_paired_by_their_place_in_both_models():
    assert pairs("spread", 2, 4) == ((1, 2), (2, 4))
    assert pairs("ends", 2, 4) == ((1, 1), (2, 4))
    assert pairs("ends", 1, 2) == pairs("spread", 1, 2) == ((1, 2),)


def test_disfluent_text_says_words_again_and_loses_none():
    text = " a man walks his dog ."
    said = stuttered(text, 0.5, random.Random(0)).split(" ")
    assert len(said) > len(text.split(" "))
    assert [word for word, before in zip(said, ["?", *said], strict=False) if word != before] == text.split(" ")
    assert stuttered(text, 0.0, random.Random(0)) == text
