"""`tw distill ...` as people type it: exit codes, messages, what is printed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.training.distill.pairs import settings
from training.distill import frame, processor
from training.distill.cli import distill

Write = Callable[[dict[str, Any]], Path]


def call(*words: str) -> Result:
    return CliRunner().invoke(distill, list(words))


@pytest.mark.parametrize("verb", ["kd", "ranking", "features", "warmup"])
def test_each_verb_runs_to_a_student_and_a_report(folder: Path, written_config: Write, verb: str) -> None:
    sections = {"warmup": {"max_new_tokens": 4, "prompts": 8}} if verb == "warmup" else {}
    done = call(verb, "--config", str(written_config(settings(folder, **sections))), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["method"] == verb
    assert list(report["stages"]) == (["warm-up", "kd"] if verb == "warmup" else ["kd"])
    assert (folder / "out/student/model.safetensors").exists()
    again = call(verb, "--config", str(written_config(settings(folder, **sections))))
    assert again.exit_code == 0
    assert "kd: 4 steps" in again.stdout


@pytest.mark.parametrize(("slower", "asked", "said"), [(6.9, True, True), (0.6, True, False), (6.9, False, False)])
def test_an_emulated_bfloat16_is_told(
    folder: Path,
    written_config: Write,
    monkeypatch: pytest.MonkeyPatch,
    slower: float,
    asked: bool,
    said: bool,
) -> None:
    monkeypatch.setattr(processor, "bfloat16_slowdown", lambda: slower)
    value = settings(folder)
    value["training"] |= {"steps": 1, "bf16": asked}
    done = call("kd", "--config", str(written_config(value)), "--json")
    assert done.exit_code == 0, done.output
    assert ("a product takes 7 times as long as in float32" in done.stderr) == said
    assert json.loads(done.stdout)


def test_the_slowdown_is_measured_as_a_ratio() -> None:
    assert 0.01 < processor.bfloat16_slowdown() < 1000


def test_advice_is_measured_and_priced(folder: Path, written_config: Write) -> None:
    config = written_config(settings(folder, warmup={"max_new_tokens": 4}))
    done = call("advise", "--config", str(config), "--usd-per-hour", "2", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {one["method"] for one in report["advice"]} == {"kd", "ranking", "features", "warmup"}
    measured = report["measured"]
    assert 0 <= measured["own_text"]["refused_share"] <= 1
    refused = list(measured["own_text"]["refused_by_top_k"].values())
    assert refused == sorted(refused, reverse=True)
    assert 0 <= measured["hidden"]["cka_last"] <= 1
    serving = measured["serving"]["student"]
    assert serving["usd_per_million_tokens"] == pytest.approx(serving["seconds_per_million_tokens"] / 1800)
    words = call("advise", "--config", str(config))
    assert "kd, about" in words.stdout
    assert not (folder / "out").exists()


def test_a_teacher_equal_to_the_student_needs_no_distillation(folder: Path, written_config: Write) -> None:
    value = settings(folder, teacher={"path": str(folder / "student")}, warmup={"max_new_tokens": 4, "top_k": 250})
    report = json.loads(call("advise", "--config", str(written_config(value)), "--json").stdout)
    assert report["measured"]["distance"]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert {one["method"]: one["speaks_for_it"] for one in report["advice"]} == dict.fromkeys(
        ("kd", "ranking", "features", "warmup"), False
    )


def test_ctrl_c_stops_with_a_checkpoint_and_the_same_command_goes_on(
    folder: Path, written_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = frame.learning_rate

    def interrupted(config: Any, step: int, steps: int) -> float:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return rate(config, step, steps)

    config = written_config(settings(folder))
    with monkeypatch.context() as patched:
        patched.setattr(frame, "learning_rate", interrupted)
        done = call("kd", "--config", str(config))
    assert (done.exit_code, "stopped after 3 of 4 steps" in done.stderr) == (1, True)
    assert not (folder / "out/student").exists()
    assert call("kd", "--config", str(config)).exit_code == 0
    assert (folder / "out/student").exists()


def test_a_dry_run_says_what_would_be_done(folder: Path, written_config: Write) -> None:
    done = call("kd", "--config", str(written_config(settings(folder))), "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == 4
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("sections", "about"),
    [
        ({"training": {"lerning_rate": 1}}, "did you mean learning_rate?"),
        ({"data": {"train": ["nowhere.jsonl"]}}, "nowhere.jsonl: cannot be read"),
        ({"student": {"path": "/no/where"}}, "student.path: /no/where is no directory with a config.json"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_2(
    folder: Path, written_config: Write, sections: dict[str, Any], about: str
) -> None:
    done = call("kd", "--config", str(written_config(settings(folder, **sections))))
    assert done.exit_code == 2
    assert about in done.stderr
    assert "Traceback" not in done.output


def test_through_time_runs_and_refuses_pairs(folder: Path, written_config: Write) -> None:
    value = settings(folder, diffusion={"length": 12, "base_steps": 2})
    done = call("through-time", "--config", str(written_config(value)))
    assert (done.exit_code, "remove it" in done.stderr) == (2, True)
    value.pop("teacher")
    done = call("through-time", "--config", str(written_config(value)))
    assert (done.exit_code, "learns from text" in done.stderr) == (2, True)
