"""benchmarks.wheels.asking runs the example as it stands, and its table is of what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.wheels.asking import EXAMPLE, QUICK, SHARES, SIZE, WHEELS, configuration, questions, summary
from training.distill.config import read_config
from training.grading import numeric


def test_it_is_the_example_with_other_files(tmp_path: Path) -> None:
    files = questions(tmp_path, QUICK)
    for name in ("kd", "wheels"):
        ours = configuration(name, files, tmp_path / "student", tmp_path / "out", SIZE, 3)
        theirs = read_config(EXAMPLE / f"{name}.toml", name)
        assert (ours.seed, ours.student.path) == (3, str(tmp_path / "student"))
        assert (ours.training, ours.loss, ours.wheels) == (theirs.training, theirs.loss, theirs.wheels)
        assert ours.data.context == theirs.data.context
    assert list(SHARES) == list(theirs.wheels.levels)  # type: ignore[union-attr]


def test_no_question_is_learned_from_and_asked(tmp_path: Path) -> None:
    files = questions(tmp_path, QUICK)
    lines = {split: set(file.read_text().splitlines()) for split, file in files.items()}
    assert [len(lines[split]) for split in ("train", "val", "test")] == [QUICK.train, QUICK.held, QUICK.tested]
    assert not lines["train"] & (lines["val"] | lines["test"])


def test_the_table_is_of_what_was_measured() -> None:
    def seed(number: int) -> dict[str, Any]:
        ends = [{"share": 0.0, "right": 0.2}, {"share": 1.0, "right": 0.9}]
        points = [{"share": share, "right": 0.2 + 5 * share} for share in SHARES]
        worse = [{"share": share, "right": 0.2 + 4 * share} for share in SHARES]
        asked = [{"requested": 0.1, "realised": 0.1 + 0.01 * number, "held_out": held} for held in (False, True)]
        return {"seed": number, "ways": {WHEELS: points + ends, "entropy": worse + ends}, "asked": asked}

    text = summary([seed(number) for number in (1, 2, 3)])
    assert f"| {WHEELS} | 20.0 [20.0, 20.0] | 30.0 [30.0, 30.0] |" in text
    assert f"| {WHEELS}, above entropy, by seed | | 2.0 [2.0, 2.0] |" in text
    assert "The teacher alone: 90.0 [90.0, 90.0]% right." in text
    assert "Shares in trained phrasings miss by 2.00" in text


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_worked_answer_is_right(tmp_path: Path, split: str) -> None:
    for line in questions(tmp_path, QUICK)[split].read_text().splitlines():
        row = json.loads(line)
        assert numeric(row["messages"][-1]["content"], row["reference"]) == 1.0
