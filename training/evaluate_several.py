"""What a policy with several teachers buys, by calls and by money, beside asking always the same one of them.

Under a budget of calls the best-scored rows go, each to the teacher that it is scored best for. Under one of money the
steps up from the student are taken in the order of what they are expected to buy per dollar (`policies.increments`),
and what they really cost is what counts. A single teacher is measured in the same way: the same policy's scores, gains
and bills, and that teacher alone. It is no easy rival: it is chosen in hindsight, on the rows it is measured on.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from policies.increments import increments
from policies.outcomes import Outcome, TeachersDiffer, teachers_of
from policies.policy import Policy
from policies.prompt_features import Floats, Ints
from training.evaluate import BUDGETS, CannotEvaluate, observations, rounded, signals_of
from training.metrics import SHARES

LEARNED = "learned choice"
RESAMPLES = 1000
USD_PARTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Budgets of money, as parts of what it costs to ask the dearest teacher always."""
AREA = np.linspace(0.0, 1.0, 101)


@runtime_checkable
class KnowsTeachers(Policy, Protocol):
    """A policy that chooses among several teachers; `teachers` is empty for one that knows one."""

    @property
    def teachers(self) -> tuple[str, ...]: ...


def teachers_known(policy: Policy) -> tuple[str, ...]:
    return policy.teachers if isinstance(policy, KnowsTeachers) else ()


def evaluate_several(policy: Policy, outcomes: Sequence[Outcome], *, seed: int = 0) -> dict[str, Any]:
    """The report for rows of which every model's quality is known. Raises CannotEvaluate."""
    names = teachers_known(policy)
    if not outcomes:
        raise CannotEvaluate("no row of this split has the qualities of all models")
    student, quality, bills = _arrays(outcomes, names)
    curves = {LEARNED: _by_share(policy, outcomes, None)}
    for k, name in enumerate(names):
        curves[name] = _by_share(policy, outcomes, k)
    best = max(range(len(names)), key=lambda k: float(quality[:, k].mean()))
    gap = float(quality[:, best].mean() - student.mean())
    gain = quality - student[:, None]
    taken = {name: _gained(chosen, gain) for name, chosen in curves.items()}
    report: dict[str, Any] = {
        "policy": policy.name,
        "policy_version": policy.version,
        "signals": signals_of(policy),
        "rows": len(outcomes),
        "student_quality": rounded(float(student.mean())),
        "teacher_quality": rounded(float(quality[:, best].mean())),
        "best_teacher": names[best],
        "teachers": {
            name: {
                "quality": rounded(float(quality[:, k].mean())),
                "usd_per_call": None if bills is None else rounded(float(bills[:, k].mean())),
                "chosen": rounded(float((curves[LEARNED][-1] == k).mean())),
            }
            for k, name in enumerate(names)
        },
        "curve": _curve(taken[LEARNED], student, gap),
        "by_calls": _compared(taken, gap, seed),
    }
    for name, each in taken.items():
        report["by_calls"][name]["quality"] = [point["quality"] for point in _curve(each, student, gap)]
    report["baselines"] = {f"always {name}": report["by_calls"][name] for name in names}
    report |= {key: report["by_calls"][LEARNED][key] for key in ("apgr", "apgr_ci95")}
    recovered = taken[LEARNED].mean(axis=1) / gap if gap > 0 else np.full(len(SHARES), -1.0)
    report |= {f"cpt{level}": _first(recovered >= level / 100 - 1e-12) for level in (50, 80)}
    if bills is not None:
        expected = _expected(policy, outcomes)
        if expected is not None:
            report["by_usd"] = _by_usd(names, expected, gain, bills, student, gap, seed)
    return report


def single_teachers(report: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Of a report: (share, quality) of asking always the same one."""
    shares = [point["share"] for point in report["curve"]]
    return {
        f"always {name}": list(zip(shares, report["by_calls"][name]["quality"], strict=True))
        for name in report["teachers"]
    }


def _arrays(outcomes: Sequence[Outcome], names: tuple[str, ...]) -> tuple[Floats, Floats, Floats | None]:
    """Qualities of the student (N,) and of the teachers that the policy knows (N, K), and their bills where known."""
    try:
        held = teachers_of(outcomes)
    except TeachersDiffer as error:
        raise CannotEvaluate(str(error)) from None
    missing = [name for name in names if name not in held]
    if missing:
        raise CannotEvaluate(
            f"the policy chooses among {', '.join(names)}, and the table does not hold {', '.join(missing)}"
            f" (it holds {', '.join(held) or 'one teacher'})"
        )
    places = [held.index(name) for name in names]
    student = np.array([row.student_quality for row in outcomes], dtype=np.float64)
    quality = np.array([[row.teachers[k].quality for k in places] for row in outcomes], dtype=np.float64)
    bills = np.array([[row.teachers[k].cost for k in places] for row in outcomes], dtype=np.float64)
    return student, quality, None if np.isnan(bills).any() else bills


def _scores(policy: Policy, outcomes: Sequence[Outcome], share: float) -> Floats:
    """(N, K)"""
    found = [policy.score(each) for each in observations(outcomes, policy.steps[-1], share)]
    return np.array([[teacher.score for teacher in scores.teachers] for scores in found])


def _by_share(policy: Policy, outcomes: Sequence[Outcome], only: int | None) -> Ints:
    """(101, N) whom each row goes to when that share of all is asked, the best-scored; -1: nobody."""
    many = getattr(policy, "score_teachers", None)
    if many is not None:
        prepared = policy.prepare(observations(outcomes, policy.steps[-1]))  # type: ignore[attr-defined]
    fixed = None if many is not None else _scores(policy, outcomes, 0.2)
    rows = []
    for share in SHARES:
        scores = fixed if many is None else many(policy.steps[-1], prepared, float(share))
        assert scores is not None
        whom = scores.argmax(axis=1) if only is None else np.full(len(scores), only)
        best = scores[np.arange(len(scores)), whom]
        asked = np.zeros(len(scores), bool)
        asked[np.argsort(-best, kind="stable")[: math.floor(share * len(scores) + 1e-9)]] = True
        rows.append(np.where(asked, whom, -1))
    return np.array(rows)


def _gained(chosen: Ints, gain: Floats) -> Floats:
    """(101, N) choices and (N, K) gains -> (101, N) what each row gains."""
    every = np.arange(gain.shape[0])
    return np.where(chosen >= 0, gain[every[None, :], np.maximum(chosen, 0)], 0.0)


def _curve(taken: Floats, student: Floats, gap: float) -> list[dict[str, float | None]]:
    points = []
    for budget in BUDGETS:
        place = round(budget * (len(SHARES) - 1))
        won = float(taken[place].mean())
        points.append(
            {
                "budget": budget,
                "share": rounded(math.floor(SHARES[place] * taken.shape[1] + 1e-9) / taken.shape[1]),
                "quality": rounded(float(student.mean()) + won),
                "pgr": rounded(won / gap) if gap > 0 else None,
            }
        )
    return points


def _compared(taken: dict[str, Floats], gap: float, seed: int) -> dict[str, Any]:
    """Mean gap recovered over all budgets, (101, N) gains each, with bootstrap intervals; and what the learned choice
    has more of it than each single teacher, on the same resampled rows."""
    area = {name: np.asarray(np.trapezoid(each, AREA, axis=0)) for name, each in taken.items()}
    rows = len(next(iter(area.values())))
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1.0 / rows), size=RESAMPLES) / rows

    def said(values: Floats) -> tuple[float | None, list[float | None] | None]:
        if gap <= 0:
            return None, None
        low, high = np.quantile(weights @ values, (0.025, 0.975)) / gap
        return rounded(float(values.mean()) / gap), [rounded(low), rounded(high)]

    found: dict[str, Any] = {}
    for name, values in area.items():
        value, interval = said(values)
        found[name] = {"apgr": value, "apgr_ci95": interval}
        if name != LEARNED:
            more, interval = said(area[LEARNED] - values)
            found[name] |= {"learned_more": more, "learned_more_ci95": interval}
    return found


def _first(reached: Any) -> float | None:
    places = np.flatnonzero(reached)
    return float(SHARES[places[0]]) if len(places) else None


def _expected(policy: Policy, outcomes: Sequence[Outcome]) -> tuple[Floats, Floats] | None:
    """(N, K) expected gains and bills; None for a policy that expects no bills."""
    found = [policy.score(each).teachers for each in observations(outcomes, policy.steps[-1], 0.2)]
    if any(teacher.usd is None for teacher in found[0]):
        return None
    return (
        np.array([[teacher.gain for teacher in row] for row in found]),
        np.array([[teacher.usd for teacher in row] for row in found], dtype=np.float64),
    )


def _by_usd(
    names: tuple[str, ...],
    expected: tuple[Floats, Floats],
    gain: Floats,
    bills: Floats,
    student: Floats,
    gap: float,
    seed: int,
) -> dict[str, Any]:
    """Quality at budgets of USD per request: of the learned choice, of each teacher alone, of both with hindsight."""
    dearest = float(bills.mean(axis=0).max())
    budgets = AREA * dearest
    several = range(len(names))
    found = {LEARNED: _spend(*expected, gain, bills, budgets, several)}
    for k, name in enumerate(names):
        found[name] = _spend(*expected, gain, bills, budgets, (k,))
    hindsight = _spend(gain, bills, gain, bills, budgets, several)
    points = [round(part * (len(AREA) - 1)) for part in USD_PARTS]
    return {
        "usd_per_request": [rounded(float(budgets[place])) for place in points],
        "quality": {
            name: [rounded(float(student.mean() + each[place].mean())) for place in points]
            for name, each in (*found.items(), ("hindsight", hindsight))
        },
        "compared": _compared(found, gap, seed),
    }


def _spend(
    expected_gain: Floats, expected_usd: Floats, gain: Floats, bills: Floats, budgets: Floats, whom: Sequence[int]
) -> Floats:
    """(101, N) what each row gains when the steps that are expected to buy most are taken until the budget, in USD per
    request, is spent; what is spent is the real bills."""
    rows, teachers, worth = [], [], []
    before = []
    for i in range(len(gain)):
        last = -1
        for step in increments(expected_gain[i, whom].tolist(), expected_usd[i, whom].tolist()):
            rows.append(i)
            before.append(last)
            teachers.append(whom[step.teacher])
            worth.append(step.worth)
            last = whom[step.teacher]
    order = np.argsort(-np.array(worth), kind="stable")
    row, now, then = (np.array(each, dtype=np.int64)[order] for each in (rows, teachers, before))
    more = gain[row, now] - np.where(then >= 0, gain[row, np.maximum(then, 0)], 0.0)
    paid = bills[row, now] - np.where(then >= 0, bills[row, np.maximum(then, 0)], 0.0)
    # A step to a dearer teacher may turn out cheaper; what has been spent at most by then is what a cap would see.
    spent = np.maximum.accumulate(np.cumsum(paid)) / len(gain)
    out = np.zeros((len(budgets), len(gain)))
    for b, budget in enumerate(budgets):
        taken = int(np.searchsorted(spent, budget * (1 + 1e-12), side="right"))
        np.add.at(out[b], row[:taken], more[:taken])
    return out
