"""What samples beside a draft say: worked out by hand, the same in training and in service, absent unless asked for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.action import Step
from policies.artifact import load_policy, read_manifest
from policies.observation import Draft, Prompt
from policies.outcomes import Outcome, OutcomeTableError, read_outcomes
from policies.prompt_features import PROMPT_FEATURES, read_prompt
from policies.samples import SAMPLE_FEATURES, SampleWish, ask_for, final_answer, read_samples, texts_in
from policies.wheels import ESTIMATES, WheelsPolicy
from tests.training.tables import as_dict, sums, write
from training.cli import train
from training.dataset import build_table
from training.evaluate import observations
from training.widening import widen

WISH = SampleWish(4)
NO_OPTIONS = read_prompt(Prompt("How many apples?", "How many apples?"))


def read(draft: str, *samples: str, prompt: str = "How many apples?", wish: SampleWish = WISH) -> dict[str, float]:
    view = read_prompt(Prompt(prompt, prompt))
    return dict(zip(SAMPLE_FEATURES, read_samples(Draft(draft, samples=samples), wish, view).tolist(), strict=True))


def test_three_of_four_samples_agree_with_the_draft() -> None:
    found = read("3 * 4 = 12. The answer is 12.", "The answer is 12.", "#### 12.0", "so 12", "The answer is 14 apples.")
    assert found == {
        "samples_here": 1.0,
        "log_samples": pytest.approx(np.log(5)),
        "samples_with_answer": 1.0,
        "samples_agree_with_draft": 0.75,
        "samples_agree_with_each_other": pytest.approx(6 / 12),
        "samples_largest_share": 0.75,
        "samples_kinds": 0.5,
        "draft_is_most_frequent": 1.0,
        # {3, *, 4, =, 12, ., the, answer, is} against {the, answer, is, 12, .}, {#, 12, ., 0}, {so, 12}, {..., apples}
        "samples_share_words": pytest.approx((5 / 9 + 2 / 11 + 1 / 10 + 4 / 11) / 4),
    }


def test_samples_may_agree_with_each_other_against_the_draft() -> None:
    found = read("The answer is 5.", "The answer is 7.", "The answer is 7.")
    assert (found["samples_agree_with_draft"], found["samples_agree_with_each_other"]) == (0.0, 1.0)
    assert found["draft_is_most_frequent"] == 0.0


def test_one_that_says_nothing_agrees_with_nobody() -> None:
    found = read("", "", "", "The answer is 7.")
    assert (found["samples_agree_with_draft"], found["draft_is_most_frequent"]) == (0.0, 0.0)
    assert (found["samples_agree_with_each_other"], found["samples_with_answer"]) == (0.0, pytest.approx(1 / 3))


def test_unknown_samples_are_all_zero() -> None:
    assert set(read("The answer is 5.").values()) == {0.0}


def test_no_more_samples_are_looked_at_than_service_would_ask_for() -> None:
    few = SampleWish(2)
    assert read("The answer is 5.", "5", "5", "6", "7", wish=few) == read("The answer is 5.", "5", "5", wish=few)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 1,200.50 dollars. I also saw 7 birds.", ("1200.5", True)),
        ("It is -3", ("-3", True)),
        (r"\boxed{42}", ("42", True)),
        ("Because of rain.\nParis!", ("paris", False)),
        ("", ("", False)),
    ],
)
def test_the_final_answer_is_a_number_or_the_last_line(text: str, answer: tuple[str, bool]) -> None:
    assert final_answer(text, {}) == answer


def test_where_choices_are_offered_it_is_a_letter() -> None:
    prompt = "Which?\nA. 4\nB. 5\nC. 6"
    found = read("The answer is (B).", "So 5. Answer: B", "The answer is C", prompt=prompt)
    assert found["samples_agree_with_draft"] == 0.5


@pytest.mark.parametrize("text", ["\ud800", "x" * 50_000, "= = =", "多" * 999, "$" * 5000])
def test_any_text_can_be_read(text: str) -> None:
    assert np.isfinite(read_samples(Draft(text, samples=(text, "", text)), WISH, NO_OPTIONS)).all()


def test_a_sample_is_asked_for_as_the_request_was() -> None:
    body = {
        "model": "auto",
        "messages": [],
        "stream": True,
        "seed": 1,
        "max_tokens": 900,
        "n": 1,
        "tools": [],
        "user": "u",
    }
    assert ask_for(body, SampleWish(3, 20), 3) == {
        "model": "auto", "messages": [], "tools": [], "user": "u", "temperature": 0.8, "max_tokens": 20, "n": 3
    }  # fmt: skip
    assert texts_in({"choices": [{"message": {"content": "a"}}, {"text": "b"}, {"message": {}}, 3]}) == ["a", "b", ""]


# Through training


def sampled(rows: list[Outcome], count: int = 3) -> list[Outcome]:
    """Samples that agree with the draft where it is right, and differ where it is wrong."""
    return [
        replace(
            row,
            student_samples=tuple(
                row.student_response if row.student_quality else f"The answer is {i}." for i in range(count)
            ),
        )
        for row in rows
        if row.student_response is not None
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    table = folder / "sums.jsonl"
    write_sampled(table, sampled(sums(240)))
    arguments = ["policy", "--outcomes", str(table), "--out", str(folder / "policy"), "--steps", "20"]
    done = CliRunner().invoke(train, [*arguments, "--samples", "3", "--sample-tokens", "40"])
    assert done.exit_code == 0, done.output
    return folder / "policy"


def write_sampled(path: Path, rows: list[Outcome]) -> None:
    lines = [json.dumps(as_dict(row) | {"student_samples": row.student_samples}) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def test_service_reads_what_training_read(trained: Path) -> None:
    rows = sampled(sums(40, seed=3))
    policy = load_policy(trained)
    assert isinstance(policy, WheelsPolicy)
    table, _ = widen(build_table(rows, "draft"), rows, samples=policy.samples)
    assert table.draft is not None
    served = np.concatenate([policy.prepare([each]) for each in observations(rows, Step.DEFER)])
    assert (served[:, 2 * len(ESTIMATES) + len(PROMPT_FEATURES) :] == table.draft).all()


def test_the_policy_says_what_it_wants_asked(trained: Path) -> None:
    policy = load_policy(trained)
    assert isinstance(policy, WheelsPolicy)
    assert (policy.samples, read_manifest(trained).samples) == (SampleWish(3, 40), {"count": 3, "max_tokens": 40})


def test_disagreement_speaks_for_the_teacher(trained: Path) -> None:
    policy = load_policy(trained)
    row = sums(1)[0]
    agree, differ = (("The answer is 12.",) * 3, ("The answer is 1.", "The answer is 2.", "The answer is 3."))
    said = replace(row, student_response="The answer is 12.", student_logprobs=None)
    score = [
        policy.score(observations([replace(said, student_samples=each)], Step.DEFER, 0.2)[0]).score
        for each in (agree, differ)
    ]
    assert score[0] < score[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples", "2"], "the rows hold none (column student_samples); tw collect --samples 2 asks"),
        (["--samples", "2", "--signals", "prompt"], "--samples are compared with the draft"),
    ],
)
def test_samples_that_cannot_be_had_are_refused(tmp_path: Path, options: list[str], says: str) -> None:
    table = write(tmp_path / "sums.jsonl", sums(180))
    done = CliRunner().invoke(train, ["policy", "--outcomes", str(table), "--out", str(tmp_path / "policy"), *options])
    assert done.exit_code == 2
    assert says in done.output


def test_a_column_of_samples_that_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(as_dict(sums(1)[0]) | {"student_samples": [1]}) + "\n")
    with pytest.raises(OutcomeTableError, match=r"column 'student_samples', row 1: expected a list of texts"):
        read_outcomes(path)
