"""`tw distill wheels`: whole runs on tiny pairs, going on, what is refused, what is written."""

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import save_model, settings
from training.distill.cli import distill
from training.distill.config import DistillConfig, read_config
from training.distill.errors import CannotDistill, Stopped
from training.distill.models import states
from training.distill.wheels.collecting import Rounds
from training.distill.wheels.lesson import WheelsLesson
from training.distill.wheels.mixing import Mixed, always, at_random, by_help, looked_at, mixed, never
from training.distill.wheels.restrictions import HELD_OUT, TRAINED, Restriction, read_restriction
from training.distill.wheels.row import as_served, begin_row, decide_row, decided, offset_of, read_states, settle_row
from training.distill.wheels.run import distil_wheels, load, sentences_read
from training.distill.wheels.trajectories import ASK, GO, INSIDE, load_trajectories

Write = Callable[[dict[str, Any]], Path]
SMALL: dict[str, Any] = {
    "levels": [0.1, 0.3], "phrasings": list(TRAINED[:2]), "held_out": [HELD_OUT[0]], "rounds": 2, "trajectories": 8,
    "max_new_tokens": 6, "top_k": 8, "windows": [2], "unrestricted": 0.3,
}  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with room for a sentence of tiny subwords."""
    folder = tmp_path_factory.mktemp("wheels-pair")
    save_model(folder / "student", seed=1, hidden=16, layers=1, context=128)
    save_model(folder / "teacher", seed=2, hidden=24, layers=2, context=128)
    return folder


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    return settings(folder, data={"context": 120}, **changes)


def wheels(folder: Path, out: str = "out", **changes: Any) -> DistillConfig:
    return config_of(sections(folder, out=str(folder / out), wheels={**SMALL, **changes}))


def run(config: DistillConfig, stop_at: int | None = None) -> dict[str, Any]:
    return distil_wheels(config, surroundings(stop_at), lambda _name: None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student/model.safetensors")


def test_the_student_that_is_written_loads_with_help_behind_its_words(folder: Path) -> None:
    report = run(wheels(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "out/student")
    words = AutoTokenizer.from_pretrained(folder / "out/student")
    told = json.loads((folder / "out/student/wheels.json").read_text())
    assert told["token_id"] == words.convert_tokens_to_ids("<help>") == report["vocabulary"]
    assert model.get_output_embeddings().weight.shape[0] == told["token_id"] + 1
    assert words.decode(words("5 and<help> 6")["input_ids"], skip_special_tokens=True) == "5 and 6"
    assert set(told["offsets"]) == {"0.1", "0.3"}
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


def test_a_student_that_is_its_teacher_has_nothing_to_learn(folder: Path) -> None:
    same = sections(folder, teacher={"path": str(folder / "student")})
    same["wheels"] = {**SMALL, "help": False, "decoding": "sampling", "top_k": 64}
    report = run(config_of(same))
    first = next(row for row in report["stages"]["wheels"]["curves"] if "loss" in row)
    assert first["loss"] == pytest.approx(0.0, abs=1e-5)


def batch_of(folder: Path, **changes: Any) -> tuple[WheelsLesson, Any]:
    config = wheels(folder, **changes)
    run(config)
    loaded = load(config, torch.device("cpu"))
    lesson = WheelsLesson(
        loaded.models.student,
        config,
        vocabulary=loaded.models.vocabulary,
        help_id=loaded.models.help_id,
        eos=loaded.models.eos,
    )
    source = Rounds(config, loaded.models, loaded.train, folder / "out/wheels/rounds", steps=4)
    return lesson, source


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


class Says(torch.nn.Module):
    """Reads the same off every state of a call: one pair of numbers for each call."""

    def __init__(self, *numbers: torch.Tensor) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.numbers.pop(0).expand(*states.shape[:-1], 2)


def test_what_is_read_of_the_sentences_is_the_part_of_their_variance_that_the_states_tell(folder: Path) -> None:
    lesson, _ = batch_of(folder)
    config = wheels(folder)
    loaded = load(config, torch.device("cpu"))
    strict, loose = (torch.tensor([math.log(share), 4 * share]) for share in (0.1, 0.3))
    mean = (strict + loose) / 2
    for says, part in (((strict, loose), 1.0), ((mean, mean), 0.0), ((strict, strict), -1.0)):
        lesson.allowed = Says(*says)  # type: ignore[assignment]
        assert sentences_read(config, loaded, lesson) == pytest.approx(part, abs=1e-5)
    assert sentences_read(wheels(folder, levels=[0.1]), loaded, lesson) is None
    lesson.allowed = None
    assert sentences_read(config, loaded, lesson) is None


def test_the_command_says_what_was_asked_for_and_got_and_whether_sentences_are_read(
    folder: Path, written_config: Write
) -> None:
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(sections(folder, wheels=SMALL)))])
    assert done.exit_code == 0, done.output
    assert "tokens of the teacher, asked for and got: 10%: " in done.stdout
    report = json.loads((folder / "out/report.json").read_text())
    assert report["sentences_read"] < 0.8
    assert "asks alike under all of them. More wheels.sentence_steps" in done.stdout


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


def test_two_models_write_one_text(folder: Path) -> None:
    loaded = load(wheels(folder), torch.device("cpu"))
    models = loaded.models

    def text(ask: Any, segment: int = 1) -> list[Any]:
        return mixed(
            models.student, models.teacher, [one.prompt for one in loaded.train[:3]],
            [one.prompt for one in loaded.train[:3]], ask, limits=[7, 7, 7], eos=models.eos, pad_id=models.pad_id,
            vocabulary=models.vocabulary, help_id=models.help_id, segment=segment,
        )  # fmt: skip

    assert all(set(one.acted) == {GO} and one.tokens == one.own for one in text(never))
    assert all(one.teacher_tokens == len(one.tokens) and set(one.acted) == {ASK} for one in text(always))
    threes = text(always, 3)
    assert [one.tokens for one in threes] == [one.tokens for one in text(always)]
    assert all(one.acted == ([ASK, INSIDE, INSIDE] * 3)[: len(one.tokens)] for one in threes)
    assert [one.tokens for one in text(by_help(-1e9))] == [one.tokens for one in text(never)]
    some = text(at_random(0.5, torch.Generator().manual_seed(0)))
    assert 0 < sum(one.teacher_tokens for one in some) < sum(len(one.tokens) for one in some)


def test_a_text_does_not_depend_on_those_that_finish_before_it(folder: Path) -> None:
    loaded = load(wheels(folder), torch.device("cpu"))
    models, some = loaded.models, loaded.train[:6]

    def text(few: list[Any], limits: list[int]) -> list[Any]:
        prompts = [one.prompt for one in few]
        return mixed(
            models.student, models.teacher, prompts, prompts, by_help(0.5), limits=limits, eos=models.eos,
            pad_id=models.pad_id, vocabulary=models.vocabulary, help_id=models.help_id, top_k=4,
        )  # fmt: skip

    limits = [1, 2, 9, 3, 1, 7]
    together = text(some, limits)
    for one, limit, found in zip(some, limits, together, strict=True):
        (alone,) = text([one], [limit])
        assert (found.tokens, found.acted, found.own) == (alone.tokens, alone.acted, alone.own)
        for name in ("score", "log_p", "top_log_p"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), atol=1e-4, rtol=1e-4)


def test_what_the_teacher_says_of_a_text_is_what_it_said_when_it_wrote_it(folder: Path) -> None:
    models = load(wheels(folder), torch.device("cpu")).models
    prompts = [one.prompt for one in load(wheels(folder), torch.device("cpu")).train[:3]]
    texts = mixed(
        models.student, models.teacher, prompts, prompts, always, limits=[5, 6, 7], eos=models.eos,
        pad_id=models.pad_id, vocabulary=models.vocabulary, help_id=models.help_id, top_k=4,
    )  # fmt: skip
    looks = looked_at(
        models.teacher, prompts, [one.tokens for one in texts], pad_id=models.pad_id, vocabulary=models.vocabulary,
        top_k=4,
    )  # fmt: skip
    for text, (log_p, ids, top) in zip(texts, looks, strict=True):
        assert ids[:, 0].tolist() == text.tokens
        torch.testing.assert_close(log_p, text.log_p, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(top, text.top_log_p, atol=1e-4, rtol=1e-4)


def test_each_of_the_data_s_texts_comes_once_before_any_comes_again(folder: Path) -> None:
    config = wheels(folder, consistency=0.0, critic=0.0, off_policy=1.0, teacher_text=0.0, unrestricted=0.0)
    loaded = load(config, torch.device("cpu"))
    source = Rounds(config, loaded.models, loaded.train, folder / "rounds", steps=4)
    wanted = Counter(one.answer for one in loaded.train)
    steps, rest = divmod(len(loaded.train), config.training.rows)
    seen: Counter[tuple[int, ...]] = Counter()
    for step in range(steps):
        batch = source.batch(step, 0, 0, 1)
        seen += Counter(tuple(row[:n].tolist()) for row, n in zip(batch.words, batch.length, strict=True))
    assert steps > 1
    assert (wanted - seen).total() == rest
    assert not seen - wanted


def test_the_data_s_texts_are_read_from_what_kd_kept_of_them(folder: Path) -> None:
    fresh = wheels(folder)
    value = sections(folder, teacher={"path": str(folder / "teacher"), "top_k": 8, "cache": str(folder / "cache")})
    kept = config_of({**value, "wheels": SMALL})
    rounds = []
    for config in (fresh, kept):
        loaded = load(config, torch.device("cpu"))
        source = Rounds(config, loaded.models, loaded.train, folder / "rounds", steps=4)
        rounds.append(source.read(loaded.train[:4], random.Random(0)))
    for one, other in zip(*rounds, strict=True):
        assert (one.prompt, one.tokens, one.level) == (other.prompt, other.tokens, other.level)
        torch.testing.assert_close(one.top_log_p, other.top_log_p, atol=1e-4, rtol=1e-4)
    # Held-out rows have numbers of their own, which must not be looked up among the training rows'.
    held = source.read(loaded.held, random.Random(0), held=True)
    (look,) = looked_at(
        loaded.models.teacher, [loaded.held[0].prompt], [loaded.held[0].answer], pad_id=loaded.models.pad_id,
        vocabulary=loaded.models.vocabulary, top_k=8,
    )  # fmt: skip
    torch.testing.assert_close(held[0].top_log_p, look[2], atol=1e-4, rtol=1e-4)
    kept = config_of({**value, "wheels": {**SMALL, "top_k": 4}})
    with pytest.raises(CannotDistill, match="top_k"):
        load(kept, torch.device("cpu"))


def test_at_the_beginning_help_is_asked_for_about_as_often_as_said(folder: Path) -> None:
    config = wheels(folder, levels=[0.3], phrasings=[TRAINED[0]])
    loaded = load(config, torch.device("cpu"))
    begin_row(loaded.models, config, loaded.train, 0.3)
    prompts, _ = as_served(loaded.models, loaded.train, config, Restriction(0.3, TRAINED[0]))
    read, largest = read_states(loaded.models, prompts, [one.answer for one in loaded.train])
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


def test_tokenizers_that_differ_are_refused_with_both_names(folder: Path, written_config: Write) -> None:
    save_model(folder / "other", size=300, seed=5, context=128)
    value = sections(folder, teacher={"path": str(folder / "other")}, wheels=SMALL)
    words = json.loads((folder / "other/tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[40:42]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (folder / "other/tokenizer.json").write_text(json.dumps(words))
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(value))])
    assert done.exit_code == 2
    for said in (str(folder / "student"), str(folder / "other"), "different tokenizers", "teacher's text instead"):
        assert said in done.stderr


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"phrasings": ["Ask sometimes."]}, "needs {share} exactly once"),
        ({"phrasings": ["Ask for {share} of 30%."]}, "has 2 shares"),
        ({"levels": [0.3, 0.1]}, "levels rise"),
        ({"levels": [0.0, 0.1]}, "above 0"),
        ({"reward": "likeness", "word": 0, "likeness": 0}, "word above 0"),
        ({"held_out": [TRAINED[0]]}, "either trained or held out"),
        ({"segmnt": 2}, "did you mean segment?"),
        ({"token": "and"}, ""),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, written_config: Write, changes: Any, about: str) -> None:
    value = sections(folder, wheels={**SMALL, **changes})
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(value))])
    if about:
        assert (done.exit_code, about in done.stderr) == (2, True), done.output
        assert "Traceback" not in done.output


def test_wheels_belong_to_their_verb_and_stand_alone(folder: Path, written_config: Write) -> None:
    config = written_config(sections(folder, wheels=SMALL))
    done = CliRunner().invoke(distill, ["kd", "--config", str(config)])
    assert (done.exit_code, "belongs to tw distill wheels alone" in done.stderr) == (2, True)
    config = written_config(sections(folder, wheels=SMALL, ranking={"k": 4}))
    done = CliRunner().invoke(distill, ["wheels", "--config", str(config)])
    assert (done.exit_code, "does not combine with wheels" in done.stderr) == (2, True)


def test_the_verb_prints_what_was_done(folder: Path, written_config: Write) -> None:
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(sections(folder, wheels=SMALL)))])
    assert done.exit_code == 0, done.output
    assert "wheels: 4 steps" in done.stdout


def test_lora_without_peft_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from training.extras import ExtraMissing

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else found(name, *a))
    with pytest.raises(ExtraMissing, match="peft is not installed"):
        run(wheels(folder, lora={"rank": 2}))


@pytest.mark.parametrize(
    ("sentence", "share"), [(Restriction(0.2, one).sentence, 0.2) for one in (*TRAINED, *HELD_OUT)]
)
def test_every_sentence_can_be_read_back(sentence: str, share: float) -> None:
    assert read_restriction(sentence) == pytest.approx(share)


@pytest.mark.parametrize("sentence", ["Ask sometimes.", "Between 10% and 20%.", "At most 130% of the tokens."])
def test_a_restriction_that_says_no_share_is_quoted(sentence: str) -> None:
    with pytest.raises(CannotDistill, match="a restriction says one") as caught:
        read_restriction(sentence)
    assert repr(sentence) in str(caught.value)


def test_texts_are_refused_since_there_is_nothing_to_put_a_restriction_before(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps({"text": "3 and 4 make 7."}) + "\n")
    with pytest.raises(CannotDistill, match="needs prompts and answers"):
        run(wheels(folder))


def test_the_configuration_on_the_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/distill/wheels.md").read_text()
    file = tmp_path / "config.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert read_config(file, "wheels").wheels is not None


def test_rounds_that_were_written_are_not_written_again(folder: Path) -> None:
    run(wheels(folder))
    shutil.rmtree(folder / "out/wheels/checkpoints")
    before = (folder / "out/wheels/rounds/round-0000.pt").stat().st_mtime_ns
    run(wheels(folder))
    assert (folder / "out/wheels/rounds/round-0000.pt").stat().st_mtime_ns == before
