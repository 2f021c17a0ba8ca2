"""The experiments on routing quality, one function each: quality, two steps, budgets, transfer, rows, ablations.

Every function returns plain results by cell, kept as they come (`Bench.once`). Test rows are looked at to report, never
to choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.routing_cells import (
    BUDGETS,
    GSM8K,
    JUDGED,
    MMLU,
    PRO,
    Bench,
    Learned,
    Result,
    config_of,
    learn,
    measured,
)
from policies.action import Step
from policies.prompt_features import Floats
from policies.wheels import Prices
from training.dataset import Ragged, Table
from training.estimators import fit_estimators
from training.evaluate import ranking
from training.metrics import SHARES, pgr, quality_at
from training.rivals import fit_rivals
from training.train_policy import shuffled

DRAFT_COSTS = (0.05, 0.1, 0.3)
"""In teacher calls: a student of a twentieth, a tenth and a third of the teacher's price."""
ROWS = (500, 2500, 8500)
POOLS = {
    f"{GSM8K}:prompt": (JUDGED, MMLU),
    f"{JUDGED}:prompt": (GSM8K, MMLU),
    f"{MMLU}:prompt": (GSM8K, JUDGED),
    f"{PRO}:prompt": (GSM8K, JUDGED),
    f"{GSM8K}:draft": (PRO,),
    f"{PRO}:draft": (GSM8K,),
}
"""Cell -> the tables to learn from instead. mmlu and mmlu-pro share questions and are never mixed."""


def quality(bench: Bench, cell: str, seed: int) -> Result:
    """The policy as `tw train policy` makes it."""

    def make() -> Result:
        return measured(bench.learned(cell, seed))

    return bench.once("quality", cell, seed, "wheels", make)


def rivals(bench: Bench, cell: str) -> Result:
    """Baselines on the same features and rows, seed 0."""

    def make() -> Result:
        table = bench.table(cell)
        test = table.rows("test")
        student, teacher = table.student[test], table.teacher[test]
        scores = {name: values[test] for name, values in fit_rivals(table).items()}
        scores |= {"oracle": teacher - student, "random": np.zeros(len(test))}
        return {name: _rival(values, student, teacher) for name, values in scores.items()}

    return bench.once("rivals", cell, 0, "all", make)


def _rival(scores: Floats, student: Floats, teacher: Floats) -> Result:
    recovered = pgr(quality_at(scores, student, teacher, SHARES), float(student.mean()), float(teacher.mean()))
    return {
        **ranking(scores, student, teacher, resamples=0),
        "curve": recovered.round(5).tolist(),
        "pgr": [round(float(recovered[round(share * 100)]), 4) for share in BUDGETS],
    }


# --- two steps against one -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Acts:
    """What a policy does with B rows under K budgets, acting on the sign of its scores."""

    asked: Floats
    """(K, B) 1 where the teacher answers"""
    drafted: Floats
    """(K, B) 1 where the student wrote something, to be kept or to be read and thrown away"""

    def spending(self, gain: Floats, weight: Floats, draft_cost: float) -> tuple[Floats, Floats]:
        """Mean cost in teacher calls, rising, and PGR, (K + 1,) each; `weight` (B,) sums to 1."""
        cost = np.append(self.asked @ weight + draft_cost * (self.drafted @ weight), draft_cost)
        recovered = np.append(self.asked @ (gain * weight), 0.0) / (gain @ weight)
        order = np.argsort(cost, kind="stable")
        return cost[order], recovered[order]


def acts(learned: Learned, kind: str) -> Acts:
    """At 60 budgets; kind: `route`, `defer` or `both`."""
    asked, drafted = [], []
    for share in np.geomspace(0.01, 1.0, 60):
        wants = {
            step: learned.policy.score_prepared(step, features, float(share)) > 0
            for step, features in learned.features.items()
        }
        at_route = wants[Step.ROUTE] & (kind != "defer")
        asked.append(at_route if kind == "route" else at_route | wants[Step.DEFER])
        drafted.append(~at_route)
    return Acts(np.array(asked, dtype=np.float64), np.array(drafted, dtype=np.float64))


def two_step_areas(found: dict[str, Acts], gain: Floats, draft_cost: float) -> tuple[Floats, dict[str, Floats], Floats]:
    """What K policies win over total costs from one draft to one teacher call.

    Returns the costs (101,), PGR at each by name (101,), and areas over 200 resamples of the B rows (200, K).
    """
    count, grid = len(gain), np.linspace(draft_cost, 1.0, 101)

    def curves(weight: Floats) -> dict[str, Floats]:
        return {name: np.interp(grid, *each.spending(gain, weight, draft_cost)) for name, each in found.items()}

    # The same draws whatever is compared, so that differences are of pairs.
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1.0 / count), size=200) / count
    spread = np.array([[curve.mean() for curve in curves(draw).values()] for draw in draws])
    return grid, curves(np.full(count, 1.0 / count)), spread


def two_steps(bench: Bench, cell: str, seed: int, draft_cost: float) -> Result:
    """Area under PGR over total costs from one draft to one teacher call, for each kind of policy.

    The interval is of what both steps win over the better of the two alone, over resampled test rows.
    """

    def make() -> Result:
        both = bench.learned(cell, seed, draft_cost=draft_cost)
        found = {
            "both": acts(both, "both"),
            "defer": acts(bench.learned(cell, seed), "defer"),
            "route": acts(bench.learned(cell, seed, blind=True), "route"),
        }
        grid, seen, spread = two_step_areas(found, both.teacher - both.student, draft_cost)
        area = {kind: round(float(curve.mean()), 4) for kind, curve in seen.items()}
        won = spread[:, 0] - spread[:, 1:].max(axis=1)
        return {
            "cost": grid.round(4).tolist(),
            "curves": {kind: curve.round(4).tolist() for kind, curve in seen.items()},
            "area": area,
            "won": round(area["both"] - max(area["defer"], area["route"]), 4),
            "won_ci95": interval(won),
        }

    return bench.once("two-steps", cell, seed, str(draft_cost), make)


def interval(draws: Floats) -> list[float]:
    """The middle 95% of resamples (R,)."""
    return [round(float(end), 4) for end in np.quantile(draws, (0.025, 0.975))]


# --- one policy against many -----------------------------------------------------------------------------------------


def one_against_many(bench: Bench, cell: str, seed: int) -> Result:
    """PGR at five budgets of the policy for all of them, of a policy trained for each, and what the first one loses.

    Intervals are of the difference, over resampled test rows.
    """

    def make() -> Result:
        one = bench.learned(cell, seed)
        gain, count = one.teacher - one.student, len(one.student)
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1.0 / count), size=400) / count
        pgrs, lost = [], []
        for share in BUDGETS:
            each = bench.learned(cell, seed, only_share=share)
            pair = [asked_at(policy.scores(share), share) for policy in (one, each)]
            pgrs.append([float((asked * gain).mean() / gain.mean()) for asked in pair])
            lost.append(draws @ ((pair[1] - pair[0]) * gain) / (draws @ gain))
        first, second = (np.array(values) for values in zip(*pgrs, strict=True))
        return {
            "one": first.round(4).tolist(),
            "many": second.round(4).tolist(),
            "lost": (second - first).round(4).tolist(),
            "lost_ci95": [interval(draw) for draw in lost],
            "mean_lost": round(float((second - first).mean()), 4),
            "mean_lost_ci95": interval(np.mean(lost, axis=0)),
        }

    return bench.once("one-against-many", cell, seed, "all", make)


def asked_at(scores: Floats, share: float) -> Floats:
    """(B,) 1 for the best-scored rows up to the share, a part of 1 for the last one."""
    order = np.argsort(-scores, kind="stable")
    asked = np.zeros(len(scores))
    asked[order] = np.clip(share * len(scores) - np.arange(len(scores)), 0.0, 1.0)
    return asked


# --- transfer and learning curve -------------------------------------------------------------------------------------


def standardised(table: Table) -> Table:
    """Qualities so that every table has the same mean gain and the same spread of it."""
    known = (table.split != "test") & table.both_known
    spread = float((table.teacher - table.student)[known].std())
    return replace(
        table,
        student=(table.student - table.student[known].mean()) / spread,
        # A gap, the same everywhere: without one there is nothing to recover.
        teacher=(table.teacher - table.teacher[known].mean()) / spread + 0.5,
    )


def pooled(tables: Sequence[Table]) -> Table:
    """One table after the other; rows of different tables share no fold by accident."""
    folds, start = [], 0
    for table in tables:
        folds.append(table.fold + start)
        start += int(table.fold.max()) + 1

    def joined(name: str) -> Any:
        parts = [getattr(table, name) for table in tables]
        if isinstance(parts[0], list):
            return [value for part in parts for value in part]
        if isinstance(parts[0], Ragged):
            return Ragged.of(part[row] for part in parts for row in range(len(part)))
        return None if parts[0] is None else np.concatenate(parts)

    names = ["ids", "prompt", "prompt_ngrams", "draft", "draft_ngrams", "student", "teacher"]
    names += ["student_cost", "teacher_cost", "split", "groups"]
    return Table(**{name: joined(name) for name in names}, fold=np.concatenate(folds))


def transfer(bench: Bench, cell: str, seed: int) -> Result:
    """Learned on other tables, measured on the test rows of this one."""

    def make() -> Result:
        signals = cell.split(":")[1]
        known = [bench.table(f"{name}:{signals}") for name in POOLS[cell]]
        known = [standardised(table.take(np.flatnonzero(table.split != "test"))) for table in known]
        strange = bench.table(cell)
        table = pooled([*known, strange.take(strange.rows("test"))])
        config = config_of(seed, steps=bench.steps)
        return {
            "rows_known": sum(map(len, known)),
            **measured(learn(table, fit_estimators(table, config.estimators), config)),
        }

    return bench.once("transfer", cell, seed, "pooled", make)


def rows(bench: Bench, cell: str, seed: int, count: int) -> Result:
    """Learned from `count` rows (train and validation together) of the table."""

    def make() -> Result:
        table = bench.table(cell)
        given = np.flatnonzero(table.split != "test")
        chosen = np.random.default_rng(seed).permutation(given)[:count]
        part = table.take(np.sort(np.concatenate([chosen, table.rows("test")])))
        config = config_of(seed, steps=bench.steps)
        return {"count": len(chosen), **measured(learn(part, fit_estimators(part, config.estimators), config))}

    return bench.once("rows", cell, seed, str(count), make)


# --- ablations -------------------------------------------------------------------------------------------------------

ABLATIONS: dict[str, dict[str, Any]] = {
    "off-policy only": {"on_policy": 0.0, "relabel": 0.0},
    "on-policy only": {"on_policy": 1.0, "relabel": 0.0},
    "no entropy": {"temperature": 0.02},
    "no budget in the observation": {"sees_budget": False},
    "with Trust-PCL's reference": {"trust": 0.5},
    "blend alone": {"steps": 0},
}
UNCHECKED = {"doubt": -1e6}
"""All that training adds is kept, whether or not the validation rows bear it out."""
BARE: dict[str, dict[str, Any]] = {
    "nothing taken back": UNCHECKED,
    **{
        f"{name}, nothing taken back": ABLATIONS[name] | UNCHECKED
        for name in ("off-policy only", "on-policy only", "no entropy", "no budget in the observation")
    },
}
ABLATION_DRAFT_COST = 0.1


def ablated(bench: Bench, cell: str, seed: int, variant: str, **settings: Any) -> Learned:
    learned = bench.learned(cell, seed, **{**(ABLATIONS | BARE)[variant], **settings})
    if variant.startswith("no budget in the observation"):
        # What does not see the budget has one price for all of them.
        prices = learned.policy.prices
        flat = Prices(prices.log_share, np.full(len(prices.price), prices.at(0.2)))
        learned = replace(learned, policy=replace(learned.policy, prices=flat))
    return learned


def ablation(bench: Bench, cell: str, seed: int, variant: str) -> Result:
    """One variant on the same estimators, drafts free; `blend alone` is the start of training."""

    def make() -> Result:
        return measured(ablated(bench, cell, seed, variant), resamples=0)

    return bench.once("ablation", cell, seed, variant, make)


def two_step_ablation(bench: Bench, cell: str, seed: int, variant: str) -> Result:
    """One variant where a draft costs a tenth of a call, by area as in `two_steps`; what it loses, in pairs of rows."""

    def make() -> Result:
        cost = ABLATION_DRAFT_COST
        whole = bench.learned(cell, seed, draft_cost=cost)
        found = {
            "as it is": acts(whole, "both"),
            variant: acts(ablated(bench, cell, seed, variant, draft_cost=cost), "both"),
        }
        _, seen, spread = two_step_areas(found, whole.teacher - whole.student, cost)
        whole_area, area = (round(float(curve.mean()), 4) for curve in seen.values())
        return {
            "area": area,
            "whole_area": whole_area,
            "lost": round(whole_area - area, 4),
            "lost_ci95": interval(spread[:, 0] - spread[:, 1]),
        }

    return bench.once("two-step-ablation", cell, seed, variant, make)


def regression(bench: Bench, cell: str, seed: int) -> Result:
    """The gain regressed on the very observation of the policy: linear, and a network of the same size."""

    def make() -> Result:
        from sklearn.linear_model import Ridge
        from sklearn.neural_network import MLPRegressor
        from threadpoolctl import threadpool_limits

        from training.lessons import prepare
        from training.rivals import fit_quietly

        table = bench.table(cell)
        lessons = prepare(table, bench.fitted(cell, seed))
        features = list(lessons.features.values())[-1].numpy()
        gain = table.teacher - table.student
        fit, test = np.flatnonzero((table.split != "test") & table.both_known), table.rows("test")
        mean, std = features[fit].mean(axis=0), features[fit].std(axis=0)
        standard = np.clip((features - mean) / np.where(std < 1e-6, 1.0, std), -5, 5)
        network = MLPRegressor(
            hidden_layer_sizes=(32,), alpha=1.0, max_iter=60, early_stopping=len(fit) >= 200, random_state=seed
        )
        with threadpool_limits(limits=1):
            models = {"linear": Ridge(100.0).fit(standard[fit], gain[fit])}
            models["network"] = fit_quietly(network, standard[fit], gain[fit])
        return {
            name: _rival(model.predict(standard[test]), table.student[test], table.teacher[test])
            for name, model in models.items()
        }

    return bench.once("ablation", cell, seed, "regression", make)


def shuffled_qualities(bench: Bench, cell: str, seed: int) -> Result:
    """Learned from qualities dealt out at random, measured on the true ones: 0.5 must lie in the interval."""

    def make() -> Result:
        true = bench.table(cell)
        table = shuffled(true, seed)
        config = config_of(seed, steps=bench.steps)
        learned = learn(table, fit_estimators(table, config.estimators), config)
        test = true.rows("test")
        return measured(replace(learned, student=true.student[test], teacher=true.teacher[test]))

    return bench.once("shuffled", cell, seed, "qualities", make)
