"""Masked diffusion models in the embedded engine: the steps of an answer, and the process over HTTP."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import openai
import pytest

from server.engines.choice import choose_kind
from server.engines.embedded.jobs import Job, Piece, Sampling
from server.engines.embedded.masked import ORDERS, MaskedScheduler, revealed_at
from server.engines.spec import UnusableWeights
from tests.server.engines.conftest import wait_healthy
from tests.upstreams import free_port

MASK, END, WORDS = 0, 9, 10


class Writes:
    """Knows the whole answer: place i holds token 1 + i % 8, and `end_at` the end."""

    vocab_size, context, mask_id, steps = WORDS, 24, MASK, 8

    def __init__(self, end_at: int | None = None, order: str = "dilated") -> None:
        self.end_at, self.order = end_at, order
        self.revealed: list[list[int]] = []

    def scores(self, texts, places):
        self.revealed.append([int(place) for some in places for place in some])
        found = []
        for text, some in zip(texts, places, strict=True):
            assert all(text[place] == MASK for place in some)
            rows = np.zeros((len(some), WORDS), dtype=np.float32)
            rows[np.arange(len(some)), [END if p == self.end_at else 1 + p % 8 for p in some]] = 20
            rows[:, MASK] = -np.inf
            found.append(rows)
        return found


def answers(model: Writes, *jobs: Job) -> list[Piece]:
    events: queue.Queue = queue.Queue()
    scheduler = MaskedScheduler(model, lambda ids, _: "".join(map(str, ids)), frozenset({END}), events.put)
    scheduler.start()
    try:
        for job in jobs:
            scheduler.submit(job)
        pieces: list[Piece] = []
        while sum(piece.finish_reason is not None for piece in pieces) < sum(len(job.prompts) for job in jobs):
            for _, event in events.get(timeout=20):
                if isinstance(event, Exception):
                    raise event
                pieces.append(event)
        return pieces
    finally:
        scheduler.stop()


def job(stream: bool = False, prompts: tuple[tuple[int, ...], ...] = ((5, 5),), **sampling) -> Job:
    return Job(
        prompts, Sampling(**{"max_tokens": 22, "seed": 3, "temperature": 0.0, "logprobs": 0, **sampling}), stream
    )


@pytest.mark.parametrize("order", ORDERS)
def test_every_place_is_revealed_once_and_told_in_order(order):
    model = Writes(order=order)
    (piece,) = answers(model, job())
    assert [token.id for token in piece.tokens] == [1 + place % 8 for place in range(2, 24)]
    assert piece.finish_reason == "length"
    assert sorted(place for some in model.revealed for place in some) == list(range(2, 24))
    # 22 of 24 places at 8 steps for 24.
    assert len(model.revealed) <= 8


def test_dilated_steps_reveal_places_that_lie_apart():
    model = Writes()
    answers(model, job())
    assert all(step >= 8 for some in model.revealed for step in np.diff(sorted(some)))
    assert {len(some) for some in model.revealed} == {2, 3}


@pytest.mark.parametrize(("order", "most"), [("dilated", 6), ("ancestral", 2)])
def test_a_short_answer_keeps_its_places_apart_or_its_share_of_the_steps(order, most):
    model = Writes(order=order)
    answers(model, job(max_tokens=6))
    # A step of chance may have nothing to reveal.
    assert len(model.revealed) == most if order == "dilated" else 1 <= len(model.revealed) <= most


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 30])
def test_the_engine_s_orders_are_the_trainer_s(steps):
    sampler = pytest.importorskip("training.distill.diffusion.sampler")
    turns = sampler.turns(steps).numpy()
    wanted = {tuple(turns[(np.arange(20) + offset) % steps]) for offset in range(steps)}
    found = {tuple(revealed_at(20, steps, "dilated", np.random.default_rng(seed))) for seed in range(20 * steps)}
    assert found == wanted
    chance = revealed_at(4000, steps, "ancestral", np.random.default_rng(0))
    assert np.bincount(chance, minlength=steps) / 4000 == pytest.approx(np.full(steps, 1 / steps), abs=0.03)


def test_a_stream_grows_by_what_is_revealed_without_a_gap():
    pieces = answers(Writes(), job(stream=True))
    assert [token.id for piece in pieces for token in piece.tokens] == [1 + place % 8 for place in range(2, 24)]
    assert "".join(piece.text for piece in pieces) == "".join(str(1 + place % 8) for place in range(2, 24))
    assert [piece.finish_reason for piece in pieces][:-1] == [None] * (len(pieces) - 1)


def test_the_end_token_ends_an_answer_and_what_was_revealed_behind_it_is_dropped():
    (piece,) = answers(Writes(end_at=6), job())
    assert ([token.id for token in piece.tokens], piece.text, piece.finish_reason) == ([3, 4, 5, 6, 9], "3456", "stop")


def test_the_end_token_waits_for_min_tokens():
    (piece,) = answers(Writes(end_at=4), job(max_tokens=6, min_tokens=5))
    assert END not in [token.id for token in piece.tokens]


def test_confidence_is_told_for_each_token():
    (piece,) = answers(Writes(), job())
    assert all(token.logprob is not None and -1e-6 < token.logprob <= 0 for token in piece.tokens)


def test_answers_of_several_requests_do_not_mix():
    pieces = answers(Writes(), job(prompts=((5,), (5, 5, 5))), job(max_tokens=4))
    found = sorted((len(piece.tokens), [token.id for token in piece.tokens]) for piece in pieces)
    wanted = [(4, range(2, 6)), (21, range(3, 24)), (22, range(1, 23))]
    assert found == [(count, [1 + place % 8 for place in places]) for count, places in wanted]


def test_a_seed_repeats_a_sampled_answer():
    one, two = (answers(Writes(), job(temperature=2.0, logit_bias={3: 15.0})) for _ in range(2))
    assert one == two


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory):
    from tests.server.engines.tiny import save_model

    directory = save_model(tmp_path_factory.mktemp("masked"))
    config = json.loads((directory / "config.json").read_text())
    config["masked_diffusion"] = {"mask_token_id": 5, "length": 40, "steps": 8}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("begin", [None, 3])
def test_the_engine_scores_holes_as_the_trainer_does(masked_model, begin, tmp_path):
    """Both sides of the repository keep a sampler of their own; here they meet."""
    torch = pytest.importorskip("torch")
    from server.engines.embedded.loading import load
    from training.distill.diffusion.model import marked
    from training.distill.models import load_model

    if begin is not None:
        shutil.copytree(masked_model, tmp_path / "model")
        masked_model = tmp_path / "model"
        config = json.loads((masked_model / "config.json").read_text())
        config["masked_diffusion"]["begin_token_id"] = begin
        (masked_model / "config.json").write_text(json.dumps(config))
    engine = load(str(masked_model)).runner
    trainer = marked(load_model(str(masked_model), "float32", "student").eval(), engine.vocab_size)
    assert trainer.begin_id == begin
    texts = [np.array([7, 8, 5, 9, 5, 5]), np.array([11, 5, 12])]
    places = [np.array([2, 5]), np.array([1])]
    got = engine.scores(texts, places)
    for text, some, rows in zip(texts, places, got, strict=True):
        where = torch.zeros(1, len(text), dtype=torch.bool)
        where[0, some] = True
        truth = trainer.log_x(torch.tensor(text)[None], where).detach()
        assert torch.allclose(torch.log_softmax(torch.tensor(rows), -1), truth, atol=1e-4)
    assert (engine.context, engine.steps, engine.mask_id) == (40, 8, 5)
    assert engine.order == "ancestral", "as it was made before there was a choice"


def test_a_mark_that_says_too_little_is_told(masked_model, tmp_path):
    from server.engines.embedded.loading import load

    shutil.copytree(masked_model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["masked_diffusion"]["order"] = "sideways"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnusableWeights, match="order is 'sideways'; it is one of ancestral, dilated"):
        load(str(tmp_path / "model"))
    config["masked_diffusion"]["order"] = "dilated"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert load(str(tmp_path / "model")).runner.order == "dilated"
    config["masked_diffusion"].pop("steps")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnusableWeights, match="needs mask_token_id, length and steps"):
        load(str(tmp_path / "model"))
    with pytest.raises(UnusableWeights, match="texts of 40 tokens"):
        load(str(masked_model), max_model_len=41)


def test_vllm_is_never_chosen_for_one(masked_model, monkeypatch):
    monkeypatch.setattr("server.engines.choice.SMALL_BYTES", 0)
    monkeypatch.setattr("server.engines.choice.gpu_count", lambda: 1)
    monkeypatch.setenv("TW_VLLM_PYTHON", "python")
    assert choose_kind(str(masked_model)) == "embedded"


@pytest.fixture(scope="module")
def masked_url(masked_model, tmp_path_factory):
    port = free_port()
    log = (tmp_path_factory.mktemp("log") / "engine.log").open("wb")
    command = [sys.executable, "-P", "-m", "server.engines.embedded", "--model", str(masked_model)]
    command += ["--served-model-name", "student", "--port", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        wait_healthy(f"http://127.0.0.1:{port}", process, Path(log.name))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log.close()


async def test_the_openai_sdk_talks_to_it(masked_url):
    async with openai.AsyncOpenAI(base_url=masked_url, api_key="none") as client:
        asked = {"model": "student", "messages": [{"role": "user", "content": "Anna"}], "seed": 1}
        whole = await client.chat.completions.create(**asked, max_tokens=12, logprobs=True, temperature=0)
        choice = whole.choices[0]
        assert len(choice.logprobs.content) == whole.usage.completion_tokens
        assert all(entry.logprob <= 0 for entry in choice.logprobs.content)
        text, told = "", 0
        async for chunk in await client.chat.completions.create(**asked, max_tokens=12, stream=True, temperature=0):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            told += 1
        assert text == choice.message.content
        assert told > 2
        old = await client.completions.create(model="student", prompt="Anna has", max_tokens=6, logprobs=2)
        assert 1 <= len(old.choices[0].logprobs.token_logprobs) <= 6
        with pytest.raises(openai.BadRequestError, match="maximum context length is 40"):
            await client.completions.create(model="student", prompt="Anna " * 60, max_tokens=6)
