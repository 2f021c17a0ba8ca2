"""One evaluation with its baselines and pictures, from a policy and rows: what stands behind `tw evaluate`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policies.outcomes import Outcome
from policies.policy import Policy
from policies.prompt_features import Floats
from training.evaluate import CannotEvaluate, evaluate, scores_of, signals_of
from training.evaluate_several import evaluate_several, single_teachers, teachers_known
from training.metrics import SHARES, quality_at


def evaluation_run(
    policy: Policy,
    outcomes: Sequence[Outcome],
    *,
    split: str = "test",
    baselines: bool = True,
    seed: int = 0,
    plot: bool = False,
    calibration: bool = False,
    regret: bool = False,
    tick: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The report, and PNG bytes under `plot`, `calibration` and `regret` where asked. Raises CannotEvaluate.

    Baselines are fitted on all but the test split of the same rows; where it is too small only `length` is there.
    """
    signals = signals_of(policy)
    usable = [row for row in outcomes if signals == "prompt" or row.student_response is not None]
    if outcomes and not usable:
        raise CannotEvaluate("the policy reads the student's draft, and no row has a student_response")
    known = [
        i
        for i, row in enumerate(usable)
        if row.student_quality is not None
        and row.teacher_quality is not None
        and (not teachers_known(policy) or all(each.quality is not None for each in row.teachers))
    ]
    keep = [i for i in known if split in ("all", usable[i].split)]
    if known and not keep:
        counts = Counter(usable[i].split for i in known)
        there = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items()))
        raise CannotEvaluate(
            f"no row of the {split} split has both qualities ({there}); leave the column `split` out for 30% of rows"
            " in test, or give --split"
        )
    rows = [usable[i] for i in keep]
    rivals: dict[str, Floats] = {}
    if baselines and rows and not teachers_known(policy):
        from training.rivals import rival_scores

        _, scores = rival_scores(usable, signals, seed=seed, tick=tick)
        rivals = {name: values[keep] for name, values in scores.items()}
    tick("policy")
    if teachers_known(policy):
        if calibration or regret:
            raise CannotEvaluate(
                "pictures of calibration and regret are drawn for one teacher; this policy has several"
            )
        return _run_several(policy, rows, plot=plot)
    report = evaluate(policy, rows, baselines=rivals)
    pictures: dict[str, bytes] = {}
    student = np.array([row.student_quality for row in rows], dtype=np.float64)
    teacher = np.array([row.teacher_quality for row in rows], dtype=np.float64)
    if plot:
        from training.plots import quality_curve

        others = {
            name: list(zip(SHARES.tolist(), quality_at(values, student, teacher, SHARES).tolist(), strict=True))
            for name, values in rivals.items()
        }
        pictures["plot"] = quality_curve(report, others)
    if calibration:
        from training import plots

        pictures["calibration"] = plots.calibration(expected_gain(policy, rows), teacher - student)
    if regret:
        from training import plots

        pictures["regret"] = plots.regret(report)
    return report, pictures


def _run_several(policy: Policy, rows: Sequence[Outcome], *, plot: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Of several teachers: single ones are the baselines, and quality against share is the picture."""
    report = evaluate_several(policy, rows)
    if not plot:
        return report, {}
    from training.plots import quality_curve

    return report, {"plot": quality_curve(report, single_teachers(report))}


def expected_gain(policy: Policy, rows: Sequence[Outcome]) -> Floats:
    """What the policy expects of asking; its scores where it does not say."""
    from training.evaluate import observations

    found = [policy.score(observation) for observation in observations(rows, policy.steps[-1], 0.2)]
    if all("expected_gain" in scores.details for scores in found):
        return np.array([scores.details["expected_gain"] for scores in found])
    return scores_of(policy, rows)(0.2)
