"""Training at tiny sizes: rows that keep questions apart, runs that stop and go on, refusals."""

import dataclasses
import json
import math
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from training.pair.config import PRACTISED, QUICK, REPEATED, Course, Shape, Stage
from training.pair.lessons import IGNORED, lesson
from training.pair.model import build, grown
from training.pair.recipe import tokenizer_of
from training.pair.tokenizer import END, token_id
from training.pair.train import Progress, Stopped, scale, train

TOKENIZER: Tokenizer = tokenizer_of(QUICK)
SHAPE = Shape(16, 32, 1, 2)
TINY: Course = dataclasses.replace(
    QUICK.student, shape=SHAPE, stages=(Stage(6, PRACTISED, layers=1, warmup=2),), rows=2, checkpoint_every=2
)


def staged(*stages: Stage, layers: int = 1) -> Course:
    return dataclasses.replace(TINY, shape=dataclasses.replace(SHAPE, layers=layers), stages=stages)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(work: Path, course: Course = TINY, stop: Callable[[], bool] = lambda: False) -> dict[str, torch.Tensor]:
    ticks = count()
    model, done = train(
        course, "student", TOKENIZER, work, clock=lambda: float(next(ticks)), report=lambda _: None, stop=stop
    )
    assert done.step == course.steps
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_run_stopped_and_resumed_ends_with_the_weights_of_one_that_never_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    calls = count(1)
    with pytest.raises(Stopped, match="after 3 of 6 steps"):
        run(tmp_path / "parts", stop=lambda: next(calls) == 3)
    resumed = run(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_resuming_around_the_growth_ends_with_the_same_weights(tmp_path: Path, stopped: int) -> None:
    course = staged(Stage(3, PRACTISED, layers=1), Stage(3, REPEATED, layers=3), layers=3)
    whole = run(tmp_path / "whole", course)
    calls = count(1)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", course, stop=lambda: next(calls) == stopped)
    resumed = run(tmp_path / "parts", course)
    assert sum("o_proj" in name for name in whole) == 3
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_model_that_has_just_grown_answers_as_before() -> None:
    young = build(Shape(16, 32, 1, 2), TOKENIZER, 0).train(False)
    older = grown(young, Shape(16, 32, 3, 2), TOKENIZER, 0).train(False)
    tokens = lesson(TINY, "student", TOKENIZER, 0).tokens
    with torch.inference_mode():
        torch.testing.assert_close(older(tokens).logits, young(tokens).logits)


def test_a_model_cannot_grow_into_a_shape_of_another_width() -> None:
    with pytest.raises(RuntimeError):
        grown(build(Shape(16, 32, 1, 2), TOKENIZER, 0), Shape(32, 32, 2, 2), TOKENIZER, 0)


def test_a_run_that_died_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    calls = count(1)

    def die() -> bool:
        if next(calls) == 5:
            raise RuntimeError("the machine went away")
        return False

    with pytest.raises(RuntimeError, match="went away"):
        run(tmp_path / "parts", stop=die)
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    first = run(tmp_path)
    seen: list[Progress] = []
    model, done = train(TINY, "student", TOKENIZER, tmp_path, clock=lambda: 0.0, report=seen.append, stop=lambda: False)
    assert (seen, done.step) == ([], 6)
    assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())


def test_a_checkpoint_of_another_course_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match=r"another course \(different: learning_rate, seed\)"):
        run(tmp_path, dataclasses.replace(TINY, learning_rate=1.0, seed=1))
    assert json.loads((tmp_path / "course.json").read_text())["seed"] == TINY.seed


def test_progress_counts_what_was_read(tmp_path: Path) -> None:
    seen: list[Progress] = []
    ticks = count()
    train(
        TINY, "student", TOKENIZER, tmp_path, clock=lambda: float(next(ticks)), report=seen.append, stop=lambda: False
    )
    assert [done.step for done in seen] == [1, 2, 3, 4, 5, 6]
    assert [done.tokens for done in seen] == [256 * step for step in range(1, 7)]
    assert all(math.isfinite(done.loss) and done.questions > done.step for done in seen)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    seen: list[Progress] = []
    course = dataclasses.replace(
        TINY, stages=(Stage(60, PRACTISED, layers=1, warmup=2),), learning_rate=1e-2, embedding_rate=1e-2
    )
    train(course, "student", TOKENIZER, tmp_path, clock=lambda: 0.0, report=seen.append, stop=lambda: False)
    first, last = (sum(done.loss for done in part) / 5 for part in (seen[:5], seen[-5:]))
    assert last < 0.6 * first


def test_the_learning_rate_rises_stays_and_falls() -> None:
    course = staged(Stage(100, PRACTISED, layers=1, warmup=4, decay=0.2))
    rates = [scale(course, step) for step in range(100)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(rates[4:81]) == {1.0}
    assert rates[81:] == pytest.approx([(100 - step) / 20 for step in range(81, 100)])


def test_the_learning_rate_rises_again_in_every_stage() -> None:
    first = Stage(50, PRACTISED, layers=1, warmup=4, decay=0.0)
    course = staged(first, Stage(50, REPEATED, layers=1, scale=0.5, warmup=4, decay=0.04))
    assert [scale(course, step) for step in range(48, 55)] == [1.0, 1.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert [scale(course, step) for step in range(97, 100)] == [0.5, 0.5, 0.25]


def test_a_course_has_no_step_after_its_last() -> None:
    with pytest.raises(IndexError, match="has 6 steps"):
        TINY.at(6)


def test_every_stage_asks_in_its_own_shares() -> None:
    sums = {group: float(group == "sum") for group in PRACTISED}
    shares = {group: float(group == "quotient") for group in PRACTISED}
    course = staged(Stage(1, sums, layers=1), Stage(1, shares, layers=1))
    added, divided = (
        TOKENIZER.decode(lesson(course, "student", TOKENIZER, step).tokens[0].tolist()) for step in (0, 1)
    )
    assert "sum of" in added or "+" in added
    assert "+" not in divided


def test_targets_are_the_answer_and_its_end_and_nothing_else() -> None:
    rows = lesson(TINY, "student", TOKENIZER, 0)
    told = [[int(t) for t in targets[targets != IGNORED]] for targets in rows.targets]
    for row in told:
        answers = TOKENIZER.decode(row, skip_special_tokens=False).split(END)
        assert answers.pop() == ""
        assert all(answer.isdigit() for answer in answers)
    learned = rows.targets[:, :-1] != IGNORED
    assert torch.equal(rows.targets[:, :-1][learned], rows.tokens[:, 1:][learned])
    assert sum(row.count(token_id(TOKENIZER, END)) for row in told) == rows.questions


def test_a_question_is_answered_the_same_alone_and_beside_others_in_a_row() -> None:
    rows = lesson(TINY, "student", TOKENIZER, 0)
    model = build(TINY.shape, TOKENIZER, 0).eval()
    starts = (rows.positions[0] == 0).nonzero()[:, 0].tolist()
    begin, end = starts[1], starts[2]
    with torch.inference_mode():
        packed = model(
            input_ids=rows.tokens, position_ids=rows.positions, attention_mask=rows.mask, use_cache=False
        ).logits[0, begin:end]
        alone = model(input_ids=rows.tokens[:1, begin:end], use_cache=False).logits[0]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_another_step_brings_other_questions_and_the_same_step_the_same() -> None:
    assert torch.equal(lesson(TINY, "student", TOKENIZER, 3).tokens, lesson(TINY, "student", TOKENIZER, 3).tokens)
    assert not torch.equal(lesson(TINY, "student", TOKENIZER, 3).tokens, lesson(TINY, "student", TOKENIZER, 4).tokens)
