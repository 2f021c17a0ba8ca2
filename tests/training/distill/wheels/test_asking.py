"""Whether asking by the sentence is worth it, beside a threshold on the same student."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.training.distill.wheels.small import SMALL, Write, sections, wheels
from training.distill.cli import _worth_it, distill
from training.distill.wheels.asking import compared, share_of
from training.distill.wheels.mixing import Mixed, always, by_disagreement, by_largest_probability, never
from training.distill.wheels.row import as_served
from training.distill.wheels.run import load
from training.distill.wheels.trajectories import ASK, GO, INSIDE


def test_regret_is_of_the_student_s_own_words() -> None:
    log_p, best = torch.tensor([-3.0, -3.0, -3.0, -0.5]), torch.tensor([[-1.0], [-1.0], [-1.0], [-0.5]])
    text = Mixed([1] * 4, [GO, ASK, INSIDE, GO], [1] * 4, True, log_p, torch.zeros(4, 1), best, torch.zeros(4))
    assert text.regrets.tolist() == [2.0, 0.0]
    assert replace(text, acted=[GO] * 4).regrets.tolist() == [2.0, 2.0, 2.0, 0.0]


def test_a_threshold_leaves_what_it_leaves_and_one_who_knows_leaves_less(folder: Path) -> None:
    config = wheels(folder)
    loaded = load(config, torch.device("cpu"))
    some = loaded.train

    def texts(ask: Any) -> list[Mixed]:
        return as_served(loaded.models, some, config, None, ask)[1]

    def row(ask: Any, level: float = 0.3) -> dict[str, float]:
        found: dict[str, float] = compared(loaded.models, config, some, [(level, texts(ask))])["levels"][0]
        return found

    # No word earns less than minus a nat.
    alone = sum(min(1.0, one) for text in texts(never) for one in text.regrets.tolist()) / len(some)
    knows = row(by_disagreement(0.5))
    assert compared(loaded.models, config, some, [])["alone"] == pytest.approx(alone)
    assert knows["share"] == pytest.approx(share_of(texts(by_disagreement(0.5))))
    assert knows["left"] < knows["threshold_left"] < alone
    assert row(always) == {"requested": 0.3, "share": 1.0, "left": 0.0, "threshold_left": 0.0}
    assert row(never)["threshold_left"] == pytest.approx(alone)
    # A threshold's own texts lie on its line, where it was measured itself.
    mine = row(by_largest_probability(0.2))
    assert mine["left"] == pytest.approx(mine["threshold_left"], rel=0.25)


@pytest.mark.parametrize(
    ("left", "rival", "said"),
    [
        (2.0, 1.0, "`tw serve` watches it; --help-by student lets it ask"),
        (1.0, 2.0, "helps it more than a threshold does: `tw serve` lets it ask"),
        (1.0, 1.02, "would help it as much; `tw serve` lets it ask"),
    ],
)
def test_the_better_way_to_ask_is_named(left: float, rival: float, said: str) -> None:
    levels = [{"requested": 0.1, "share": 0.1, "left": left, "threshold_left": rival}]
    found = _worth_it({"alone": 3.0, "levels": levels})
    assert found[0] == (
        f"regret left in a text, nats (3.00 alone): 10%: {left:.2f} by the sentence and {rival:.2f} by a threshold"
    )
    assert said in found[1]
    assert _worth_it(None) == []


def test_the_command_says_what_asking_leaves(folder: Path, written_config: Write) -> None:
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(sections(folder, wheels=SMALL)))])
    assert done.exit_code == 0, done.output
    assert "regret left in a text, nats (" in done.stdout
    assert f"Serve it: tw serve --student {folder / 'out/student'} --teacher {folder / 'teacher'} " in done.stdout
