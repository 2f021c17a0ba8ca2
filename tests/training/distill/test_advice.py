"""The rules of `tw distill advise` against what the methods did for the pair that they were tried on."""

from typing import Any

from training.distill.advice import advice, in_words

# Multi30k, `--medium`: ranking gained, features and warm-up did not (docs/distill/advise.md).
MEDIUM: dict[str, Any] = {
    "student_parameters": 362_816,
    "teacher_parameters": 2_557_632,
    "distance": {
        "kl": 1.391,
        "reverse_kl": 2.125,
        "undecided": 0.254,
        "mor10": 0.380,
        "top1": 0.597,
        "tokens": 2028,
    },
    "own_text": {"reverse_kl": 1.863, "refused_share": 0.390, "top_k": 25},
    "hidden": {"cka_last": 0.589, "norm_ratio_last": 0.131},
    "cost": {"kd": {"hours": 1.0}, "ranking": {"hours": 1.1}, "features": {"hours": 1.2}},
}


def spoken_for(measured: dict[str, Any]) -> list[str]:
    return [one["method"] for one in advice(measured) if one["speaks_for_it"]]


def test_the_rules_agree_with_what_was_measured() -> None:
    assert spoken_for(MEDIUM) == ["kd", "ranking"]


def test_features_are_for_students_that_have_learned_nothing_yet() -> None:
    # As measured on a student of 96 x 2 that was made by chance, before the run in which features won.
    fresh = {**MEDIUM, "hidden": {"cka_last": 0.320, "norm_ratio_last": 0.011}}
    assert "features" in spoken_for(fresh)


def test_a_student_that_is_there_already_needs_nothing() -> None:
    there = {
        **MEDIUM,
        "distance": {"kl": 0.01, "reverse_kl": 0.01, "undecided": 0.254, "mor10": 0.9},
        "own_text": {"reverse_kl": 0.01, "refused_share": 0.0, "top_k": 25},
        "hidden": {"cka_last": 0.99, "norm_ratio_last": 1.0},
    }
    assert spoken_for(there) == []


def test_warm_up_is_for_students_that_go_astray_on_their_own_text() -> None:
    astray = {**MEDIUM, "own_text": {"reverse_kl": 4.0, "refused_share": 0.39, "top_k": 25}}
    assert "warmup" in spoken_for(astray)
    assert "warmup" not in spoken_for({**MEDIUM, "own_text": None})


def test_the_words_name_every_method_with_its_hours() -> None:
    words = in_words({"measured": MEDIUM, "advice": advice(MEDIUM)})
    assert [line.split(",")[0] for line in words.splitlines() if line[0] in "+-"] == [
        "+ kd", "+ ranking", "- features", "- warmup"
    ]  # fmt: skip
