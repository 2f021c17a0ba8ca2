"""Ceilings in USD per request, over recorded teacher bills: ours through the ledger, ParetoBandit's router beside it.

Both see the same requests in the same order, both are fitted on the train split, both are told the true bill (and
ParetoBandit also the quality of the answer it chose) after each request. Needs `pip install --no-deps paretobandit`.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any

import numpy as np

from benchmarks.adherence_runs import Case, Expected, Run, serve
from benchmarks.adherence_streams import Traffic
from policies.observation import BudgetState, Observation
from policies.outcomes import Outcome
from policies.policy import Policy
from policies.prompt_features import Floats
from router.budget import Limit, Window
from router.pacing import Aim, started, worth
from training.cost_model import CostConfig, fit_cost
from training.dataset import Table, build_table
from training.evaluate import observations

CEILINGS = (0.0015, 0.003, 0.006)
"""USD per request, on average."""
TYPICAL = 64
"""Requests of the train and validation splits that pacing starts from."""
WITHIN = 0.995


@dataclass(frozen=True, slots=True, eq=False)
class Bills:
    """Everything that both sides need of one table."""

    outcomes: list[Outcome]
    table: Table
    test: list[int]
    case: Case
    gain: Floats
    """(N,) expected by the policy at a middling budget."""
    expected: Floats
    """(N,) USD expected of a teacher call."""


def bills(outcomes: list[Outcome], policy: Policy) -> Bills:
    """`policy` reads prompts; the cost model is fitted here, on the train split."""
    table = build_table(outcomes, "prompt")
    fitted = fit_cost(table, table.teacher_cost, CostConfig(within=WITHIN))
    looks = observations(outcomes, policy.steps[-1])
    known: dict[tuple[int, float], float] = {}

    def gain(row: int, share: float) -> float:
        # The policy's expectation moves little with the budget; shares are rounded so that a stream asks it seldom.
        share = float(np.round(2 * np.log(max(share, 0.01))) / 2)
        if (row, share) not in known:
            look = looks[row]
            state = BudgetState(share=min(float(np.exp(share)), 1.0))
            said = policy.score(Observation(look.step, look.prompt, look.draft, state))
            known[row, share] = said.details["expected_gain"]
        return known[row, share]

    test = [int(row) for row in table.rows("test")]
    seen = np.flatnonzero((table.split != "test") & table.both_known)
    typical = np.random.default_rng(0).permutation(seen)[:TYPICAL].tolist()
    scored = tuple((worth(gain(row, 0.2), float(fitted.expected[row])), float(fitted.expected[row])) for row in typical)

    def expected(place: int, aimed: Aim) -> Expected:
        row = test[place]
        return Expected(0.0, gain(row, aimed.share), float(fitted.expected[row]))

    case = Case(
        expected,
        table.student[test],
        table.teacher[test],
        table.teacher_cost[test],
        most=fitted.model.most,
        pacer=started(scored),
    )
    gains = np.array([gain(row, 0.2) for row in range(len(outcomes))])
    return Bills(outcomes, table, test, case, gains, fitted.expected)


def ours(of: Bills, requests: Traffic, ceiling: float, seed: int) -> Run:
    limit = Limit("cap", "usd", ceiling, Window(1, "request"))
    return asyncio.run(serve(of.case, requests, limit, Random(seed).random))


def offline(of: Bills, ceiling: float, by: str) -> float:
    """PGR of the best fixed threshold in hindsight, spending the ceiling on the test rows."""
    gain = of.table.teacher - of.table.student
    scores = {
        "gain": of.gain,
        "gain per dollar": of.gain / of.expected,
        "oracle": gain / of.table.teacher_cost,
    }[by]
    rows = np.array(of.test)
    order = rows[np.argsort(-scores[rows], kind="stable")]
    bought = np.cumsum(of.table.teacher_cost[order]) <= ceiling * len(rows)
    return float(gain[order][bought & (gain[order] > 0 if by == "oracle" else True)].sum() / gain[rows].sum())


def contexts(of: Bills, kind: str) -> Floats:
    """(N, D) what ParetoBandit sees of a request, standardised on the train split, with the bias it asks for last.

    `features`: 25 principal components of the policy's own features, as many as its own encoder has; `estimates`: the
    gain and the log cost that our policy expects, which is more than a user of it would have.
    """
    train = of.table.split == "train"
    if kind == "estimates":
        raw = np.column_stack([of.gain, np.log(of.expected)])
    else:
        prompt = of.table.prompt
        std = prompt[train].std(axis=0)
        scaled = np.clip((prompt - prompt[train].mean(axis=0)) / np.where(std < 1e-6, 1.0, std), -5, 5)
        _, _, axes = np.linalg.svd(scaled[train] - scaled[train].mean(axis=0), full_matrices=False)
        raw = scaled @ axes[:25].T
    white = (raw - raw[train].mean(axis=0)) / raw[train].std(axis=0)
    return np.column_stack([white, np.ones(len(white))])


def pareto_bandit(of: Bills, requests: Traffic, ceiling: float, seed: int, context: Floats) -> Run:
    """Its router, warmed up on both answers of every row of the train split, with its budget pacer.

    The pacer's penalty alone sets the price (`SOFT`, no fixed penalty): with its defaults it spends 80-95% of a ceiling
    and gains less.
    """
    # Not among our dependencies, so types know nothing of it.
    pacing: Any = import_module("pareto_bandit.budget_pacer")
    features: Any = import_module("pareto_bandit.feature_service")
    routing: Any = import_module("pareto_bandit.router")
    logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
    router = routing.BanditRouter.create(
        model_registry={
            "student": {"input_cost_per_m": 0.02, "output_cost_per_m": 0.05},
            "teacher": {"input_cost_per_m": 1.25, "output_cost_per_m": 10.0},
        },
        priors="none",
        feature_service=features.FeatureService.for_precomputed(context.shape[1]),
        bandit_seed=seed,
        budget_pacer=pacing.BudgetPacer(ceiling, mode=pacing.PacingMode.SOFT),
        cost_penalty=0.0,
    )
    table = of.table
    for row in np.random.default_rng(seed).permutation(table.rows("train")):
        router.update("student", context[row], float(table.student[row]))
        router.update("teacher", context[row], float(table.teacher[row]))
    count = len(requests.rows)
    asked, spent = np.zeros(count), np.zeros(count)
    rows = np.array(of.test)[requests.rows]
    for n, row in enumerate(rows):
        model, log = router.route(context[row])
        asked[n] = model == "teacher"
        spent[n] = table.teacher_cost[row] * asked[n]
        log.cost_usd = float(spent[n])  # its pacer then reckons with the bill instead of its own guess
        router.process_feedback(log.request_id, float((table.teacher if asked[n] else table.student)[row]))
    student, teacher = table.student[rows], table.teacher[rows]
    return Run(asked, spent, np.where(asked > 0, teacher, student), student, teacher, 0, 0)


def realised(run: Run, ceiling: float) -> Floats:
    """(N,) what was spent up to each request, over what the ceiling allowed."""
    out: Floats = np.cumsum(run.spent) / (ceiling * np.arange(1, len(run.spent) + 1))
    return out


def shuffled(of: Bills, seed: int, passes: int) -> Traffic:
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(len(of.test)) for _ in range(passes)])
    return Traffic(rows, np.arange(len(rows), dtype=np.float64))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval over orders (normal)."""
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))
