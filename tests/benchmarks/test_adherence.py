"""Streams, runs and verdicts of the adherence benchmark, on small made-up rows."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from benchmarks.adherence import share_faults, share_row, usd_faults
from benchmarks.adherence_runs import Case, Expected, Run, serve
from benchmarks.adherence_streams import BURST, ORDERS, traffic
from policies.outcomes import Outcome
from router.budget import Kind, Limit, Window
from router.pacing import started, worth


def rows(count: int, groups: int) -> list[Outcome]:
    return [Outcome(str(i), "x" * (i % 50), 0.0, 1.0, "test", group=f"g{i % groups}") for i in range(count)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 7])
def test_every_row_comes_equally_often(order: str, groups: int) -> None:
    stream = traffic(rows(130, groups), order, seed=1, least=300)
    assert Counter(stream.rows.tolist()) == dict.fromkeys(range(130), 3)
    assert (np.diff(stream.at) >= 0).all()


def test_sorted_traffic_brings_one_group_after_the_other() -> None:
    stream = traffic(rows(100, 5), "sorted by group", seed=0, least=100)
    groups = [row % 5 for row in stream.rows.tolist()]
    assert sum(one != other for one, other in pairwise(groups)) == 4


def test_bursts_come_at_one_instant() -> None:
    stream = traffic(rows(200, 5), "in bursts", seed=0, least=200)
    assert Counter(stream.at.tolist()) == {float(BURST * i): BURST for i in range(5)}


def case(count: int, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1.7, 2.0, count)
    gain = (rng.random(count) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    return Case(lambda row, _aim: Expected(float(scores[row])), np.zeros(count), gain)


@pytest.mark.parametrize("kind", ["cap", "target"])
def test_a_share_is_held_through_the_ledger(kind: Kind) -> None:
    stream = traffic(rows(600, 6), "as recorded", seed=0, least=600)
    run = asyncio.run(serve(case(600), stream, Limit(kind, "share", 0.2), Random(0).random))
    row = share_row("made up", "as recorded", kind, 0.2, [run, run], [run.gap_recovered] * 2)
    assert list(share_faults(row)) == []
    assert run.asked.sum() == pytest.approx(120, abs=5)
    assert (row["calls_over"] <= 0) == (kind == "cap")
    assert run.gap_recovered > 0.3


def test_a_ceiling_is_held_and_answers_that_are_cut_are_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    count = 600
    expected = np.exp(rng.normal(-5, 0.6, count))
    bills = expected * np.exp(rng.normal(0, 0.4, count))
    gain = rng.random(count)
    typical = tuple((worth(float(gain[i]), float(expected[i])), float(expected[i])) for i in range(50))
    money = Case(
        lambda row, _aim: Expected(0.0, float(gain[row]), float(expected[row])),
        np.full(count, 0.5),
        np.ones(count),
        bills,
        most=2.0,
        pacer=started(typical),
    )
    ceiling = float(bills.mean()) * 0.2
    stream = traffic(rows(count, 6), "in bursts", seed=0, least=count)
    run = asyncio.run(serve(money, stream, Limit("cap", "usd", ceiling, Window(1, "request")), Random(0).random))
    spent = np.cumsum(run.spent)
    assert (spent <= ceiling * np.arange(1, count + 1) + 1e-9).all()
    assert spent[-1] > 0.85 * ceiling * count
    assert run.cut == (run.got == 0.0).sum() > 0


def broken(run: Run, calls: int) -> Run:
    asked = run.asked.copy()
    asked[:calls] = 1.0
    return replace(run, asked=asked)


def test_a_broken_promise_is_named() -> None:
    stream = traffic(rows(600, 6), "as recorded", seed=0, least=600)
    run = asyncio.run(serve(case(600), stream, Limit("cap", "share", 0.2), Random(0).random))
    over = broken(run, 200)
    first = next(share_faults(share_row("t", "as recorded", "cap", 0.2, [over] * 2, [0.0] * 2)))
    assert first.startswith("t, as recorded, cap of 20%: over by ")
    assert "points off after request 500" in next(
        share_faults(share_row("t", "as recorded", "target", 0.2, [over] * 2, [0.0] * 2))
    )
    row = {
        "router": "training wheels",
        "ceiling": 0.003,
        "order": "dealt anew, 1587 requests",
        "requests": 1587,
        "ever_over": True,
        "most_at_any_moment": 1.02,
        "used": 0.9,
        "gap_recovered": 0.1,
    }
    where = "0.003 USD per request, dealt anew, 1587 requests"
    assert list(usd_faults(row)) == [
        f"{where}: over the ceiling, by 2.00% at most",
        f"{where}: only 90.0% used",
        f"{where}: 0.100 of the gap recovered, promised 0.32",
    ]
    assert list(usd_faults({**row, "router": "ParetoBandit"})) == []
