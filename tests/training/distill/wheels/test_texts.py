"""Who writes which texts, and what is kept of them."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distill.conftest import config_of
from tests.training.distill.wheels.small import SMALL, run, sections, wheels
from training.distill.errors import CannotDistill
from training.distill.wheels.collecting import Rounds
from training.distill.wheels.mixing import always, at_random, by_help, looked_at, mixed, never
from training.distill.wheels.run import load
from training.distill.wheels.trajectories import ASK, GO, INSIDE


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


def test_rounds_that_were_written_are_not_written_again(folder: Path) -> None:
    run(wheels(folder))
    shutil.rmtree(folder / "out/wheels/checkpoints")
    before = (folder / "out/wheels/rounds/round-0000.pt").stat().st_mtime_ns
    run(wheels(folder))
    assert (folder / "out/wheels/rounds/round-0000.pt").stat().st_mtime_ns == before
