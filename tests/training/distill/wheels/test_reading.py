"""What a sentence allows, read off the states."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.training.distill.wheels.small import SMALL, Write, batch_of, run, sections, wheels
from training.distill.cli import distill
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.reading import begin_reading, sentences_read
from training.distill.wheels.run import load


def test_the_sentence_is_read_as_its_share_and_the_logarithm_of_it(folder: Path) -> None:
    lesson, source = batch_of(folder)
    batch = source.batch(0, 0, 0, 1)
    assert lesson.allowed is not None
    last = torch.randn(*batch.states.shape, lesson.allowed.in_features)
    batch = replace(batch, share=torch.full_like(batch.share, 0.3), asks=torch.ones_like(batch.asks))
    with torch.no_grad():
        lesson.allowed.weight.zero_()
        lesson.allowed.bias.copy_(torch.tensor([math.log(0.3), 1.2]))
        assert float(lesson._reading(last, batch)) == pytest.approx(0.0, abs=1e-8)
        # Either of the two alone is not enough, and each state counts once.
        for wrong in ((0.5, 0.0), (0.0, 0.5)):
            lesson.allowed.bias.copy_(torch.tensor([math.log(0.3), 1.2]) + torch.tensor(wrong))
            assert float(lesson._reading(last, batch)) == pytest.approx(0.25 * float(batch.alive.sum()), rel=1e-5)


class Says(torch.nn.Module):
    """Reads one pair of numbers off the states of each level, which come level by level."""

    def __init__(self, *numbers: torch.Tensor) -> None:
        super().__init__()
        self.numbers = iter(numbers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return next(self.numbers).expand(len(states), 2)


def test_what_is_read_of_the_sentences_is_the_part_of_their_variance_that_the_states_tell(folder: Path) -> None:
    lesson, _ = batch_of(folder)
    config = wheels(folder)
    loaded = load(config, torch.device("cpu"))
    strict, loose = (torch.tensor([math.log(share), 4 * share]) for share in (0.1, 0.3))
    mean = (strict + loose) / 2
    for says, part in (((strict, loose), 1.0), ((mean, mean), 0.0), ((strict, strict), -1.0)):
        lesson.allowed = Says(*says)  # type: ignore[assignment]
        assert sentences_read(loaded.models, config, lesson, loaded.held) == pytest.approx(part, abs=1e-5)
    assert sentences_read(loaded.models, wheels(folder, levels=[0.1]), lesson, loaded.held) is None
    lesson.allowed = None
    assert sentences_read(loaded.models, config, lesson, loaded.held) is None


def test_reading_begins_at_what_the_states_tell_already(folder: Path) -> None:
    lesson, _ = batch_of(folder)
    config = wheels(folder)
    loaded = load(config, torch.device("cpu"))

    def read() -> float:
        found = sentences_read(loaded.models, config, lesson, loaded.train)
        assert found is not None
        return found

    assert lesson.allowed is not None
    torch.nn.init.normal_(lesson.allowed.weight)
    assert read() < 0
    begin_reading(loaded.models, config, lesson, loaded.train)
    # On what it was fitted to, nothing linear reads more; and not less than nothing.
    assert 0 < read() <= 1
    lesson.allowed = None
    begin_reading(loaded.models, config, lesson, loaded.train)


def test_both_stages_begin_so_and_go_on_where_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[WheelsLesson] = []

    def begin(models: Any, config: Any, lesson: WheelsLesson, examples: Any) -> None:
        begun.append(lesson)
        begin_reading(models, config, lesson, examples)

    monkeypatch.setattr("training.distill.wheels.run.begin_reading", begin)
    config = wheels(folder, sentence_steps=2)
    run(config)
    assert len(begun) == 2
    # What was learned since must not be thrown away, nor looked for again.
    run(config)
    assert len(begun) == 2


def test_the_command_says_what_was_asked_for_and_got_and_whether_sentences_are_read(
    folder: Path, written_config: Write
) -> None:
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(sections(folder, wheels=SMALL)))])
    assert done.exit_code == 0, done.output
    assert "tokens of the teacher, asked for and got: 10%: " in done.stdout
    report = json.loads((folder / "out/report.json").read_text())
    assert report["sentences_read"] < 0.8
    assert "asks alike under all of them. More wheels.sentence_steps" in done.stdout
