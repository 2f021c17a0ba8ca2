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
    prompts_only,
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
        return measured(learn(bench.table(cell), bench.fitted(cell, seed), config_of(seed, steps=bench.steps)))

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


def two_steps(bench: Bench, cell: str, seed: int, draft_cost: float) -> Result:
    """Area under PGR over total costs from one draft to one teacher call, for each kind of policy.

    The interval is of what both steps win over the better of the two alone, over resampled test rows.
    """

    def make() -> Result:
        table, fitted = bench.table(cell), bench.fitted(cell, seed)
        config = config_of(seed, steps=bench.steps)
        both = learn(table, fitted, replace(config, draft_cost=draft_cost))
        found = {
            "both": acts(both, "both"),
            "defer": acts(learn(table, fitted, config), "defer"),
            "route": acts(learn(*prompts_only(table, fitted), config), "route"),
        }
        gain, count = both.teacher - both.student, len(both.student)
        grid = np.linspace(draft_cost, 1.0, 101)

        def curves(weight: Floats) -> dict[str, Floats]:
            return {kind: np.interp(grid, *each.spending(gain, weight, draft_cost)) for kind, each in found.items()}

        def won(areas: dict[str, float]) -> float:
            return areas["both"] - max(areas["defer"], areas["route"])

        seen = curves(np.full(count, 1.0 / count))
        rng = np.random.default_rng(0)
        draws = rng.multinomial(count, np.full(count, 1.0 / count), size=200) / count
        spread = [won({kind: float(curve.mean()) for kind, curve in curves(draw).items()}) for draw in draws]
        area = {kind: round(float(curve.mean()), 4) for kind, curve in seen.items()}
        return {
            "cost": grid.round(4).tolist(),
            "curves": {kind: curve.round(4).tolist() for kind, curve in seen.items()},
            "area": area,
            "won": round(won(area), 4),
            "won_ci95": np.quantile(spread, (0.025, 0.975)).round(4).tolist(),
        }

    return bench.once("two-steps", cell, seed, str(draft_cost), make)


# --- one policy against many -----------------------------------------------------------------------------------------


def one_budget(bench: Bench, cell: str, seed: int, share: float) -> Result:
    """A policy trained for one budget alone."""

    def make() -> Result:
        config = config_of(seed, steps=bench.steps, only_share=share)
        return measured(learn(bench.table(cell), bench.fitted(cell, seed), config), resamples=0)

    return bench.once("one-budget", cell, seed, str(share), make)


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


def ablation(bench: Bench, cell: str, seed: int, variant: str) -> Result:
    """One variant on the same estimators; `blend alone` is the start of training."""

    def make() -> Result:
        settings = {"steps": bench.steps, **ABLATIONS[variant]}
        learned = learn(bench.table(cell), bench.fitted(cell, seed), config_of(seed, **settings))
        if variant == "no budget in the observation":
            # What does not see the budget has one price for all of them.
            prices = learned.policy.prices
            flat = Prices(prices.log_share, np.full(len(prices.price), prices.at(0.2)))
            learned = replace(learned, policy=replace(learned.policy, prices=flat))
        return measured(learned, resamples=0)

    return bench.once("ablation", cell, seed, variant, make)


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
    """Learned from qualities dealt out at random, measured on the true ones."""

    def make() -> Result:
        true = bench.table(cell)
        table = shuffled(true, seed)
        config = config_of(seed, steps=bench.steps)
        learned = learn(table, fit_estimators(table, config.estimators), config)
        test = true.rows("test")
        return measured(replace(learned, student=true.student[test], teacher=true.teacher[test]), resamples=0)

    return bench.once("ablation", cell, seed, "shuffled qualities", make)
