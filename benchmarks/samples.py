"""What short samples of the student beside its draft buy on the shipped pair, and what they cost in student tokens.

Asks both models of the pair questions that neither was trained on, with `--samples` of the student, and trains the
policy with and without them on the same rows. A sample is a whole answer here: the pair's answers are short.

    python -m benchmarks.samples [--work DIR] [--questions N] [--seeds N] [--out F]
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import torch
from threadpoolctl import threadpool_limits

from benchmarks.shipped_policy import collect, write_prompts
from policies.action import Step
from policies.outcomes import Outcome, read_outcomes
from policies.samples import SampleWish
from training.dataset import build_table
from training.estimators import EstimatorConfig, fit_estimators
from training.evaluate import ranking
from training.learner import PathConsistencyConfig, begin, finish, run
from training.lessons import prepare
from training.metrics import SHARES, apgr, pgr, quality_at
from training.widening import widen

COUNTS = (0, 1, 2, 4)
MOST = max(COUNTS)
TOKENS = 64
BUDGETS = (0.05, 0.1, 0.2, 0.3)


def learn(rows: list[Outcome], count: int, seed: int) -> dict[str, Any]:
    """APGR of the policy that looks at `count` samples, on val and test, and what it recovers at four budgets."""
    wish = SampleWish(count, TOKENS) if count else None
    table, looks = widen(build_table(rows, "draft"), rows, samples=wish)
    config = PathConsistencyConfig(seed=seed, estimators=EstimatorConfig(seed=seed))
    fitted = fit_estimators(table, config.estimators)
    lessons = prepare(table, fitted)
    loop = begin(lessons, config)
    run(loop, lessons, config)
    policy = finish(loop, lessons, looks.given_to(fitted.estimators), table, config, "samples")
    assert lessons.defer is not None
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        chosen = table.rows(split)
        features, student, teacher = lessons.defer[chosen].numpy(), table.student[chosen], table.teacher[chosen]
        scores = np.stack([policy.score_prepared(Step.DEFER, features, float(share)) for share in SHARES])
        found[split] = round(apgr(scores, student, teacher), 4)
        if split == "test":
            found["test_ci95"] = ranking(scores, student, teacher)["apgr_ci95"]
            ends = (float(student.mean()), float(teacher.mean()))
            for budget in BUDGETS:
                at = policy.score_prepared(Step.DEFER, features, budget)
                quality = quality_at(at, student, teacher, np.array([budget]))
                found[f"pgr_{budget}"] = round(float(pgr(quality, *ends)[0]), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/samples"))
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--count", action="append", type=int, help="Samples looked at; repeatable.")
    parser.add_argument("--no-logprobs", action="store_true", help="As if the student's server gave none.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prompts, outcomes = arguments.work / "prompts.jsonl", arguments.work / "outcomes.parquet"
    if not outcomes.exists():
        write_prompts(prompts, arguments.questions)
        collect(arguments.work, prompts, outcomes, "--samples", str(MOST), "--sample-tokens", str(TOKENS))
    counts = arguments.count or list(COUNTS)
    rows = [row for row in read_outcomes(outcomes) if row.student_response is not None]
    if arguments.no_logprobs:
        rows = [replace(row, student_logprobs=None, student_entropies=None) for row in rows]
    told = parquet.read_table(outcomes, columns=["student_tokens_out", "student_sample_tokens"]).to_pydict()
    answer = float(np.mean([value for value in told["student_tokens_out"] if value is not None]))
    sample = float(np.mean([value for value in told["student_sample_tokens"] if value is not None])) / MOST
    torch.set_num_threads(1)
    result: dict[str, Any] = {"rows": len(rows), "answer_tokens": answer, "sample_tokens": sample}
    with threadpool_limits(limits=1):
        for count in counts:
            result[str(count)] = [learn(rows, count, seed) for seed in range(arguments.seeds)]
            print(count, result[str(count)], flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    shares = " | ".join(f"gap at {budget:.0%}" for budget in BUDGETS)
    print(f"{len(rows)} rows; an answer has {answer:.1f} tokens, a sample {sample:.1f}")
    print(f"| samples | APGR val | APGR test | {shares} | student tokens a request |")
    print("|---|---|---|" + "---|" * (len(BUDGETS) + 1))
    for count in counts:
        names = ("val", "test", *(f"pgr_{budget}" for budget in BUDGETS))
        means = [float(np.mean([each[name] for each in result[str(count)]])) for name in names]
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        print(f"| {count or 'none'} | {cells} | {answer + count * sample:.0f} |")


if __name__ == "__main__":
    main()
