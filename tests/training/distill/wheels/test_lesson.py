"""What is learned from a batch."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distill.wheels.small import batch_of, wheels
from training.distill.models import states
from training.distill.wheels.trajectories import GO, load_trajectories


def test_without_a_restriction_help_is_banned_and_learns_nothing(folder: Path) -> None:
    lesson, source = batch_of(folder)
    rounds = folder / "out/wheels/rounds"
    found = [one for n in (0, 1) for one in load_trajectories(rounds / f"round-{n:04d}.pt")]
    free = [one for one in found if one.level is None]
    assert free
    assert all(action in (GO, 3) for one in free if one.source == "student" for action in one.acted)
    loss: Any = lesson.loss(source.collated(free), 0)["loss"]
    loss.backward()
    weight = lesson.student.get_output_embeddings().weight
    help_row = weight.grad[source._models.help_id]
    torch.testing.assert_close(help_row, torch.zeros_like(help_row))


def test_words_are_learned_from_own_texts_only_where_that_is_wanted(folder: Path) -> None:
    # Nothing but the divergence is left of the loss.
    words = {"consistency": 0.0, "critic": 0.0, "normaliser": 0.0, "reading": 0.0, "off_policy": 0.5}
    for weight in (1.0, 0.0):
        lesson, source = batch_of(folder, **words, own_words=weight)
        found = source._round(0)
        own, others = ([one for one in found if (one.source == "student") == mine] for mine in (True, False))
        assert own
        assert others
        learned = lesson.loss(source.collated(own), 0)
        torch.testing.assert_close(learned["loss"], weight * learned["divergence"])
        learned = lesson.loss(source.collated(others), 0)
        torch.testing.assert_close(learned["loss"], learned["divergence"])
        shutil.rmtree(folder / "out")


def test_a_critic_that_is_told_what_the_teacher_says_knows_where_a_wrong_word_leads(folder: Path) -> None:
    """The same state and the same word, once right and once wrong: the student cannot know which."""
    torch.manual_seed(0)
    words, best = torch.full((1, 2), 5), torch.tensor([[-0.1, -0.1]])
    log_p, earned = torch.tensor([[-0.1, -4.0]]), torch.tensor([[0.0, -3.0]])
    for informed, apart in ((True, 3.0), (False, 0.0)):
        lesson, _ = batch_of(folder, informed=informed)
        shutil.rmtree(folder / "out")
        optimizer = torch.optim.Adam(lesson.parameters(), lr=0.02)
        width = lesson.student.config.hidden_size
        last = torch.randn(1, 1, width).expand(1, 3, width)
        for _ in range(200):
            optimizer.zero_grad()
            (lesson._after(last, words, log_p, best) - earned).square().sum().backward()
            optimizer.step()
        found = lesson._after(last, words, log_p, best).detach()
        assert float(found[0, 0] - found[0, 1]) == pytest.approx(apart, abs=0.1)


def test_both_words_are_valued_with_what_the_teacher_says_of_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson, source = batch_of(folder)
    batch, asked = source.batch(0, 0, 0, 1), []
    of, best = lesson._after, batch.top_log_p[..., 0]

    def after(last: Any, words: Any, log_p: Any, theirs: Any) -> Any:
        assert torch.equal(theirs, best)
        asked.append((words, log_p))
        return of(last, words, log_p, theirs)

    monkeypatch.setattr(lesson, "_after", after)
    lesson.loss(batch, 0)
    with torch.no_grad():
        seen = lesson._looked(lesson._along(states(lesson.student, batch).last, batch), batch)
    wanted = [(batch.words, batch.log_p), (seen["own"], seen["own_log_p"]), (batch.best, best)]
    assert not torch.equal(seen["own_log_p"], best)
    assert len(asked) == len(wanted)
    assert all(
        torch.equal(a, b) for one, other in zip(asked, wanted, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("changes", "heat"),
    [
        ({}, 0.3),
        ({"reward": "likeness"}, 1.0),
        ({"decoding": "sampling"}, 1.0),
        ({"help": False, "decoding": "sampling"}, 1.0),
        ({"temperature": 0.7}, 0.7),
    ],
)
def test_only_decisions_that_are_not_drawn_are_cold(folder: Path, changes: dict[str, Any], heat: float) -> None:
    found = wheels(folder, **changes).wheels
    assert found is not None
    assert found.heat == heat


def test_padding_and_company_do_not_change_a_text_s_loss(folder: Path) -> None:
    lesson, source = batch_of(folder)
    found = [one for one in load_trajectories(folder / "out/wheels/rounds/round-0000.pt") if one.level is not None][:4]
    together = lesson.loss(source.collated(found), 0)
    alone = [lesson.loss(source.collated([one]), 0) for one in found]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).sum(), atol=1e-4, rtol=1e-4)
