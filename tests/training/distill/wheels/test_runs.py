"""Whole runs on tiny pairs, going on, and what is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from server.settings import load_settings
from tests.training.distill.conftest import config_of
from tests.training.distill.wheels.small import SMALL, Write, run, sections, weights, wheels
from training.distill.cli import distill
from training.distill.config import read_config
from training.distill.errors import Stopped
from training.distill.wheels.restrictions import TRAINED


def test_the_student_that_is_written_loads_with_help_behind_its_words(folder: Path) -> None:
    report = run(wheels(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "out/student")
    words = AutoTokenizer.from_pretrained(folder / "out/student")
    told = json.loads((folder / "out/student/wheels.json").read_text())
    assert told["token_id"] == words.convert_tokens_to_ids("<help>") == report["vocabulary"]
    assert model.get_output_embeddings().weight.shape[0] == told["token_id"] + 1
    assert words.decode(words("5 and<help> 6")["input_ids"], skip_special_tokens=True) == "5 and 6"
    assert set(told["offsets"]) == {"0.1", "0.3"}
    # The gateway reads it as it stands.
    served = load_settings(student={"model": str(folder / "out/student")}, teacher={"model": "t"}).help
    assert (served.token_id, served.tokens, served.levels, served.by) == (told["token_id"], 1, (10, 30), told["by"])
    assert served.restriction == f"{TRAINED[0].replace('{share}', '{percent}%')}\n{{prompt}}"
    for name in ("report.json", "curves.png", "rounds.png"):
        assert (folder / "out" / name).exists()
    assert [one["round"] for one in report["rounds"]] == [0, 1]
    assert {one["held_out"] for one in report["restrictions"]} == {True, False}


@pytest.mark.parametrize(("stop_at", "before"), [(1, 0), (3, 0), (1, 2), (3, 2)])
def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, stop_at: int, before: int) -> None:
    run(wheels(folder, "whole", sentence_steps=before))
    # With two steps of sentences before the wheels: stopped in those, or after them.
    with pytest.raises(Stopped):
        run(wheels(folder, "parts", sentence_steps=before), stop_at)
    run(wheels(folder, "parts", sentence_steps=before))
    torch.testing.assert_close(weights(folder / "parts"), weights(folder / "whole"), atol=0, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"decoding": "sampling"},
        {"help": False, "decoding": "sampling"},
        {"segment": 2},
        {"value": False},
        {"informed": False},
        {"reward": "likeness"},
        {"reward": "likeness", "likeness": 0.0},
        {"reward": "likeness", "value": False},
        {"reward": "log-probability"},
        {"multipliers": "one"},
        {"off_policy": 0.0},
        {"off_policy": 1.0},
        {"consistency": 0.0},
    ],
)
def test_each_variant_runs_to_the_end(folder: Path, changes: dict[str, Any]) -> None:
    report = run(wheels(folder, **changes))
    assert report["stages"]["wheels"]["steps"] == 4
    assert (folder / "out/student/wheels.json").exists() == changes.get("help", True)


def test_words_come_first_with_sentences_before_the_prompts_where_steps_are_given(folder: Path) -> None:
    report = run(wheels(folder, sentence_steps=3))
    assert {name: one["steps"] for name, one in report["stages"].items()} == {"sentences": 3, "wheels": 4}
    # Nobody writes a text for them.
    assert not list((folder / "out/sentences").glob("round-*"))
    assert len(list((folder / "out/wheels/rounds").glob("round-*.pt"))) == 2


def test_a_student_that_is_its_teacher_has_nothing_to_learn(folder: Path) -> None:
    same = sections(folder, teacher={"path": str(folder / "student")})
    same["wheels"] = {**SMALL, "help": False, "decoding": "sampling", "top_k": 64}
    report = run(config_of(same))
    first = next(row for row in report["stages"]["wheels"]["curves"] if "loss" in row)
    assert first["loss"] == pytest.approx(0.0, abs=1e-5)


def test_the_verb_prints_what_was_done(folder: Path, written_config: Write) -> None:
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(sections(folder, wheels=SMALL)))])
    assert done.exit_code == 0, done.output
    assert "wheels: 4 steps" in done.stdout


def test_the_configuration_on_the_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs/distill/wheels.md").read_text()
    file = tmp_path / "config.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert read_config(file, "wheels").wheels is not None
