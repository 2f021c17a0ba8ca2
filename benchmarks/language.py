"""How long a budget in plain words takes to read: `python benchmarks/language.py [--json]`.

Reads every phrasing of the tests many times in one process, and the first text in fresh processes, where importing the
parser and building the grammar are part of the time. All times are CPU time of the thread that reads: reading waits for
nothing, and so the numbers hold on a busy machine too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FIRST = {"en": "Keep the teacher around 20% of requests.", "ja": "リクエストの20%以下"}
# Standard library modules are there already in any gateway; what is timed is our own first reading.
COLD = """
import re, zoneinfo, unicodedata, fractions, decimal, logging, importlib.metadata, time
before = time.thread_time()
from router.language import parse
imported = time.thread_time()
parse({text!r})
print(1000 * (imported - before), 1000 * (time.thread_time() - imported))
"""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def warm(texts: list[str], rounds: int) -> list[float]:
    from router.language import parse

    rates = {"EUR": 1.1, "JPY": 0.0067}
    taken = []
    for _ in range(rounds):
        for text in texts:
            start = time.thread_time()
            parse(text, rates=rates)
            taken.append(1000 * (time.thread_time() - start))
    return taken


def cold(language: str, runs: int) -> tuple[float, float]:
    """Median ms of importing the reader, and of reading a first text, for which the grammar is built."""
    rows = []
    for _ in range(runs):
        command = [sys.executable, "-c", COLD.format(text=FIRST[language])]
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        rows.append(tuple(map(float, out.split())))
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=9, help="fresh processes per language")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    from tests.router.language import phrasings_en, phrasings_ja

    report = {}
    for language, table in (("en", phrasings_en.PHRASINGS), ("ja", phrasings_ja.PHRASINGS)):
        texts = list(table)
        warm(texts, 1)
        taken = warm(texts, arguments.rounds)
        imported, first = cold(language, arguments.runs)
        report[language] = {
            "phrasings": len(texts),
            "median_ms": round(statistics.median(taken), 3),
            "p99_ms": round(percentile(taken, 0.99), 3),
            "max_ms": round(max(taken), 3),
            "first_ms": round(first, 1),
            "import_ms": round(imported, 1),
        }
    if arguments.json:
        print(json.dumps(report))
        return
    for language, row in report.items():
        print(
            f"{language}: {row['phrasings']} phrasings, median {row['median_ms']} ms, p99 {row['p99_ms']} ms, "
            f"max {row['max_ms']} ms; first text in a fresh process {row['first_ms']} ms "
            f"(after {row['import_ms']} ms of imports)"
        )


if __name__ == "__main__":
    main()
