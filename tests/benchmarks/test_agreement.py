"""The made-up language of benchmarks.wheels.agreement is what its page says it is."""

import gzip
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.wheels.agreement import (
    ARTICLES,
    CLAUSES,
    ENDING_PLACES,
    ENDINGS,
    PLACES,
    PRONOUNS,
    agreement,
    right,
    sentence,
)
from training.distill.wheels.mixing import Mixed
from training.distill.wheels.trajectories import ASK, GO


def test_endings_go_by_the_first_person_and_articles_by_each_other_one() -> None:
    draw, classes = random.Random(1), {}
    for _ in range(300):
        said, translated = (text.split() for text in sentence(draw, noise=0.0))
        people = [tuple(said[4 * n : 4 * n + 2]) for n in range(CLAUSES + 1)]
        subject = PRONOUNS.index(translated[0])
        assert {translated[place] for place in ENDING_PLACES} == {ENDINGS[subject]}
        found = [subject, *(ARTICLES.index(translated[4 + 4 * n]) for n in range(CLAUSES))]
        for person, number in zip(people, found, strict=True):
            # A name is of one class wherever it stands.
            assert classes.setdefault(person, number) == number
    assert min(Counter(classes.values()).values()) > len(classes) / 6


def test_noise_changes_pronouns_alone() -> None:
    clean, noisy = (sentence(random.Random(3), noise=noise) for noise in (0.0, 1.0))
    assert clean[0] == noisy[0]
    assert clean[1].split()[1:] == noisy[1].split()[1:]
    said = Counter(sentence(random.Random(seed), noise=1.0)[1].split()[0] for seed in range(200))
    assert set(said) == set(PRONOUNS)


def test_the_same_files_every_time(tmp_path: Path) -> None:
    files = [sorted(agreement(tmp_path / name, 20).rglob("*.gz")) for name in ("one", "two")]
    assert len(files[0]) == 6
    assert [gzip.decompress(f.read_bytes()) for f in files[0]] == [gzip.decompress(f.read_bytes()) for f in files[1]]


def test_right_words_and_whom_the_teacher_wrote_are_counted_by_place() -> None:
    reference = sentence(random.Random(5), noise=0.0)[1].split()
    written = list(reference)
    written[0], written[2] = "wrong", "wrong"
    words = dict(enumerate(written))
    bench: Any = SimpleNamespace(
        references=[" ".join(reference)],
        tokenizer=SimpleNamespace(
            decode=lambda ids, skip_special_tokens: "".join((" " if i else "") + words[i] for i in ids)
        ),
    )
    acted = [GO] * len(written)
    acted[4], acted[6] = ASK, ASK
    none = torch.zeros(len(written))
    text = Mixed(list(range(len(written))), acted, [], True, none, none[:, None].long(), none[:, None], none)
    found = right(bench, [text])
    assert found["right"] == pytest.approx((len(PLACES) - 2) / len(PLACES))
    assert found["share"] == pytest.approx(2 / len(written))
    # Place 6 is an ending, place 4 an article.
    assert (found["pronouns_asked"], found["endings_asked"]) == (0.0, 1 / CLAUSES)
