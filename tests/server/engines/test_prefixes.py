"""Prompts that go on from texts that were read before: the same scores, from fewer tokens read."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from server.engines.embedded.llama import LlamaRunner, plain_shape, read_llama
from server.engines.embedded.prefixes import Kept, Prefixes
from tests.server.engines.tiny import save_model


@pytest.fixture
def runner(tmp_path: Path) -> LlamaRunner:
    directory = save_model(tmp_path)
    shape = plain_shape(json.loads((directory / "config.json").read_text()))
    assert shape is not None
    return LlamaRunner(shape, read_llama(directory, shape), 256)


def test_a_text_that_is_come_back_to_gets_the_scores_of_one_read_anew(runner: LlamaRunner) -> None:
    draw = random.Random(1)
    texts = [[draw.randrange(6, 300) for _ in range(length)] for length in (9, 30, 14)]
    longer = [[*text, *(draw.randrange(6, 300) for _ in range(n))] for text, n in zip(texts, (1, 5, 40), strict=True)]
    anew = runner.join(longer)
    stepped = runner.step([7, 8, 9])
    for _ in longer:
        runner.leave(0)
    runner.prefixes = Prefixes(1 << 20)
    read: list[int] = []
    blocks = runner._blocks
    runner._blocks = lambda tokens, *rest: (read.append(len(tokens)), blocks(tokens, *rest))[1]  # type: ignore[method-assign,func-returns-value]
    runner.join(texts)
    for _ in texts:
        runner.leave(0)
    again = runner.join(longer)
    np.testing.assert_allclose(again, anew, atol=1e-4)
    np.testing.assert_allclose(runner.step([7, 8, 9]), stepped, atol=1e-4)
    assert read[:6] == [9, 30, 14, 1, 5, 40]
    for _ in longer:
        runner.leave(0)
    # What stepped is known as well; the last token is always read.
    runner.join([[*longer[1], 8], longer[0]])
    assert read[-2:] == [1, 1]


def kept(*tokens: int) -> Kept:
    return Kept(tokens, ((np.zeros((1, len(tokens), 4), np.float32), np.zeros((1, len(tokens), 4), np.float32)),))


def test_texts_not_used_for_longest_make_room_and_beginnings_of_others_go() -> None:
    prefixes = Prefixes(most_bytes=32 * 7)
    prefixes.keep(kept(1, 2))
    prefixes.keep(kept(1, 2, 3))
    assert len(prefixes) == 1
    prefixes.keep(kept(5, 6, 7))
    assert prefixes.longest([1, 2, 9, 9])[0] == 2
    prefixes.keep(kept(8, 8))
    assert (prefixes.longest([5, 6, 7, 7])[0], prefixes.longest([1, 2, 3, 4])[0]) == (0, 3)
    prefixes.keep(kept(*range(20)))
    assert len(prefixes) == 2, "larger than all the room there is"
    prefixes.clear()
    assert prefixes.longest([1, 2, 3]) == (0, None)
