"""Makes the policy that ships with the shipped pair, with the commands a user would use for a pair of their own.

    tw serve        the pair, under a budget that limits nothing
    tw collect      both models' answers to questions that neither was trained on, graded by number
    tw train policy the policy, from that table

The questions are the pair's validation split; the demonstration asks its test split. An interrupted run goes on from
the table in --work.

    make policy
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.processes import StartFailed, free_port, serving, tw
from policies.artifact import Manifest, save_artifact
from policies.baselines import Levels, Threshold
from training.pair.questions import distinct

QUESTIONS = 6000
SEED = 7
ANY_POLICY = Threshold("logprob_mean", -1.0, Levels(np.linspace(2.0, 1.0, 201)))
"""The gateway wants one; while both sides are asked for by name it decides nothing."""


def write_prompts(path: Path, count: int) -> None:
    """Without their split: `tw train policy` makes splits of its own by hashing the prompts."""
    rows = [question.row() for question in distinct(SEED, count, "val")]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "split"}) + "\n" for row in rows))


def run(command: list[str]) -> None:
    """Raises StartFailed where the command does not end with 0; what it prints is shown."""
    status = subprocess.run(command, check=False).returncode
    if status:
        raise StartFailed(f"{' '.join(command)} ended with {status}")


def collect(work: Path, prompts: Path, outcomes: Path, *more: str) -> None:
    """`more`: further words for `tw collect`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    placeholder = work / "any-policy"
    save_artifact(placeholder, Manifest(kind=ANY_POLICY.kind, name="any", signals="draft"), ANY_POLICY.arrays())
    gateway = tw("serve", "--host", "127.0.0.1", "--port", str(port), "--policy", str(placeholder))
    gateway += ["--state-dir", str(work / "state"), "--budget", "At most 100% of requests."]
    asking = tw("collect", "--prompts", str(prompts), "--out", str(outcomes), "--grade", "numeric")
    asking += ["--student-url", f"{url}/v1", "--teacher-url", f"{url}/v1", "--concurrency", "16", *more]
    with serving(gateway, f"{url}/readyz", work / "gateway.log", timeout_s=180):
        run(asking)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("server/shipped/policy"))
    parser.add_argument("--work", type=Path, default=Path("runs/shipped-policy"))
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prompts, outcomes = arguments.work / "prompts.jsonl", arguments.work / "outcomes.parquet"
    try:
        write_prompts(prompts, arguments.questions)
        collect(arguments.work, prompts, outcomes)
        # A policy is named after the directory it is trained into.
        trained = arguments.work / "shipped-pair"
        training = tw("train", "policy", "--outcomes", str(outcomes), "--out", str(trained))
        run([*training, "--signals", "draft", "--seed", "0"])
        shutil.copytree(trained, arguments.out, dirs_exist_ok=True)
    except StartFailed as error:
        Console(stderr=True).print(f"[red]{error}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
