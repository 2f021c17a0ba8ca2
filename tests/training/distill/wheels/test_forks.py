"""What asking at one state is worth to the whole text."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.distill.conftest import config_of
from tests.training.distill.pairs import save_model, settings
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
    # Known at that state, which stands for two, and nowhere else.
    assert weight.tolist() == [2.0 if i == at else 0.0 for i in range(len(own.tokens))]


def test_without_forks_nothing_is_known(models: Any) -> None:
    (gain, weight), = worth(
        [text([5, 6], [5, 7])], [(7,)], [[5, 6]], [], models.student, models.tokenizer, limits=[4], eos=1, pad_id=0,
        vocabulary=models.vocabulary,
    )  # fmt: skip
    assert (gain.tolist(), weight.tolist()) == ([0.0, 0.0], [0.0, 0.0])


def test_reward_that_needs_whole_texts_is_refused_where_there_are_none(tmp_path: Path) -> None:
    value = settings(tmp_path, wheels={"reward": "likeness", "segment": 2})
    with pytest.raises(ValueError, match="likeness goes with help"):
        config_of(value)


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"likeness": -1.0}, "wheels.likeness"),
        ({"word": -1.0}, "wheels.word"),
        ({"reward": "likeness", "word": 0.0, "likeness": 0.0}, "nothing would be worth asking for: word"),
        ({"reward": "likeness", "word": 0.0, "value": False}, "nothing would be worth asking for: word"),
    ],
)
def test_a_reward_of_nothing_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], about: str) -> None:
    with pytest.raises(ValueError, match=about):
        config_of(settings(tmp_path, wheels=changes))


def judge(models: Any, folder: Path, **changes: Any) -> WheelsLesson:
    config = config_of(
        settings(folder, data={"context": 120}, wheels={"levels": [0.2], "reward": "likeness", **changes})
    )
    return WheelsLesson(
        models.student, config, vocabulary=models.vocabulary, help_id=models.help_id, eos=models.eos
    )  # fmt: skip


PRICE, LOG_P = 0.7, torch.tensor([[0.8, 0.6, 0.5]]).log()


def scene(models: Any) -> tuple[Any, dict[str, torch.Tensor], torch.Tensor]:
    """Three states: the two agree; they differ, 0.6 against 0.1; they differ, 0.5 against 0.3. And by how much likelier
    the teacher's word is right."""
    batch: Any = SimpleNamespace(
        alive=torch.ones(1, 3, dtype=torch.bool), on_policy=torch.tensor([True]), asks=torch.tensor([True]),
        best=torch.tensor([[4, 5, 6]]), top_log_p=torch.stack([LOG_P, LOG_P - 3], -1), price=torch.tensor([PRICE]),
        worth=torch.tensor([[0.0, 0.3, 0.0]]), weight=torch.tensor([[0.0, 2.0, 0.0]]),
    )  # fmt: skip
    seen = {"own": torch.tensor([[4, 7, 7]]), "own_log_p": torch.tensor([[0.8, 0.1, 0.3]]).log()}
    return batch, seen, torch.tensor([[0.0, 0.5, 0.2]])


def test_the_optimal_policy_and_its_value_leave_no_error(models: Any, tmp_path: Path) -> None:
    lesson = judge(models, tmp_path, word=2.0, likeness=10.0)
    batch, seen, right = scene(models)
    gain = torch.tensor([[5.0, 0.3, 0.1]])
    worth_of = right * (2.0 + 10.0 * gain)
    log_ask, log_go = ask_or_go(worth_of - PRICE, torch.zeros(1, 3))
    parts = lesson._judged(seen, batch, -log_go, log_ask, log_go, gain)
    assert [float(parts[name]) for name in ("go", "ask", "gain")] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    # Another policy leaves some, at every state.
    values = -log_go
    log_ask, log_go = ask_or_go(worth_of - PRICE - 1.0, torch.zeros(1, 3))
    found = lesson._judged(seen, batch, values, log_ask, log_go, gain)["go"]
    assert float(found) == pytest.approx(float((0.5 * (values + log_go) ** 2).sum()) / (1 + PRICE), rel=1e-5)


def test_what_a_word_brings_is_learned_where_forks_know_it_as_far_as_the_word_is_right(
    models: Any, tmp_path: Path
) -> None:
    lesson = judge(models, tmp_path, word=2.0, likeness=10.0)
    batch, seen, right = scene(models)
    gain = torch.tensor([[5.0, 0.5, 0.1]], requires_grad=True)
    parts = lesson._judged(seen, batch, *torch.zeros(3, 1, 3), gain)
    assert float(parts["gain"].detach()) == pytest.approx(0.5 * 0.2**2 * 2.0 * float(right[0, 1]))
    # Policy and value do not move it: it would say what they would like to hear.
    (slope,) = torch.autograd.grad(parts["go"] + parts["ask"] + parts["gain"], gain)
    assert slope.tolist() == [[0.0, pytest.approx(0.2 * 2.0 * 0.5), 0.0]]


@pytest.mark.parametrize("changes", [{"likeness": 0.0}, {"value": False}])
def test_without_what_a_word_brings_the_rest_there_are_no_forks(
    models: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    lesson = judge(models, tmp_path, word=2.0, **changes)
    assert lesson.gain is None
    batch, seen, right = scene(models)
    log_ask, log_go = ask_or_go(2.0 * right - PRICE, torch.zeros(1, 3))
    parts = lesson._judged(seen, batch, -log_go, log_ask, log_go, None)
    assert {name: float(one) for name, one in parts.items()} == pytest.approx({"go": 0.0, "ask": 0.0}, abs=1e-6)
