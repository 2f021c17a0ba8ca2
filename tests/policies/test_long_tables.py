"""Tables with one row per request and model."""

from pathlib import Path
from typing import Any

import pytest

from policies.outcomes import Answered, Outcome, OutcomeTableError, TeachersDiffer, read_outcomes, teachers_of
from tests.policies.test_outcomes import write_jsonl, write_parquet


def row(id: str, model: str, quality: float | None, **more: Any) -> dict[str, Any]:
    role = "student" if model == "small" else "teacher"
    return {"id": id, "model": model, "role": role, "quality": quality, "prompt": f"question {id}", **more}


THREE = [
    row("a", "small", 0.0, response="5", logprobs=[-0.5], cost=0.001, split="train", group="sums"),
    row("a", "medium", 0.5, response="four", cost=0.002),
    row("a", "large", 1.0, response="4", cost=0.03),
    row("b", "small", 1.0, response="yes", logprobs=[-0.1], split="test"),
    row("b", "medium", 1.0, response="yes"),
    row("b", "large", None),
]
READ = [
    Outcome(
        id="a",
        prompt="question a",
        student_quality=0.0,
        teacher_quality=0.5,
        split="train",
        student_response="5",
        teacher_response="four",
        student_logprobs=(-0.5,),
        student_cost=0.001,
        teacher_cost=0.002,
        group="sums",
        student_model="small",
        teacher_model="medium",
        teachers=(Answered("medium", 0.5, "four", 0.002), Answered("large", 1.0, "4", 0.03)),
    ),
    Outcome(
        id="b",
        prompt="question b",
        student_quality=1.0,
        teacher_quality=1.0,
        split="test",
        student_response="yes",
        teacher_response="yes",
        student_logprobs=(-0.1,),
        student_model="small",
        teacher_model="medium",
        teachers=(Answered("medium", 1.0, "yes"), Answered("large")),
    ),
]


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_rows_of_a_request_become_one_outcome(tmp_path: Path, write) -> None:
    assert read_outcomes(write(tmp_path / ("t.parquet" if write is write_parquet else "t.jsonl"), *THREE)) == READ


def test_rows_may_stand_in_any_order(tmp_path: Path) -> None:
    by_model = [each for model in ("small", "medium", "large") for each in THREE if each["model"] == model]
    assert read_outcomes(write_jsonl(tmp_path / "t.jsonl", *by_model)) == READ


def test_with_one_teacher_a_long_table_is_the_wide_one(tmp_path: Path) -> None:
    long = write_jsonl(tmp_path / "long.jsonl", *[each for each in THREE if each["model"] != "large"])
    wide = write_jsonl(
        tmp_path / "wide.jsonl",
        {
            "id": "a", "prompt": "question a", "student_model": "small", "teacher_model": "medium", "split": "train",
            "student_quality": 0.0, "teacher_quality": 0.5, "student_response": "5", "teacher_response": "four",
            "student_logprobs": [-0.5], "student_cost": 0.001, "teacher_cost": 0.002, "group": "sums",
        },
        {
            "id": "b", "prompt": "question b", "student_model": "small", "teacher_model": "medium", "split": "test",
            "student_quality": 1.0, "teacher_quality": 1.0, "student_response": "yes", "teacher_response": "yes",
            "student_logprobs": [-0.1],
        },
    )  # fmt: skip
    assert read_outcomes(long) == read_outcomes(wide)


def test_a_model_called_student_needs_no_role(tmp_path: Path) -> None:
    rows = [{"id": "a", "model": name, "quality": 1.0, "prompt": "?"} for name in ("student", "medium", "large")]
    (outcome,) = read_outcomes(write_jsonl(tmp_path / "t.jsonl", *rows))
    assert (outcome.student_model, teachers_of([outcome])) == ("student", ("medium", "large"))


def test_a_request_may_lack_a_teacher_whose_answer_is_then_unknown(tmp_path: Path) -> None:
    (_, second) = read_outcomes(write_jsonl(tmp_path / "t.jsonl", *THREE[:5]))
    assert second.teachers == (Answered("medium", 1.0, "yes"), Answered("large"))


def test_the_prompt_may_stand_in_one_row_of_a_request(tmp_path: Path) -> None:
    rows = [THREE[0], *({**each, "prompt": None} for each in THREE[1:3])]
    assert read_outcomes(write_jsonl(tmp_path / "t.jsonl", *rows)) == READ[:1]


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        ({"model": None}, "column 'model', row 2", "expected a model's name, got NoneType None"),
        ({"quality": 2}, "column 'quality', row 2", "2 is out of range, expected between 0 and 1"),
        ({"cost": -1}, "column 'cost', row 2", "-1 is out of range"),
        ({"role": "oracle"}, "column 'role', row 2", "expected student or teacher, got 'oracle'"),
        ({"role": "student"}, "column 'role', row 2", "two students, 'small' and 'medium'; a table has one"),
        ({"model": "small"}, "column 'role', row 2", "model 'small' is a teacher here and a student before"),
        ({"model": "small", "role": "student"}, "column 'model', row 2", "id 'a' and model 'small' occur twice"),
        ({"model": "large"}, "column 'model', row 3", "id 'a' and model 'large' occur twice"),
        ({"prompt": "another"}, "column 'prompt', row 2", "another prompt than in the other rows of this request"),
        ({"split": "test"}, "column 'split', row 2", "'test', and 'train' in another row of this request"),
        ({"id": "c"}, "column 'id', row 2", "the request that begins here has no row of the student, 'small'"),
    ],
)
def test_a_fault_names_file_column_and_row(tmp_path: Path, change: dict[str, Any], at: str, said: str) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", THREE[0], {**THREE[1], **change}, THREE[2])
    with pytest.raises(OutcomeTableError) as caught:
        read_outcomes(path)
    assert str(caught.value).startswith(f"{path}, {at}: {said}")


@pytest.mark.parametrize("column", ["id", "model", "quality", "prompt"])
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_missing_column_is_named(tmp_path: Path, write, column: str) -> None:
    path = tmp_path / ("t.parquet" if write is write_parquet else "t.jsonl")
    write(path, *({name: value for name, value in each.items() if name != column} for each in THREE))
    with pytest.raises(OutcomeTableError, match=rf"column '{column}'.*(missing|neither)"):
        read_outcomes(path)


def test_tables_without_a_student_or_with_one_model_are_refused(tmp_path: Path) -> None:
    teachers = write_jsonl(tmp_path / "teachers.jsonl", *THREE[1:3])
    with pytest.raises(OutcomeTableError, match="no row is the student's; say so in the column `role`"):
        read_outcomes(teachers)
    alone = write_jsonl(tmp_path / "alone.jsonl", THREE[0], THREE[3])
    with pytest.raises(OutcomeTableError, match=r"'small' is the only model; .* ask both"):
        read_outcomes(alone)


def test_more_names_than_there_can_be_teachers_are_a_mistake(tmp_path: Path) -> None:
    rows = [row("a", "small", 1.0), *(row("a", f"run-{i}", 1.0) for i in range(20))]
    with pytest.raises(OutcomeTableError, match="row 18: 'run-16' is the 18th model; at most 16 teachers are known"):
        read_outcomes(write_jsonl(tmp_path / "t.jsonl", *rows))


def test_a_second_teacher_in_a_wide_table_is_told_where_to_go(tmp_path: Path) -> None:
    wide = {"id": "a", "prompt": "?", "student_quality": 0, "teacher_quality": 1, "teacher2_quality": 1}
    with pytest.raises(OutcomeTableError, match=r"column 'teacher2_quality': .*write one row per request and model"):
        read_outcomes(write_jsonl(tmp_path / "t.jsonl", wide))


def test_tables_with_other_teachers_do_not_go_together(tmp_path: Path) -> None:
    both = write_jsonl(tmp_path / "both.jsonl", *THREE)
    one = write_jsonl(tmp_path / "one.jsonl", *({**each, "id": each["id"] * 2} for each in THREE[:2]))
    with pytest.raises(TeachersDiffer, match="medium, large in one, one teacher in another"):
        teachers_of(read_outcomes(both, one))


def test_what_prefix_caches_hold_stands_in_the_students_row(tmp_path: Path) -> None:
    """Of several teachers it is not known who will be asked, so only the student's is read."""
    held = {"student_cached_tokens": 12, "teacher_cached_tokens": 30}
    rows = [row("a", "small", 0.0, **held), row("a", "medium", 0.5), row("a", "large", 1.0)]
    (two,) = read_outcomes(write_jsonl(tmp_path / "two.jsonl", *rows))
    (one,) = read_outcomes(write_jsonl(tmp_path / "one.jsonl", *rows[:2]))
    assert (two.student_cached_tokens, two.teacher_cached_tokens) == (12, None)
    assert (one.student_cached_tokens, one.teacher_cached_tokens) == (12, 30)
    rows[0]["student_cached_tokens"] = "many"
    with pytest.raises(OutcomeTableError, match="column 'student_cached_tokens', row 1: expected a number, got str"):
        read_outcomes(write_jsonl(tmp_path / "wrong.jsonl", *rows))
