"""The generation thread, with a model that counts: after token t comes t + 1."""

import queue
import threading

import numpy as np
import pytest

from server.engines.embedded.jobs import Job, Piece, Sampling
from server.engines.embedded.scheduler import Overloaded, Scheduler

VOCABULARY = 50


class Counting:
    """Each row must be handed its own last token: the one that followed, or where that one was banned, a low one."""

    vocab_size = VOCABULARY
    context = 40

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.widths: list[int] = []
        self.gate = threading.Semaphore(10_000)
        self.fail_at: int | None = None

    def join(self, prompts):
        self.gate.acquire()
        self.rows += [prompt[-1] for prompt in prompts]
        return self._after(self.rows[-len(prompts) :])

    def step(self, tokens):
        self.gate.acquire()
        if len(self.widths) == self.fail_at:
            self.fail_at = None
            raise RuntimeError("no memory")
        assert all(token == row + 1 or token < 2 for token, row in zip(tokens, self.rows, strict=True))
        self.widths.append(len(tokens))
        self.rows = list(tokens)
        return self._after(self.rows)

    def leave(self, row):
        last = self.rows.pop()
        if row < len(self.rows):
            self.rows[row] = last

    def clear(self):
        self.rows = []

    def _after(self, tokens):
        logits = np.zeros((len(tokens), VOCABULARY), dtype=np.float32)
        logits[np.arange(len(tokens)), [(token + 1) % VOCABULARY for token in tokens]] = 9
        return logits


class Bench:
    def __init__(self, **options) -> None:
        self.runner = Counting()
        self.events: queue.Queue = queue.Queue()
        self.calls = 0
        self.scheduler = Scheduler(self.runner, self._decode, frozenset({49}), self._deliver, **options)

    def _decode(self, ids, skip) -> str:
        return "".join(f"{i} " for i in ids)

    def _deliver(self, deliveries) -> None:
        self.calls += 1
        for delivery in deliveries:
            self.events.put(delivery)

    def finish(self, *jobs: Job) -> dict[Job, list]:
        """The events of the jobs, until each choice has ended."""
        got: dict[Job, list] = {job: [] for job in jobs}
        open_choices = {(job, i) for job in jobs for i in range(len(job.prompts))}
        while open_choices:
            job, event = self.events.get(timeout=10)
            if job not in got:
                continue
            got[job].append(event)
            if isinstance(event, Exception):
                open_choices -= {(job, i) for i in range(len(job.prompts))}
            elif event.finish_reason is not None:
                open_choices.discard((job, event.choice))
        return got


@pytest.fixture
def make():
    benches = []

    def make_bench(**options) -> Bench:
        benches.append(Bench(**options))
        benches[-1].scheduler.start()
        return benches[-1]

    yield make_bench
    for bench in benches:
        for _ in range(1000):
            bench.runner.gate.release()
        bench.scheduler.stop()


def job(*starts: int, most: int = 5, stream: bool = False, **sampling) -> Job:
    return Job(tuple((1, start) for start in starts), Sampling(most, temperature=0, **sampling), stream)


def texts(events) -> list[str]:
    return [event.text for event in sorted(events, key=lambda event: event.choice)]


def test_many_requests_of_different_lengths_each_get_their_own_tokens(make):
    bench = make(max_batch=4)
    bench.runner.gate = threading.Semaphore(0)
    jobs = [job(start, most=1 + start % 7) for start in range(2, 40)]
    for one in jobs:
        bench.scheduler.submit(one)
    bench.runner.gate.release(10_000)
    got = bench.finish(*jobs)
    for one in jobs:
        start = one.prompts[0][-1]
        count = min(one.sampling.max_tokens, 49 - start)
        assert texts(got[one]) == ["".join(f"{start + 1 + i} " for i in range(count)).replace("49 ", "")]
    assert max(bench.runner.widths) == 4
    assert bench.runner.rows == []


def test_a_streamed_job_gets_a_piece_per_token_and_others_one(make):
    bench = make()
    streamed, whole = job(3, most=3, stream=True), job(3, most=3)
    bench.scheduler.submit(streamed)
    bench.scheduler.submit(whole)
    got = bench.finish(streamed, whole)
    assert [piece.text for piece in got[streamed]] == ["4 ", "5 ", "6 "]
    assert [piece.text for piece in got[whole]] == ["4 5 6 "]
    assert [token.id for token in got[whole][0].tokens] == [4, 5, 6]
    assert got[whole][0].finish_reason == "length"


def test_the_ways_to_end(make):
    bench = make()
    jobs = {
        "eos": job(46, most=9),
        "ignored": job(46, most=9, ignore_eos=True),
        "token": job(10, most=9, stop_token_ids=frozenset({13})),
        "text": job(10, most=9, stop=("2 1",)),
        "least": job(10, most=9, min_tokens=5, stop_token_ids=frozenset({13})),
        "kept": job(10, most=9, stop=("13",), include_stop=True),
    }
    for one in jobs.values():
        bench.scheduler.submit(one)
    got = bench.finish(*jobs.values())
    ends = {name: (piece.text, piece.finish_reason, piece.stop_reason, len(piece.tokens)) for name, one in jobs.items()
            for piece in got[one]}  # fmt: skip
    assert ends == {
        "eos": ("47 48 ", "stop", None, 3),
        "ignored": ("47 48 49 0 1 2 3 4 5 ", "length", None, 9),
        "token": ("11 12 ", "stop", 13, 3),
        "text": ("11 1", "stop", "2 1", 3),
        "least": ("11 12 0 1 2 3 4 5 6 ", "length", None, 9),
        "kept": ("11 12 13", "stop", "13", 3),
    }


def test_the_context_ends_an_answer(make):
    bench = make()
    one = Job(((1,) * 37 + (2,),), Sampling(99, temperature=0), False)
    bench.scheduler.submit(one)
    piece = bench.finish(one)[one][0]
    assert (piece.text, piece.finish_reason) == ("3 4 ", "length")


def test_who_is_cancelled_frees_a_row_for_who_waits(make):
    bench = make(max_batch=1)
    bench.runner.gate = threading.Semaphore(0)
    first, second = job(2, most=30, stream=True), job(3, most=2)
    bench.scheduler.submit(first)
    bench.scheduler.submit(second)
    for _ in range(3):
        bench.runner.gate.release()
    assert bench.events.get(timeout=10)[0] is first
    bench.scheduler.cancel(first)
    for _ in range(20):
        bench.runner.gate.release()
    assert texts(bench.finish(second)[second]) == ["4 5 "]
    assert len(bench.runner.widths) < 10


def test_a_full_queue_refuses(make):
    bench = make(max_batch=1, max_waiting=2)
    bench.runner.gate = threading.Semaphore(0)
    running = job(2, most=3)
    bench.scheduler.submit(running)
    while bench.scheduler.load[1]:
        pass
    bench.scheduler.submit(job(2, 3))
    with pytest.raises(Overloaded):
        bench.scheduler.submit(job(2))


def test_a_failed_pass_is_told_to_those_who_ran_and_the_engine_goes_on(make, caplog):
    bench = make()
    bench.runner.fail_at = 2
    unlucky = job(2, most=20)
    bench.scheduler.submit(unlucky)
    got = bench.finish(unlucky)[unlucky]
    assert [str(event) for event in got] == ["no memory"]
    lucky = job(2, most=2)
    bench.scheduler.submit(lucky)
    assert texts(bench.finish(lucky)[lucky]) == ["3 4 "]
    assert "generation failed" in caplog.text


def test_all_events_of_a_step_are_delivered_in_one_call(make):
    bench = make(max_batch=8)
    one = job(*range(2, 10), most=4, stream=True)
    bench.scheduler.submit(one)
    pieces = bench.finish(one)[one]
    assert len(pieces) == 32
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert bench.calls <= 4
