"""`tw distill fresh`: a student to begin with, and the example that begins with one."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.distill.cli import distill
from training.distill.config import read_config

EXAMPLE = Path(__file__).parents[3] / "examples" / "asking"


def fresh(folder: Path, *more: str) -> Any:
    return CliRunner().invoke(
        distill, ["fresh", "--like", str(folder / "teacher"), "--out", str(folder / "fresh"), *more]
    )


def test_a_fresh_student_has_the_words_of_another_and_weights_of_its_own(folder: Path) -> None:
    result = fresh(folder, "--hidden", "24", "--layers", "3", "--heads", "2", "--context", "96")
    assert result.exit_code == 0, result.output
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "fresh")
    ours, theirs = (AutoTokenizer.from_pretrained(folder / name) for name in ("fresh", "teacher"))
    assert ours.get_vocab() == theirs.get_vocab()
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (24, 3, 96)
    assert config.eos_token_id == theirs.eos_token_id
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in result.output


def test_the_seed_gives_the_weights(folder: Path) -> None:
    found = []
    for number, seed in enumerate(("1", "1", "2")):
        out = folder / str(number)
        out.mkdir()
        (out / "teacher").symlink_to(folder / "teacher")
        assert fresh(out, "--seed", seed).exit_code == 0
        found.append((out / "fresh/model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("more", "about"),
    [(("--hidden", "64", "--heads", "3"), "each head needs"), (("--hidden", "6", "--heads", "2"), "each head needs")],
)
def test_heads_that_do_not_fit_are_refused(folder: Path, more: tuple[str, ...], about: str) -> None:
    result = fresh(folder, *more)
    assert result.exit_code == 2
    assert about in result.output
    assert not (folder / "fresh").exists()


def test_nothing_is_written_over(folder: Path) -> None:
    (folder / "fresh").mkdir()
    result = fresh(folder)
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert list((folder / "fresh").iterdir()) == []


def test_a_tokenizer_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(distill, ["fresh", "--like", str(tmp_path / "nobody"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


def test_the_example_s_files_fit_each_other() -> None:
    kd, wheels = (read_config(EXAMPLE / f"{name}.toml", name) for name in ("kd", "wheels"))
    assert wheels.wheels is not None
    assert str(kd.out / "student") == wheels.student.path
    assert kd.teacher == wheels.teacher
    assert kd.data.train == wheels.data.train


def test_what_the_page_says_to_type_works(tmp_path: Path) -> None:
    """All of docs/distill/first-wheels.md on few questions; training itself is described and not done."""
    root = EXAMPLE.parents[1]
    for name in ("examples", "server"):
        (tmp_path / name).symlink_to(root / name)
    page = (root / "docs/distill/first-wheels.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith(("python -m training.pair", "tw "))]
    assert [shlex.split(line)[1:3] for line in lines][-4:] == [
        ["distill", "fresh"], ["distill", "kd"], ["distill", "wheels"], ["serve", "--student"],
    ]  # fmt: skip
    for line in lines:
        command = shlex.split(line)
        if command[0] == "tw":
            command[0] = str(Path(sys.executable).with_name("tw"))
            command += [] if "fresh" in command else ["--dry-run"]
        else:
            command[0] = sys.executable
            command[command.index("--n") + 1] = "12"
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Writing model shards" not in done.stderr, "a bar of transformers' own, in a log file"
        if "kd" in command:
            # What the run would have made.
            (tmp_path / "runs/asking/kd").mkdir()
            (tmp_path / "runs/asking/kd/student").symlink_to(tmp_path / "runs/asking/fresh")
