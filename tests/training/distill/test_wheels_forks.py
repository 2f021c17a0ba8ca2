"""What asking at one state is worth to the whole text."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.distill.conftest import config_of
from tests.training.distill.pairs import save_model, settings
from training.distill.config import DistillConfig
from training.distill.losses.path_consistency import ask_or_go
from training.distill.wheels.forks import Fork, chosen, likeness, worth
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.mixing import Mixed, always, mixed, never
from training.distill.wheels.run import load


def text(own: list[int], best: list[int]) -> Mixed:
    nothing = torch.zeros(len(own))
    ids = torch.tensor(best)[:, None]
    return Mixed(own, [0] * len(own), own, True, nothing, ids, nothing[:, None], nothing)


def test_a_text_is_wholly_like_itself_and_unlike_one_that_shares_no_letter() -> None:
    assert likeness("a man rides", "a  man rides") == 1.0
    assert likeness("xyz", "abc") == 0.0
    assert likeness("", "abc") == 0.0


def test_likeness_by_hand() -> None:
    # One letter of two is shared, no pair is: F of single letters 1/2, of pairs 0, and longer there are none.
    assert likeness("ab", "ac") == pytest.approx(0.25)


def test_a_wrong_long_word_costs_more_than_a_wrong_short_one() -> None:
    of = "the motorcyclist is on a road"
    assert likeness("the pedestrian is on a road", of) < likeness("the motorcyclist is on the road", of)


def test_states_that_are_chosen_stand_for_all_where_the_two_differ() -> None:
    texts = [text([1, 2, 3, 4], [1, 9, 9, 9]), text([1, 2], [1, 2])]
    found = chosen(texts, 2, random.Random(0))
    assert {(one.row, one.weight) for one in found} == {(0, 1.5)}
    assert len({one.at for one in found}) == 2
    assert {one.at for one in found} <= {1, 2, 3}


def configuration(folder: Path) -> DistillConfig:
    return config_of(settings(folder, data={"context": 120}, wheels={"levels": [0.2], "worst": 1.0, "likeness": 10.0}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("forks")
    save_model(folder / "student", seed=1, hidden=16, layers=1, context=128)
    save_model(folder / "teacher", seed=2, hidden=24, layers=2, context=128)
    (folder / "rows.jsonl").write_text('{"prompt": "3 and 4 make", "answer": " 7."}\n' * 24)
    return load(
        config_of(settings(folder, data={"context": 120}, wheels={"levels": [0.2]})), torch.device("cpu")
    ).models


def test_worth_is_the_difference_between_both_ends_written_by_the_student_alone(models: Any) -> None:
    prompt = tuple(models.tokenizer("3 and 4 make")["input_ids"])
    shared: dict[str, Any] = {
        "limits": [6], "eos": models.eos, "pad_id": models.pad_id, "vocabulary": models.vocabulary,
    }  # fmt: skip
    (own,) = mixed(models.student, models.teacher, [prompt], [prompt], never, help_id=None, top_k=2, **shared)
    (theirs,) = mixed(models.student, models.teacher, [prompt], [prompt], always, help_id=None, **shared)
    differ = [at for at, word in enumerate(own.own) if word != int(own.top_ids[at, 0])]
    at = differ[0]
    ((gain, weight),) = worth(
        [own], [prompt], [theirs.tokens], [Fork(0, at, 2.0)], models.student, models.tokenizer, **shared
    )
    forked = (*prompt, *own.tokens[:at], int(own.top_ids[at, 0]))
    left = [6 - at - 1]
    (tail,) = mixed(
        models.student, models.teacher, [forked], [forked], never, help_id=None, **{**shared, "limits": left}
    )
    said = [models.tokenizer.decode(one, skip_special_tokens=True) for one in (
        theirs.tokens, own.tokens, [*forked[len(prompt) :], *tail.tokens],
    )]  # fmt: skip
    assert float(gain[at]) == pytest.approx(likeness(said[2], said[0]) - likeness(said[1], said[0]), abs=1e-6)
    # Known at that state, for two, and where both agree; nowhere else.
    assert float(weight[at]) == 2.0
    assert all(float(weight[i]) == (0.0 if i in differ else 1.0) for i in range(len(own.tokens)) if i != at)


def test_where_both_models_agree_asking_is_worth_nothing(models: Any) -> None:
    (gain, weight), = worth(
        [text([5, 6], [5, 6])], [(7,)], [[5, 6]], [], models.student, models.tokenizer, limits=[4], eos=1, pad_id=0,
        vocabulary=models.vocabulary,
    )  # fmt: skip
    assert (gain.tolist(), weight.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_reward_that_needs_whole_texts_is_refused_where_there_are_none(tmp_path: Path) -> None:
    value = settings(tmp_path, wheels={"reward": "likeness", "segment": 2})
    with pytest.raises(ValueError, match="likeness goes with help"):
        config_of(value)


def test_the_optimal_policy_and_its_value_leave_no_error_at_a_fork(models: Any, tmp_path: Path) -> None:
    lesson = WheelsLesson(
        models.student, configuration(tmp_path), vocabulary=models.vocabulary, help_id=models.help_id, eos=models.eos
    )
    # Three states: the two agree; they differ by 2 nats, cut at 1, and 0.3 of likeness; they differ and nobody knows.
    price, worth_of = 0.7, torch.tensor([[0.0, 1.0 + 10.0 * 0.3, 99.0]])
    batch: Any = SimpleNamespace(
        alive=torch.ones(1, 3, dtype=torch.bool), on_policy=torch.tensor([True]), asks=torch.tensor([True]),
        best=torch.tensor([[4, 5, 6]]), top_log_p=torch.zeros(1, 3, 2), price=torch.tensor([price]),
        worth=torch.tensor([[0.0, 0.3, 0.0]]), weight=torch.tensor([[1.0, 2.0, 0.0]]),
    )  # fmt: skip
    seen = {"own": torch.tensor([[4, 7, 7]]), "own_log_p": torch.tensor([[0.0, -2.0, -2.0]])}
    log_ask, log_go = ask_or_go(worth_of - price, torch.zeros(1, 3))
    values = -log_go
    parts = lesson._forked(seen, batch, values, log_ask, log_go)
    torch.testing.assert_close(parts["go"], torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(parts["ask"], torch.zeros(()), atol=1e-6, rtol=0)
    # Another policy leaves some, twice as much at the state that stands for two.
    log_ask, log_go = ask_or_go(worth_of - price - 1.0, torch.zeros(1, 3))
    assert float(lesson._forked(seen, batch, values, log_ask, log_go)["go"]) == pytest.approx(
        float(0.5 * (values + log_go)[0, 0] ** 2 + (values + log_go)[0, 1] ** 2) / (1 + price), rel=1e-5
    )
