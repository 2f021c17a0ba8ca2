"""The command: a whole tiny pair, questions for collecting, and what it says when it cannot go on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, LlamaForCausalLM

from training.grading import numeric
from training.pair.__main__ import main
from training.pair.questions import distinct


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_quick_makes_a_whole_pair_and_a_second_run_finds_it_done(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    command = ["--quick", "--threads", "1", "--out", str(out), "--work", str(work), "--json"]
    first = CliRunner().invoke(main, command, catch_exceptions=False)
    assert first.exit_code == 0
    report = json.loads(first.stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert report["questions"] == report["recipe"]["graded"] == 40
    assert report["teacher"]["steps"] == 40
    for role in ("student", "teacher"):
        model = LlamaForCausalLM.from_pretrained(out / role)
        tokenizer = AutoTokenizer.from_pretrained(out / role)
        assert model.config.vocab_size == len(tokenizer)
        assert sum(p.numel() for p in model.parameters()) == report[role]["parameters"]
    again = CliRunner().invoke(main, command, catch_exceptions=False)
    assert json.loads(again.stdout)["teacher"]["weights_sha256"] == report["teacher"]["weights_sha256"]
    assert json.loads(again.stdout)["student"]["quality"] == report["student"]["quality"]


def test_a_checkpoint_of_another_recipe_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "work" / "student").mkdir(parents=True)
    (tmp_path / "work" / "student" / "course.json").write_text('{"rows": 1}')
    command = ["--quick", "--threads", "1", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 2
    assert "holds a checkpoint of another course" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_questions_are_written_as_lines_that_collecting_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "questions.jsonl"
    result = CliRunner().invoke(main, ["questions", "--n", "30", "--split", "val", "--seed", "4", "--out", str(path)])
    assert result.exit_code == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [question.row() for question in distinct(4, 30, "val")]
    assert {row["split"] for row in rows} == {"val"}
    assert all(numeric(row["reference"], row["reference"]) for row in rows)


def test_lessons_are_messages_that_distilling_reads(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    result = CliRunner().invoke(main, ["questions", "--lessons", "--n", "12", "--split", "train", "--out", str(path)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, question in zip(rows, distinct(0, 12, "train"), strict=True):
        asked, told = row["messages"]
        assert (asked["role"], told["role"]) == ("user", "assistant")
        assert asked["content"] == question.prompt
        # The worked answer ends in the reference.
        assert numeric(told["content"], row["reference"]) == 1.0
        assert len(told["content"]) > len(row["reference"])


def test_questions_of_all_splits_go_to_standard_output() -> None:
    result = CliRunner().invoke(main, ["questions", "--n", "50", "--split", "all"])
    assert len({json.loads(line)["split"] for line in result.stdout.splitlines()}) == 3


@pytest.mark.parametrize("wrong", [["questions", "--n", "0"], ["questions", "--split", "dev"], ["--threads", "0"]])
def test_wrong_use_ends_with_two(wrong: list[str]) -> None:
    assert CliRunner().invoke(main, wrong).exit_code == 2


def test_help_and_questions_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from training.pair.__main__ import main\n"
        "main(['questions', '--n', '1'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["split"] == "test"
