import math
from collections import Counter

import numpy as np

from server.engines.embedded.jobs import Sampling, Token
from server.engines.embedded.sampler import Chooser, token_with_logprobs

ROW = np.log(np.array([0.1, 0.5, 0.25, 0.15], dtype=np.float32))


def chosen(sampling: Sampling, count: int = 1, row=ROW, prompt=(), choice=0, ends=frozenset()) -> list[int]:
    chooser = Chooser(sampling, prompt, choice, ends)
    return [chooser.choose(row, int(row.argmax())).id for _ in range(count)]


def test_greedy_takes_the_likeliest():
    assert chosen(Sampling(9, temperature=0), 3) == [1, 1, 1]


def test_a_seed_repeats_and_choices_differ():
    one = chosen(Sampling(9, seed=7), 30)
    assert chosen(Sampling(9, seed=7), 30) == one
    assert chosen(Sampling(9, seed=7), 30, choice=1) != one
    assert chosen(Sampling(9, seed=8), 30) != one


def test_sampling_follows_the_probabilities():
    counts = Counter(chosen(Sampling(9, seed=1), 4000))
    assert all(abs(counts[i] / 4000 - p) < 0.03 for i, p in enumerate([0.1, 0.5, 0.25, 0.15]))


def test_temperature_sharpens():
    counts = Counter(chosen(Sampling(9, seed=1, temperature=0.5), 4000))
    squares = [0.01, 0.25, 0.0625, 0.0225]
    assert all(abs(counts[i] / 4000 - p / sum(squares)) < 0.03 for i, p in enumerate(squares))


def test_top_k_top_p_and_min_p_cut_the_tail():
    assert set(chosen(Sampling(9, seed=1, top_k=2), 300)) == {1, 2}
    assert set(chosen(Sampling(9, seed=1, top_p=0.7), 300)) == {1, 2}
    assert set(chosen(Sampling(9, seed=1, top_p=0.01), 300)) == {1}
    assert set(chosen(Sampling(9, seed=1, min_p=0.4), 300)) == {1, 2}


def test_penalties_speak_against_what_was_said():
    assert chosen(Sampling(9, temperature=0, frequency_penalty=2), 4) == [1, 2, 3, 0]
    assert chosen(Sampling(9, temperature=0, presence_penalty=2), 5) == [1, 2, 3, 0, 1]
    assert chosen(Sampling(9, temperature=0, repetition_penalty=3), 1, prompt=[1]) == [2]


def test_bias_bans_and_forces():
    assert chosen(Sampling(9, temperature=0, logit_bias={1: -100})) == [2]
    assert chosen(Sampling(9, temperature=0, logit_bias={0: 100})) == [0]


def test_the_end_is_not_chosen_before_min_tokens():
    assert chosen(Sampling(9, temperature=0, min_tokens=2), 3, ends=frozenset({1})) == [2, 2, 1]


def test_logprobs_are_the_models_own():
    token = Chooser(Sampling(9, temperature=0, logit_bias={1: -100}, logprobs=2), (), 0, frozenset()).choose(ROW, 1)
    assert token.id == 2
    assert math.isclose(token.logprob, math.log(0.25), abs_tol=1e-5)
    assert [i for i, _ in token.top] == [1, 2]
    assert token_with_logprobs(ROW, 3, 0).top == ()
    assert token_with_logprobs(ROW, 3, None) == Token(3)
    assert len(token_with_logprobs(ROW, 3, 20).top) == 4
