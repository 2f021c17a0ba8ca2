"""How far tables may grow: seconds of reading and peak memory while `tw train policy` draws the rows it learns from.

Makes Parquet tables (14 columns, short prompts, drafts) in a temporary folder and reads each in its own process, like
`tw train policy --most-rows`: rows are streamed, and a sample of them stays in memory.

    python -m benchmarks.scale [--most N] [--smallest N] [--largest N] [--train] [--out F]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from policies.outcomes import sample_outcomes

SIZES = (1_000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
CHUNK = 250_000
"""Rows made at one time."""


def chunk(first: int, count: int) -> arrow.Table:
    """Rows `first` to `first + count`: short sums, on which the student fails more the larger they are."""
    rng = np.random.default_rng(first)
    a, b = rng.integers(2, 999, count), rng.integers(2, 999, count)
    right = rng.random(count) < np.where(a * b > 100_000, 0.4, 0.85)
    said = np.where(right, a * b, a * b + rng.choice([-10, 1, 10, 100], count))
    number = np.arange(first, first + count)

    def text(*parts: Any) -> arrow.Array:
        columns = [part if isinstance(part, str) else compute.cast(arrow.array(part), arrow.string()) for part in parts]
        return compute.binary_join_element_wise(*columns, "")

    return arrow.table(
        {
            "id": text("row-", number),
            "prompt": text("A box holds ", a, " rows of ", b, " apples. How many apples are there? (", number, ")"),
            "group": text("group ", number % 20),
            "split": compute.take(
                arrow.array(["train", "val", "test"]), arrow.array(rng.choice(3, count, p=(0.6, 0.1, 0.3)))
            ),
            "student_model": arrow.array(["small"] * count).dictionary_encode().cast(arrow.string()),
            "teacher_model": arrow.array(["large"] * count).dictionary_encode().cast(arrow.string()),
            "student_response": text(a, " * ", b, " = ", said, ". The answer is ", said, "."),
            "teacher_response": text("The answer is ", a * b, "."),
            "student_quality": right.astype(np.float64),
            "teacher_quality": (rng.random(count) < 0.9).astype(np.float64),
            "student_cost": rng.random(count) * 1e-5,
            "teacher_cost": rng.random(count) * 1e-3,
            "student_finish_reason": arrow.array(["stop"] * count),
            "reference": text(a * b),
        }
    )


def write(path: Path, rows: int) -> None:
    """Chunk by chunk, so that making a table takes no more memory than a chunk."""
    writer: parquet.ParquetWriter | None = None
    for first in range(0, rows, CHUNK):
        table = chunk(first, min(CHUNK, rows - first))
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def peak_mb() -> float:
    # Linux gives kilobytes, macOS bytes.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20) if sys.platform == "darwin" else used / 1024


def read(path: Path, most: int) -> dict[str, Any]:
    before = peak_mb()
    began, cpu = time.monotonic(), time.process_time()
    sample = sample_outcomes(path, most=most)
    return {
        "rows": sample.seen,
        "kept": len(sample.rows),
        "seconds": round(time.monotonic() - began, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mb": round(peak_mb()),
        "before_mb": round(before),
    }


def train(path: Path, out: Path, most: int) -> dict[str, Any]:
    """The whole command on a sample."""
    began = time.monotonic()
    command = [sys.executable, "-c", "from server.cli import main; main()", "train", "policy", "--outcomes", str(path)]
    command += ["--out", str(out), "--signals", "draft", "--most-rows", str(most), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-500:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    apgr = json.loads(done.stdout)["apgr"]
    return {"train_seconds": round(time.monotonic() - began), "train_peak_mb": round(used), "apgr": apgr}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=20_000, help="Rows kept.")
    parser.add_argument("--smallest", type=int, default=SIZES[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--train", action="store_true", help="Train on the largest as well.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        print(json.dumps(read(arguments.read, arguments.most)))
        return
    found: list[dict[str, Any]] = []
    print("| rows | file MB | rows kept | seconds | of them CPU | peak memory MB |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for rows in [size for size in SIZES if arguments.smallest <= size <= arguments.largest]:
            path = Path(folder) / f"{rows}.parquet"
            write(path, rows)
            command = [sys.executable, "-m", "benchmarks.scale", "--read", str(path), "--most", str(arguments.most)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            each = {"file_mb": round(path.stat().st_size / 1e6, 1), **json.loads(said)}
            found.append(each)
            cells = (f"{rows:,}", each["file_mb"], f"{each['kept']:,}", each["seconds"], each["cpu_s"], each["peak_mb"])
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            if arguments.train and rows == arguments.largest:
                each |= train(path, Path(folder) / "policy", arguments.most)
                print(f"trained: {each['train_seconds']} s, {each['train_peak_mb']} MB, APGR {each['apgr']}")
            path.unlink()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
