"""`tw train policy`: outcome tables in, a directory with a policy, its report and its curves out.

Resumable: what is expensive lies in `OUT/.training` while it runs (fitted estimators, the loop's checkpoint), tied to
the data and the settings by a digest, so that a continued run ends at the very weights of one that was not interrupted.
"""

import hashlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.artifact import Manifest, load_policy, save_artifact
from policies.outcomes import Outcome, TeachersDiffer, file_sha256, sample_outcomes, teachers_of
from policies.policy import Signals
from policies.samples import SampleWish
from policies.sentences import find_encoder

if TYPE_CHECKING:
    from policies.wheels import WheelsPolicy
    from training.dataset import Table
    from training.estimators import Fitted
    from training.learner import Loop, PathConsistencyConfig

LEAST_TRAIN_ROWS = 50
ENCODER_SIZE = 32
"""Numbers kept of a sentence encoder."""
MOST_ROWS = 200_000
"""Rows learnt from unless told otherwise: of larger tables a sample, so that memory stays bounded."""
TYPICAL = 64
"""Requests whose expected gain and bill go into the artifact, for pacing to begin with."""
WORK = ".training"


class CannotTrain(ValueError):
    """The tables do not allow it; the message says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run tells what it does: a stage with a number of ticks, then the ticks."""

    stage: Callable[[str, int], None] = lambda _name, _total: None
    tick: Callable[[int, str], None] = lambda _count, _note: None


@dataclass(frozen=True, slots=True)
class Description:
    """What the tables hold; printed by `--dry-run` and kept in the report."""

    rows: int
    splits: dict[str, int]
    both_known: int
    with_draft: int
    with_logprobs: int
    student_quality: float | None
    teacher_quality: float | None
    signals: Signals
    student_model: str | None
    teacher_model: str | None
    warnings: list[str] = field(default_factory=list)
    teachers: dict[str, float] | None = None
    """Mean quality of each of several teachers; None where there is one."""

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "teachers" or value is not None}


def _only(values: Sequence[str | None]) -> str | None:
    names = {value for value in values if value is not None}
    return names.pop() if len(names) == 1 else None


def describe(outcomes: Sequence[Outcome], signals: Signals | None, seen: int | None = None) -> Description:
    """Counts and warnings; picks the draft's signals where any row has a student response. Raises CannotTrain.

    `seen`: rows of the tables, where `outcomes` is a sample of them.
    """
    drafts = [row for row in outcomes if row.student_response is not None]
    if signals == "draft" and not drafts:
        raise CannotTrain("--signals draft needs the column student_response, and no row has one; use --signals prompt")
    chosen: Signals = signals or ("draft" if len(drafts) > len(outcomes) / 2 else "prompt")
    usable = drafts if chosen == "draft" else outcomes
    for side in ("student", "teacher"):
        if all(getattr(row, f"{side}_quality") is None for row in usable):
            raise CannotTrain(
                f"no row has a {side}_quality: the table knows one model only, and routing chooses between two;"
                " ask both (tw collect) or join feedback on both"
            )
    try:
        names = teachers_of(outcomes)
    except TeachersDiffer as error:
        raise CannotTrain(str(error)) from None
    for k, name in enumerate(names):
        if all(row.teachers[k].quality is None for row in usable):
            raise CannotTrain(f"no row has a quality of the teacher {name}; collect it, or take its rows out")
    both = [row for row in usable if row.student_quality is not None and row.teacher_quality is not None]
    both = [row for row in both if all(teacher.quality is not None for teacher in row.teachers)]
    train = sum(row.split == "train" for row in both)
    if train < LEAST_TRAIN_ROWS:
        one = sum((row.student_quality is None) != (row.teacher_quality is None) for row in usable)
        raise CannotTrain(
            f"{train} rows of the train split have {'all' if names else 'both'} qualities;"
            f" at least {LEAST_TRAIN_ROWS} are needed"
            + (
                f" ({one} rows know one side only, as a decision log does: tw collect asks both, tw what-if reads logs)"
                if one > len(both)
                else " (collect more, or leave `split` out so that 60% of the rows are trained on)"
            )
        )
    gains = {(row.teacher_quality or 0.0) - (row.student_quality or 0.0) for row in both}
    if len(gains) == 1:
        raise CannotTrain(
            f"the teacher's quality is the student's {gains.pop():+g} in all {len(both)} rows: no request gains more"
            " than another, so there is nothing to learn; look at how the answers were graded"
        )
    student = sum(row.student_quality or 0.0 for row in both) / len(both)
    teacher = sum(row.teacher_quality or 0.0 for row in both) / len(both)
    warnings = []
    if seen is not None and seen > len(outcomes):
        warnings.append(
            f"{len(outcomes)} of {seen} rows are learnt from, chosen by a hash; --most-rows takes more, and more memory"
        )
    if teacher <= student:
        warnings.append(
            f"the teacher ({teacher:.3f}) is not better than the student ({student:.3f}) on average:"
            " asking it is a waste except where a policy can tell the rows apart"
        )
    if chosen == "draft" and len(drafts) < len(outcomes):
        warnings.append(f"{len(outcomes) - len(drafts)} rows without a student response are left out")
    if not any(row.split == "val" for row in both):
        warnings.append("no validation rows: the last weights are kept instead of the best")
    return Description(
        rows=len(outcomes),
        splits=dict(sorted(Counter(row.split for row in outcomes).items())),
        both_known=len(both),
        with_draft=len(drafts),
        with_logprobs=sum(bool(row.student_logprobs) for row in outcomes),
        student_quality=round(student, 6),
        teacher_quality=round(teacher, 6),
        signals=chosen,
        student_model=_only([row.student_model for row in outcomes]),
        teacher_model=_only([row.teacher_model for row in outcomes]),
        warnings=warnings,
        teachers=_means(both) if both[0].teachers else None,
    )


def _means(rows: Sequence[Outcome]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        for teacher in row.teachers:
            if teacher.quality is not None:
                found.setdefault(teacher.model, []).append(teacher.quality)
    return {name: round(sum(values) / len(values), 6) for name, values in found.items()}


def libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("training-wheels", "numpy", "torch", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def train_policy(
    paths: Sequence[Path],
    out: Path,
    config: "PathConsistencyConfig",
    *,
    signals: Signals | None,
    created: str,
    resume: bool = False,
    progress: Progress | None = None,
    name: str | None = None,
    shuffle_qualities: bool = False,
    most_rows: int = MOST_ROWS,
    encoder: str | None = None,
    encoder_size: int = ENCODER_SIZE,
    samples: SampleWish | None = None,
) -> dict[str, Any]:
    """Train, evaluate on the test split, save; returns the report.

    `created` is an ISO date for the manifest. `shuffle_qualities` is the ablation that must come out as random.
    `encoder` names a sentence encoder, of which `encoder_size` numbers are kept; `samples` are wanted in service too.
    Raises OutcomeTableError, CannotTrain; EncoderMissing.
    """
    import torch

    from training.dataset import build_table
    from training.evaluate import evaluate
    from training.evaluate_several import evaluate_several
    from training.learner import begin, finish, run
    from training.lessons import prepare
    from training.widening import knows_cached, widen

    # One thread: the nets are small, and sums in a fixed order make a run reproducible.
    torch.set_num_threads(1)
    progress = progress or Progress()
    progress.stage("reading the tables", 1)
    sample = sample_outcomes(*paths, most=most_rows)
    outcomes = sample.rows
    progress.tick(1, f"{len(outcomes)} of {sample.seen} rows")
    refuse_duplicates(outcomes, paths)
    description = describe(outcomes, signals, seen=sample.seen)
    digests = _digests(paths)
    progress.stage("reading the texts", len(outcomes))
    table = build_table(outcomes, description.signals, tick=lambda n: progress.tick(n, ""))
    kept = [row for row in outcomes if description.signals == "prompt" or row.student_response is not None]
    found = None if encoder is None else find_encoder(encoder, download=True)
    if found is not None:
        progress.stage("encoding sentences", len(kept))
    table, looks = widen(
        table,
        kept,
        encoder=found,
        size=encoder_size,
        samples=samples,
        cached=knows_cached(kept),
        tick=lambda n: progress.tick(n, ""),
    )
    described = looks.described()
    if samples is not None:
        _refuse_samples(kept, description.signals, samples)
    if shuffle_qualities:
        table = shuffled(table, config.seed)

    settings = {
        **asdict(config),
        "signals": description.signals,
        "shuffle_qualities": shuffle_qualities,
        "most_rows": most_rows,
        **{name: value for name, value in described.items() if value is not None},
    }
    work = out / WORK
    key = hashlib.sha256(json.dumps([digests, settings, libraries()], sort_keys=True).encode()).hexdigest()
    _open_work(work, key, resume=resume)
    fitted = _estimators(table, config, work, progress)
    lessons = prepare(table, fitted)
    loop = begin(lessons, config)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        loop.restore(torch.load(checkpoint, weights_only=True))
    progress.stage("path consistency", config.steps)
    progress.tick(loop.step, "resumed" if loop.step else "")

    def tell(loop: "Loop") -> None:
        progress.tick(1, f"validation loss {loop.best_loss:.4f} at step {loop.best_step}")

    run(loop, lessons, config, tick=tell, checkpoint=checkpoint)
    estimators = looks.given_to(fitted.estimators)
    policy = finish(loop, lessons, estimators, table, config, name or out.resolve().name)
    policy = with_bills(policy, outcomes, table)

    progress.stage("evaluating", 1)
    test = [kept[i] for i in table.rows("test")]
    measure = evaluate_several if table.teachers else evaluate
    measured: dict[str, Any] = measure(policy, test) if test else {}
    progress.tick(1, "")
    manifest = Manifest(
        kind="wheels",
        name=policy.name,
        signals=description.signals,
        student_model=description.student_model,
        teacher_model=description.teacher_model,
        data_sha256=digests,
        seed=config.seed,
        libraries=libraries(),
        settings=settings,
        metrics={key: measured.get(key) for key in ("rows", "apgr", "apgr_ci95", "cpt50", "cpt80")},
        created=created,
        teachers=_priced(table) if table.teachers else None,
        encoder=described["encoder"],
        samples=described["samples"],
        cached=described["cached"],
    )
    report = {
        **measured,
        "data": description.as_dict(),
        "blend": {
            str(step): {
                name: {"part": round(part, 4), "apgr": round(blend.apgr[name], 4)} for name, part in blend.parts.items()
            }
            for step, blend in lessons.blends.items()
        },
        "training": {
            "best_step": loop.best_step,
            "best_val_loss": loop.best_loss,
            "temperature": config.temperature * lessons.scale,
            "prices": _prices(policy),
            "curves": loop.curves,
        },
    }
    saved = _save(out, manifest, policy, report, test)
    report["policy_version"] = saved.version
    load_policy(out)  # what was written can be read, or this run failed
    shutil.rmtree(work, ignore_errors=True)
    return report


def with_bills(policy: "WheelsPolicy", outcomes: Sequence[Outcome], table: "Table") -> "WheelsPolicy":
    """The policy with what a teacher call will cost, where enough rows say what theirs did."""
    from dataclasses import replace

    import numpy as np

    from training.cost_model import CannotExpectCost, CostConfig, fit_cost
    from training.evaluate import observations

    config = CostConfig(within=0.995)
    try:
        fitted = [fit_cost(table, cost, config, cached=policy.estimators.cached) for cost in table.teacher_costs]
    except CannotExpectCost:
        return policy
    bills = fitted[0]
    known = np.flatnonzero(table.both_known & (table.split != "test"))
    chosen = np.random.default_rng(0).permutation(known)[:TYPICAL]
    kept = [row for row in outcomes if table.draft is None or row.student_response is not None]
    scores = policy.score_batch(observations([kept[i] for i in chosen], policy.steps[-1], 0.2))
    if table.teachers:
        typical = [
            [[teacher.gain, each.expected[i]] for teacher, each in zip(said.teachers, fitted, strict=True)]
            for said, i in zip(scores, chosen, strict=True)
        ]
        return replace(policy, costs=tuple(each.model for each in fitted), typical=np.array(typical))
    gains = [each.details["expected_gain"] for each in scores]
    return replace(policy, cost=bills.model, typical=np.column_stack([gains, bills.expected[chosen]]))


def _priced(table: "Table") -> list[dict[str, Any]]:
    """What the manifest says of several teachers."""
    import numpy as np

    found = []
    for name, cost in zip(table.teachers, table.teacher_costs, strict=True):
        known = cost[~np.isnan(cost)]
        found.append({"name": name, "usd_per_call": round(float(known.mean()), 8) if len(known) else None})
    return found


def refuse_duplicates(outcomes: Sequence[Outcome], paths: Sequence[Path]) -> None:
    """Each row counts once. Raises CannotTrain."""
    counts = Counter(row.id for row in outcomes)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise CannotTrain(f"id {twice!r} occurs in more than one of {', '.join(map(str, paths))}")


def other_models(manifest: Manifest, outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each side whose answers on these rows come from another model than the policy learned from."""
    found = []
    for side in ("student", "teacher"):
        learned, here = getattr(manifest, f"{side}_model"), _only([getattr(row, f"{side}_model") for row in outcomes])
        if learned is not None and here is not None and learned != here:
            found.append(
                f"the policy was trained for the {side} {learned}, and the table holds answers of {here};"
                " it may rank them badly: train one on this table"
            )
    return found


def _refuse_samples(rows: Sequence[Outcome], signals: Signals, wish: SampleWish) -> None:
    if signals == "prompt":
        raise CannotTrain("--samples are compared with the draft; train with --signals draft, or leave --samples out")
    most = max((len(row.student_samples or ()) for row in rows), default=0)
    if most < wish.count:
        held = f"{most} at most" if most else "none"
        raise CannotTrain(
            f"--samples {wish.count}, and the rows hold {held} (column student_samples); tw collect --samples"
            f" {wish.count} asks the student for them"
        )


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in paths}


def shuffled(table: "Table", seed: int) -> "Table":
    """Qualities dealt out again to other rows, pairs kept together: nothing is left to learn."""
    from dataclasses import replace

    import numpy as np

    order = np.random.default_rng(seed).permutation(len(table))
    others = None if table.others is None else table.others[order]
    return replace(table, student=table.student[order], teacher=table.teacher[order], others=others)


def _open_work(work: Path, key: str, *, resume: bool) -> None:
    mark = work / "key"
    same = mark.exists() and mark.read_text() == key
    if resume and work.exists() and not same:
        raise CannotTrain(
            f"{work} belongs to a run with other data, settings or versions; run without --resume to begin anew"
        )
    if work.exists() and not resume:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)


def _estimators(table: "Table", config: "PathConsistencyConfig", work: Path, progress: Progress) -> "Fitted":
    import numpy as np

    from policies.wheels import Estimators
    from training.estimators import Fitted, fit_estimators

    path = work / "estimators.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        draft = arrays.pop("draft_estimates", None)
        return Fitted(Estimators.from_arrays(arrays), arrays.pop("prompt_estimates"), draft)
    stages = 1 if table.draft is None else 2
    progress.stage("fitting estimators", stages * (config.estimators.folds + 1))
    fitted = fit_estimators(table, config.estimators, tick=lambda: progress.tick(1, ""))
    arrays = {**fitted.estimators.arrays(), "prompt_estimates": fitted.prompt_estimates}
    if fitted.draft_estimates is not None:
        arrays["draft_estimates"] = fitted.draft_estimates
    temporary = path.with_name("estimators.tmp.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(path)
    return fitted


def _prices(policy: "WheelsPolicy") -> list[dict[str, float]]:
    """The price of a call at each budget, in quality."""
    import numpy as np

    budgets = np.exp(policy.prices.log_share)
    return [
        {"budget": round(float(budget), 4), "price": round(float(price * policy.scale), 5)}
        for budget, price in zip(budgets, policy.prices.price, strict=True)
    ]


def _save(
    out: Path, manifest: Manifest, policy: "WheelsPolicy", report: dict[str, Any], test: Sequence[Outcome]
) -> Manifest:
    import numpy as np

    from training import plots
    from training.evaluate_several import single_teachers
    from training.evaluation_run import expected_gain

    extra: dict[str, bytes] = {"training.png": plots.training_curves(report["training"]["curves"])}
    if manifest.teachers:
        if report.get("curve"):
            extra["curve.png"] = plots.quality_curve(report, single_teachers(report))
    elif report.get("curve"):
        gain = np.array([(row.teacher_quality or 0.0) - (row.student_quality or 0.0) for row in test])
        extra["curve.png"] = plots.quality_curve(report)
        extra["regret.png"] = plots.regret(report)
        extra["calibration.png"] = plots.calibration(expected_gain(policy, test), gain)
    extra["report.json"] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    return save_artifact(out, manifest, policy.arrays(), extra)
