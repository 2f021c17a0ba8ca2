"""A cell (table and signals) learned and measured, and results kept on disk so that an interrupted run goes on."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.action import Step
from policies.features import FEATURES_HASH
from policies.outcomes import file_sha256, read_outcomes
from policies.prompt_features import Floats
from policies.wheels import Estimators, WheelsPolicy
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, Fitted, fit_estimators
from training.evaluate import ranking
from training.learner import PathConsistencyConfig, begin, finish, run
from training.lessons import Lessons, prepare
from training.metrics import SHARES, pgr, quality_at

GSM8K, MMLU = "gsm8k-mixtral-gpt4", "mmlu-mixtral-gpt4"
PRO, JUDGED = "mmlu-pro-llama31-8b-70b", "judged-llama31-8b-gemini25pro"
CELLS = (
    f"{GSM8K}:draft",
    f"{GSM8K}:prompt",
    f"{PRO}:draft",
    f"{PRO}:prompt",
    f"{MMLU}:prompt",
    f"{JUDGED}:prompt",
)
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
METHOD = 1
"""Raised when what is measured changes, so that results kept from before are made anew."""

Result = dict[str, Any]


def config_of(seed: int, **settings: Any) -> PathConsistencyConfig:
    return replace(PathConsistencyConfig(seed=seed, estimators=EstimatorConfig(seed=seed)), **settings)


@dataclass(slots=True)
class Bench:
    """Tables read once, estimators fitted once per cell and seed, results kept under `kept`."""

    data: Path
    kept: Path
    steps: int
    say: Callable[[str], None] = print
    _tables: dict[str, Table] = field(default_factory=dict)
    _fitted: dict[tuple[str, int], Fitted] = field(default_factory=dict)
    _learned: dict[str, "Learned"] = field(default_factory=dict)
    _learned_from: tuple[str, int] | None = None

    def table(self, cell: str) -> Table:
        if cell not in self._tables:
            name, signals = cell.split(":")
            outcomes = read_outcomes(self.data / f"{name}.parquet")
            self._tables[cell] = build_table(outcomes, signals)  # type: ignore[arg-type]
        return self._tables[cell]

    def fitted(self, cell: str, seed: int) -> Fitted:
        if (cell, seed) not in self._fitted:
            self._fitted[cell, seed] = fit_estimators(self.table(cell), EstimatorConfig(seed=seed))
        return self._fitted[cell, seed]

    def learned(self, cell: str, seed: int, *, blind: bool = False, **settings: Any) -> "Learned":
        """The policy of a cell and seed; `blind`: to the drafts. Those of the last cell and seed stay in memory."""
        if self._learned_from != (cell, seed):
            self._learned.clear()
            self._learned_from = (cell, seed)
        key = json.dumps([blind, settings], sort_keys=True)
        if key not in self._learned:
            table, fitted = self.table(cell), self.fitted(cell, seed)
            if blind:
                table, fitted = prompts_only(table, fitted)
            self._learned[key] = learn(table, fitted, config_of(seed, **{"steps": self.steps, **settings}))
        return self._learned[key]

    def once(self, experiment: str, cell: str, seed: int, variant: str, make: Callable[[], Result]) -> Result:
        """What was measured before under the same settings and data, or `make()`."""
        digest = file_sha256(self.data / f"{cell.split(':')[0]}.parquet")
        settings = asdict(config_of(seed, steps=self.steps))
        key = hashlib.sha256(json.dumps([METHOD, FEATURES_HASH, digest, settings], sort_keys=True).encode()).hexdigest()
        name = "_".join([experiment, cell.replace(":", "-"), str(seed), variant.replace(" ", "-")])
        path = self.kept / f"{name}.json"
        if path.exists():
            found: Result = json.loads(path.read_text())
            if found["key"] == key:
                return found
        began = time.process_time()
        result = {"key": key, **make(), "cpu_s": round(time.process_time() - began, 1)}
        self.kept.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result) + "\n")
        temporary.replace(path)
        self.say(f"{name}: {result.get('apgr', result.get('area', ''))} ({result['cpu_s']:.0f} s of CPU)")
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A policy and what the test rows look like to it."""

    policy: WheelsPolicy
    lessons: Lessons
    features: dict[Step, Floats]
    """(B, F) of the test rows, per step."""
    student: Floats
    """(B,)"""
    teacher: Floats

    def scores(self, share: float) -> Floats:
        last = list(self.features)[-1]
        return self.policy.score_prepared(last, self.features[last], share)


def prompts_only(table: Table, fitted: Fitted) -> tuple[Table, Fitted]:
    """The same cell without its drafts."""
    return (
        replace(table, draft=None, draft_ngrams=None),
        Fitted(Estimators(fitted.estimators.prompt), fitted.prompt_estimates, None),
    )


def learn(table: Table, fitted: Fitted, config: PathConsistencyConfig) -> Learned:
    """From fitted estimators to a policy, by `training.learner`."""
    lessons = prepare(table, fitted)
    loop = begin(lessons, config)
    run(loop, lessons, config)
    policy = finish(loop, lessons, fitted.estimators, table, config, "measured")
    test = table.rows("test")
    features = {step: values[test].numpy() for step, values in lessons.features.items()}
    return Learned(policy, lessons, features, table.student[test], table.teacher[test])


def acting(learned: Learned, share: float) -> tuple[float, float]:
    """(share asked, PGR) of acting on the sign of the score under a hard cap; beyond the cap, whoever comes first."""
    asked = learned.scores(share) > 0
    wanted = float(asked.mean())
    part = min(1.0, share / wanted) if wanted > 0 else 0.0
    gain = learned.teacher - learned.student
    return wanted * part, float((gain * asked).mean() * part / gain.mean())


def measured(learned: Learned, resamples: int = 400) -> Result:
    """APGR with its interval, PGR at the budgets by rank, and by acting without any pacing."""
    student, teacher = learned.student, learned.teacher
    scores = np.stack([learned.scores(float(share)) for share in SHARES])
    quality = quality_at(scores, student, teacher, SHARES)
    recovered = pgr(quality, float(student.mean()), float(teacher.mean()))
    acted = [acting(learned, share) for share in BUDGETS]
    return {
        "rows": len(student),
        **ranking(scores, student, teacher, resamples=resamples),
        "curve": recovered.round(5).tolist(),
        "pgr": [round(float(recovered[round(share * 100)]), 4) for share in BUDGETS],
        "acted_share": [round(share, 4) for share, _ in acted],
        "acted_pgr": [round(value, 4) for _, value in acted],
    }
