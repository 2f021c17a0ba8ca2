"""The row of `<help>`."""

from pathlib import Path

import pytest
import torch

from tests.training.distill.wheels.small import wheels
from training.distill.wheels.collecting import Rounds
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.mixing import Mixed
from training.distill.wheels.restrictions import TRAINED, Restriction
from training.distill.wheels.row import as_served, begin_row, decide_row, decided, offset_of, read_states, settle_row
from training.distill.wheels.run import load
from training.distill.wheels.trajectories import ASK, GO, INSIDE


def test_at_the_beginning_help_is_asked_for_about_as_often_as_said(folder: Path) -> None:
    config = wheels(folder, levels=[0.3], phrasings=[TRAINED[0]])
    loaded = load(config, torch.device("cpu"))
    begin_row(loaded.models, config, loaded.train, 0.3)
    prompts, _ = as_served(loaded.models, loaded.train, config, Restriction(0.3, TRAINED[0]))
    parts = zip(*read_states(loaded.models, prompts, [one.answer for one in loaded.train]), strict=True)
    read, largest = (torch.cat(part) for part in parts)
    logit = read @ loaded.models.student.get_output_embeddings().weight[loaded.models.help_id].detach()
    assert 0.1 < float((logit > largest).float().mean()) < 0.6


def test_the_offset_looks_only_where_the_student_could_ask() -> None:
    scores = torch.tensor([0.0, 1.0, 99.0, 99.0, 2.0, 3.0])
    none = torch.zeros(6, 1)
    text = Mixed([5] * 6, [GO, ASK, INSIDE, INSIDE, GO, GO], [5] * 6, True, none[:, 0], none.long(), none, scores)
    # Half of the tokens by segments of three is one decision of four.
    assert offset_of([text], 0.5, 3) == pytest.approx(-2.25)


@pytest.mark.parametrize("segment", [1, 3])
def test_the_row_settles_where_levels_get_their_share(folder: Path, segment: int) -> None:
    config = wheels(folder, levels=[0.2, 0.5], segment=segment)
    loaded = load(config, torch.device("cpu"))

    def errors() -> list[float]:
        found = []
        for level in (0.2, 0.5):
            _, texts = as_served(loaded.models, loaded.train, config, Restriction(level, TRAINED[0]))
            asked = sum(one.teacher_tokens for one in texts) / sum(len(one.tokens) for one in texts)
            found.append(abs(asked - level))
        return found

    before = errors()
    for _ in range(3):
        settle_row(loaded.models, config, loaded.train)
    assert sum(errors()) < 0.5 * sum(before)


def test_the_row_decides_by_what_wrong_decisions_cost() -> None:
    torch.manual_seed(0)
    read = torch.cat([torch.randn(400, 3), torch.ones(400, 1)], dim=1)
    largest = -read[:, 0].exp()
    # Worth follows the second number alone; far on the one side there are many states whose exact worth says nothing.
    worth = torch.where(read[:, 1] > 0, read[:, 1], 0.01 * read[:, 1])
    price = torch.full((400,), 0.5)
    row = decided(read, largest, worth, price, torch.zeros(4))

    def lost(asks: torch.Tensor) -> float:
        return float(((worth - price).abs() * (asks != (worth > price))).sum())

    mine = lost(read @ row > largest)
    # No threshold on the largest logit, which is a row of a constant alone, decides as well.
    assert mine < min(lost(largest < level) for level in largest.tolist()) / 2


def test_the_row_is_moved_at_the_end_and_nothing_else(folder: Path) -> None:
    config = wheels(folder, reward="likeness")
    loaded = load(config, torch.device("cpu"))
    source = Rounds(config, loaded.models, loaded.train, folder / "rounds", steps=4)
    source.batch(0, 0, 0, 1)
    student = loaded.models.student
    lesson = WheelsLesson(student, config, vocabulary=loaded.models.vocabulary, help_id=loaded.models.help_id, eos=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    own = source.own()
    assert own
    decide_row(loaded.models, lesson, [source.collated(own)])
    after = student.state_dict()
    head = after["lm_head.weight"]
    changed = (head != before["lm_head.weight"]).any(-1).nonzero().flatten().tolist()
    assert changed == [loaded.models.help_id]
    assert all(torch.equal(value, before[name]) for name, value in after.items() if value.shape != head.shape)
