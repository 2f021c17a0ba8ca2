"""What a sentence encoder adds where only the prompt is seen: APGR with and without, and its time per prompt.

How many numbers are kept of it (none among the choices) is chosen on the validation split; the test figure of every
choice is printed as well.

    python -m benchmarks.encoder --encoder DIR --data DIR [--table NAME ...] [--size N ...] [--seeds N] [--out F]
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.tables import tables_in
from policies.action import Step
from policies.features import prompt_of
from policies.outcomes import Outcome, sample_outcomes
from policies.prompt_features import Floats, read_prompt
from policies.sentences import find_encoder
from training.dataset import Table, build_table
from training.estimators import EstimatorConfig, fit_estimators
from training.evaluate import ranking
from training.learner import PathConsistencyConfig, begin, finish, run
from training.lessons import prepare
from training.metrics import SHARES, apgr
from training.sentences import fit_sentences, read_all

TABLES = ("gsm8k-mixtral-gpt4", "mmlu-mixtral-gpt4")
SIZES = (0, 16, 32, 64)
"""Numbers kept; 0: no encoder."""


def learn(table: Table, seed: int) -> dict[str, Any]:
    """APGR on val and on test of the policy trained on this table, which may be widened."""
    config = PathConsistencyConfig(seed=seed, estimators=EstimatorConfig(seed=seed))
    fitted = fit_estimators(table, config.estimators)
    lessons = prepare(table, fitted)
    loop = begin(lessons, config)
    run(loop, lessons, config)
    policy = finish(loop, lessons, fitted.estimators, table, config, "encoder")
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        chosen = table.rows(split)
        features = lessons.route[chosen].numpy()
        scores = np.stack([policy.score_prepared(Step.ROUTE, features, float(share)) for share in SHARES])
        student, teacher = table.student[chosen], table.teacher[chosen]
        if split == "val":
            # These rows have taught the estimators, but what those say of them is out of fold.
            found["val"] = round(apgr(scores, student, teacher), 4)
        else:
            measured = ranking(scores, student, teacher)
            found |= {"test": measured["apgr"], "test_ci95": measured["apgr_ci95"]}
    return found


def times(encoder: Any, texts: list[str], count: int = 200) -> dict[str, float]:
    """Milliseconds of one thread per prompt, median and 95%, of the plain features and of the encoder."""
    chosen = [texts[i] for i in np.random.default_rng(0).choice(len(texts), min(count, len(texts)), replace=False)]
    encoder.warm()
    spent: list[float] = []
    for text in chosen:
        began = time.thread_time()
        encoder.read([f"{text} "])  # another text than before, or it would be remembered
        spent.append((time.thread_time() - began) * 1e3)
    return {"p50_ms": round(float(np.quantile(spent, 0.5)), 2), "p95_ms": round(float(np.quantile(spent, 0.95)), 2)}


def plain_ms(rows: list[Outcome]) -> float:
    began = time.thread_time()
    for row in rows[:500]:
        read_prompt(prompt_of(row))
    return round((time.thread_time() - began) * 1e3 / len(rows[:500]), 3)


def measure(data: Path, name: str, encoder_name: str, seeds: int, sizes: list[int], most: int) -> dict[str, Any]:
    rows = sample_outcomes(tables_in(data) / f"{name}.parquet", most=most).rows
    table = build_table(rows, "prompt")
    encoder = find_encoder(encoder_name)
    texts = [prompt_of(row).last_user for row in rows]
    result: dict[str, Any] = {"rows": len(rows), "plain_ms": plain_ms(rows), **times(encoder, texts)}
    print(f"{name}: encoder {result['p50_ms']} ms (95%: {result['p95_ms']}), plain features {result['plain_ms']} ms")
    vectors = read_all(encoder, texts)
    for size in sizes:
        result[str(size)] = [learn(widened(table, encoder, vectors, size), seed) for seed in range(seeds)]
        print(f"{name}, {size} numbers: {result[str(size)]}", flush=True)
    val = {size: float(np.mean([each["val"] for each in result[str(size)]])) for size in sizes}
    result["chosen"] = max(val, key=lambda size: val[size])
    return result


def widened(table: Table, encoder: Any, vectors: Floats, size: int) -> Table:
    if size == 0:
        return table
    sentences = fit_sentences(encoder, vectors, table.split == "train", size)
    return replace(table, prompt=np.hstack([table.prompt, sentences.project(vectors)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--table", action="append")
    parser.add_argument("--size", action="append", type=int, help="Numbers kept; 0: no encoder. Repeatable.")
    parser.add_argument("--most-rows", type=int, default=1_000_000, help="Of a larger table a sample of this size.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = arguments.size or list(SIZES)
    found: dict[str, Any] = {}
    with threadpool_limits(limits=1):
        for name in arguments.table or TABLES:
            found[name] = measure(arguments.data, name, arguments.encoder, arguments.seeds, sizes, arguments.most_rows)
            if arguments.out is not None:
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    kept = " | ".join(f"{size} numbers" if size else "without" for size in sizes)
    print(f"| table | rows | {kept} | chosen on val | ms per prompt, plain / encoder |")
    print("|---|---|" + "---|" * (len(sizes) + 2))
    for name, each in found.items():
        cells = " | ".join(f"{np.mean([one['test'] for one in each[str(size)]]):.3f}" for size in sizes)
        last = f"{each['chosen'] or 'none'} | {each['plain_ms']} / {each['p50_ms']}"
        print(f"| {name} | {each['rows']} | {cells} | {last} |")


if __name__ == "__main__":
    main()
