import json
import math
from pathlib import Path

import pytest

from policies.outcomes import Outcome, OutcomeTableError, iter_outcomes, read_outcomes, sample_outcomes, split_of

ROW = {"id": "a", "prompt": "2+2?", "student_quality": 0.0, "teacher_quality": 1.0, "split": "train"}


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, *rows: dict[str, object]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


FULL = {
    **ROW,
    "group": "sums",
    "student_response": "5",
    "teacher_response": "4",
    "student_logprobs": [-0.5, -0.1],
    "student_cost": 0.0,
    "teacher_cost": 0.01,
    "student_model": "small",
    "teacher_model": "big",
    "more": "ignored",
}


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_full_row_reads_the_same_from_both_formats(tmp_path: Path, write) -> None:
    path = write(tmp_path / ("t.parquet" if write is write_parquet else "t.jsonl"), FULL)
    assert read_outcomes(path) == [
        Outcome(
            id="a",
            prompt="2+2?",
            student_quality=0.0,
            teacher_quality=1.0,
            split="train",
            student_response="5",
            teacher_response="4",
            student_logprobs=(-0.5, -0.1),
            student_cost=0.0,
            teacher_cost=0.01,
            group="sums",
            student_model="small",
            teacher_model="big",
        )
    ]


@pytest.mark.parametrize("as_text", [False, True])
def test_messages_stand_for_the_prompt(tmp_path: Path, as_text: bool) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}, {"type": "image_url", "image_url": {}}]},
    ]
    row = {name: value for name, value in ROW.items() if name != "prompt"}
    row["messages"] = json.dumps(messages) if as_text else messages
    (outcome,) = read_outcomes(write_jsonl(tmp_path / "t.jsonl", row))
    assert (outcome.prompt, outcome.last_user, outcome.turn) == ("Be brief.\nHello\nHi\n2+2?", "2+2?", 2)


def test_messages_as_parquet_lists_of_structs(tmp_path: Path) -> None:
    row = {**ROW, "messages": [{"role": "user", "content": "hello"}]}
    (outcome,) = read_outcomes(write_parquet(tmp_path / "t.parquet", row))
    assert outcome.prompt == "hello"


def test_qualities_may_be_unknown(tmp_path: Path) -> None:
    (outcome,) = read_outcomes(write_jsonl(tmp_path / "t.jsonl", {**ROW, "student_quality": None}))
    assert outcome.student_quality is None
    assert outcome.teacher_quality == 1.0


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_cached_tokens_are_counts_or_unknown(tmp_path: Path, write) -> None:
    """12.0 is how a column of counts with nulls comes out of many a program."""
    rows = [{**ROW, "student_cached_tokens": 12.0}, {**ROW, "id": "b", "student_cached_tokens": None}]
    found = read_outcomes(write(tmp_path / "table.parquet" if write is write_parquet else tmp_path / "t.jsonl", *rows))
    assert [(row.student_cached_tokens, row.teacher_cached_tokens) for row in found] == [(12, None), (None, None)]
    assert isinstance(found[0].student_cached_tokens, int)


def test_the_split_is_made_by_hashing_the_prompt(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(i), "prompt": f"question {i}", "split": None} for i in range(2000)]
    outcomes = read_outcomes(write_jsonl(tmp_path / "t.jsonl", *rows))
    assert [row.split for row in outcomes] == [split_of(row.prompt) for row in outcomes]
    parts = {name: sum(row.split == name for row in outcomes) / 2000 for name in ("train", "val", "test")}
    assert parts == pytest.approx({"train": 0.6, "val": 0.1, "test": 0.3}, abs=0.03)


def test_rows_stream_before_a_later_fault(tmp_path: Path) -> None:
    rows = iter_outcomes(write_jsonl(tmp_path / "t.jsonl", ROW, {**ROW, "id": "b", "student_quality": 2}))
    assert next(rows).id == "a"
    with pytest.raises(OutcomeTableError):
        next(rows)


@pytest.mark.parametrize(
    ("change", "column", "said"),
    [
        ({"student_quality": 1.5}, "student_quality", "1.5 is out of range, expected between 0 and 1"),
        ({"teacher_quality": -0.1}, "teacher_quality", "-0.1 is out of range, expected between 0 and 1"),
        ({"student_quality": math.nan}, "student_quality", "not a number (NaN); leave unknown values null"),
        ({"student_quality": "good"}, "student_quality", "expected a number, got str 'good'"),
        ({"student_quality": True}, "student_quality", "expected a number, got bool True"),
        ({"teacher_cost": -1}, "teacher_cost", "-1 is out of range, expected at least 0 and finite"),
        ({"teacher_cost": math.inf}, "teacher_cost", "inf is out of range, expected at least 0 and finite"),
        ({"id": ""}, "id", "expected text, got str ''"),
        ({"prompt": None}, "prompt", "neither prompt nor messages"),
        ({"prompt": 3}, "prompt", "expected text, got int 3"),
        ({"messages": []}, "messages", "expected a list of messages, got list []"),
        ({"messages": "[oops"}, "messages", "not JSON"),
        ({"split": "dev"}, "split", "expected train, val or test, got 'dev'"),
        ({"student_logprobs": "x"}, "student_logprobs", "expected a list of numbers, got str 'x'"),
        ({"student_logprobs": [None]}, "student_logprobs", "expected a list of numbers without nulls or NaN"),
        ({"student_response": 5}, "student_response", "expected text, got int 5"),
        ({"student_cached_tokens": "many"}, "student_cached_tokens", "expected a number, got str 'many'"),
        ({"student_cached_tokens": True}, "student_cached_tokens", "expected a number, got bool True"),
        ({"student_cached_tokens": 1.5}, "student_cached_tokens", "expected a whole number, got float 1.5"),
        ({"teacher_cached_tokens": -1}, "teacher_cached_tokens", "-1 is out of range, expected at least 0 and finite"),
        ({"teacher_cached_tokens": math.nan}, "teacher_cached_tokens", "not a number (NaN); leave unknown values null"),
        ({"teacher_cached_tokens": [3]}, "teacher_cached_tokens", "expected a number, got list [3]"),
        ({"id": "first"}, "id", "id 'first' occurs twice"),
    ],
)
def test_a_fault_names_file_column_and_row(tmp_path: Path, change: dict[str, object], column: str, said: str) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", {**ROW, "id": "first"}, {**ROW, **change})
    with pytest.raises(OutcomeTableError) as caught:
        read_outcomes(path)
    assert str(caught.value).startswith(f"{path}, column {column!r}, row 2: {said}")
    assert (caught.value.path, caught.value.column, caught.value.row) == (path, column, 2)


@pytest.mark.parametrize("column", ["id", "student_quality", "teacher_quality", "prompt"])
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_missing_column_is_named(tmp_path: Path, write, column: str) -> None:
    path = tmp_path / ("t.parquet" if write is write_parquet else "t.jsonl")
    write(path, {name: value for name, value in ROW.items() if name != column})
    with pytest.raises(OutcomeTableError, match=f"column '{column}'.*missing"):
        read_outcomes(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b"", "the table has no rows"),
        ("t.jsonl", b"\n\n", "the table has no rows"),
        ("t.jsonl", b"{]\n", "row 1: not JSON"),
        ("t.jsonl", b"[1]\n", "row 1: expected a JSON object, got list"),
        ("t.parquet", b"PAR1 and then nothing", "broken Parquet"),
        ("t.parquet", b"", "broken Parquet"),
        ("t.parquet", b"not parquet at all", "broken Parquet"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OutcomeTableError, match=said) as caught:
        read_outcomes(path)
    assert str(path) in str(caught.value)


def test_an_empty_parquet_table_has_no_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([FULL]).slice(0, 0), path)
    with pytest.raises(OutcomeTableError, match="the table has no rows"):
        read_outcomes(path)


def test_a_parquet_file_cut_short_is_broken(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", FULL)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(OutcomeTableError, match="broken Parquet"):
        read_outcomes(path)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutcomeTableError, match="not a file"):
        read_outcomes(tmp_path)
    with pytest.raises(OutcomeTableError, match="no such file"):
        read_outcomes(tmp_path / "none.parquet")


def test_a_sample_of_a_table_that_fits_is_the_table(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", *({**ROW, "id": f"r{i}"} for i in range(7)))
    sample = sample_outcomes(path, most=7)
    assert (sample.rows, sample.seen) == (read_outcomes(path), 7)


def test_a_sample_is_the_same_every_time_and_fair_to_groups(tmp_path: Path) -> None:
    rows = [{**ROW, "id": f"r{i}", "prompt": f"question {i}", "group": "ab"[i % 4 == 0]} for i in range(2000)]
    path = write_jsonl(tmp_path / "t.jsonl", *rows)
    sample = sample_outcomes(path, most=400)
    assert sample == sample_outcomes(path, most=400)
    assert (len(sample.rows), sample.seen) == (400, 2000)
    places = [int(row.id[1:]) for row in sample.rows]
    assert places == sorted(places)
    assert abs(sum(row.group == "b" for row in sample.rows) / 400 - 0.25) < 0.08
    assert abs(sum(places) / 400 - 1000) < 100


def test_rows_that_are_added_leave_most_of_a_sample_as_it_was(tmp_path: Path) -> None:
    rows = [{**ROW, "id": f"r{i}", "prompt": f"question {i}"} for i in range(1100)]
    before = sample_outcomes(write_jsonl(tmp_path / "a.jsonl", *rows[:1000]), most=300)
    after = sample_outcomes(write_jsonl(tmp_path / "b.jsonl", *rows), most=300)
    kept = {row.id for row in before.rows} & {row.id for row in after.rows}
    assert len(kept) > 250


def test_two_tables_are_sampled_as_one(tmp_path: Path) -> None:
    paths = [
        write_jsonl(tmp_path / f"{name}.jsonl", *({**ROW, "id": f"{name}{i}"} for i in range(50))) for name in "ab"
    ]
    sample = sample_outcomes(*paths, most=20)
    assert (len(sample.rows), sample.seen, {row.id[0] for row in sample.rows}) == (20, 100, {"a", "b"})
    with pytest.raises(ValueError, match="at least 1"):
        sample_outcomes(*paths, most=0)
