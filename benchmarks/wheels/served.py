"""What a client gets: `python -m benchmarks.wheels.served [--quick | --medium] [--seeds N] [--engine vllm]`.

The pair of benchmarks.wheels behind a whole gateway, test sentences one after the other through /v1/completions, a new
gateway for each budget in words. Wheels that ask by themselves, a student of words alone that the gateway watches, and
both models alone: quality, the share that the teacher wrote, the most that it ever was above what the sentence allows
(after any answer), and the client's milliseconds. Trains what is not there yet.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from rich.progress import track

from benchmarks.distill.measuring import bleu_and_chrf
from benchmarks.distill.tables import cell
from benchmarks.help_overhead import VLLM, get, posted
from benchmarks.processes import free_port, serving, tw
from benchmarks.wheels.arms import SHARES, WHEELS, made, pair_of
from benchmarks.wheels.measuring import LIMIT, bench_of
from benchmarks.wheels.options import chosen, parser_of
from benchmarks.wheels.sizes import WheelsSizes
from training.distill.report import versions, write_json
from training.distill.wheels.restrictions import TRAINED

WORDS = "word-level distillation"
WATCHED = f"{WORDS}, watched by the gateway"
ALONE = "No limit on the teacher."


def settings(way: str) -> dict[str, str]:
    """The environment that switches help on, one token at a time; the sentence is that of training."""
    common = {"TW_HELP__TOKENS": "1", "TW_HELP__MAX_SEGMENTS": "1000", "TW_HELP__RETRY_TOKENS": "4"}
    if way == WATCHED:
        return common | {"TW_HELP__BY": "policy"}
    return common | {
        "TW_HELP__BY": "student",
        "TW_HELP__RESTRICTION": TRAINED[0].replace("{share}", "{percent}%") + "\n{prompt}",
        "TW_HELP__LEVELS": json.dumps([round(100 * share) for share in SHARES]),
    }


def answers(url: str, prompts: Sequence[str], model: str) -> Iterator[dict[str, Any]]:
    """One answer after the other: its text, the client's milliseconds, its tokens and the teacher's."""
    for prompt in prompts:
        began = time.perf_counter()
        body = {"model": model, "prompt": prompt, "max_tokens": LIMIT, "temperature": 0}
        answer, decision = posted(f"{url}/v1/completions", body)
        took = 1000 * (time.perf_counter() - began)
        record, tokens = get(f"{url}/v1/decisions/{decision}"), answer["usage"]["completion_tokens"]
        helped = sum(part["tokens"] for part in record.get("segments") or () if part["by"] == "teacher")
        yield {
            "text": answer["choices"][0]["text"].strip(), "ms": took, "tokens": tokens,
            "teacher": tokens if record["route"] == "teacher" else helped,
        }  # fmt: skip


def row(way: str, asked: float | None, found: Sequence[Mapping[str, Any]], references: Sequence[str]) -> dict[str, Any]:
    """`share`: of tokens, in the end; `most`: the largest that it was after any answer."""
    helped, tokens = (list(accumulate([one[key] for one in found])) for key in ("teacher", "tokens"))
    shares = [some / max(1, of) for some, of in zip(helped, tokens, strict=True)]
    spent = [one["ms"] for one in found]
    return {
        "way": way, "asked": asked, "share": shares[-1], "most": max(shares),
        **bleu_and_chrf([one["text"] for one in found], list(references)),
        "ms": median(spent), "ms_p90": quantiles(spent, n=10)[-1],
    }  # fmt: skip


def measured(
    students: Mapping[str, Path], teacher: Path, tests: Sequence[tuple[str, str]], engine: str, folder: Path
) -> Iterator[dict[str, Any]]:
    """`tests`: prompts and references."""
    prompts, references = [prompt for prompt, _ in tests], [reference for _, reference in tests]

    def behind(way: str, budget: str, models: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Rows for `models` (name of the row -> model that the client asks for) of one gateway."""
        port = free_port()
        command = tw("serve", "--port", str(port), "--state-dir", str(folder / f"state-{port}"), "--engine", engine)
        command += ["--student", str(students[way]), "--teacher", str(teacher), "--budget", budget]
        command += ["--vllm-python", str(VLLM)] if engine == "vllm" else []
        url, asked = f"http://127.0.0.1:{port}", _share(budget)
        with serving(command, f"{url}/readyz", folder / "gateway.log", env=settings(way), timeout_s=600):
            for name, model in models.items():
                told = track(answers(url, prompts, model), f"{name}: {budget}", total=len(prompts), transient=True)
                yield row(name, asked, list(told), references)

    for way in students:
        yield from behind(way, ALONE, {f"{way}: no help": "student"})
        for share in SHARES:
            yield from behind(way, f"At most {share:.0%} of the tokens.", {way: "auto"})
    yield from behind(WHEELS, ALONE, {"teacher": "teacher"})


def _share(budget: str) -> float | None:
    return next((share for share in SHARES if f" {share:.0%} " in budget), None)


def of_seed(pair: dict[str, Any], work: Path, size: WheelsSizes, seed: int, engine: str) -> list[dict[str, Any]]:
    file = work / f"served-{engine}-{seed}.json"
    if file.exists():
        kept: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
        return kept
    students = {WHEELS: made(WHEELS, pair, work, size, seed)[0], WATCHED: made(WORDS, pair, work, size, seed)[0]}
    # Those that the teacher knows how to answer: it has seen no longer texts. benchmarks.wheels measures on the same.
    bench = bench_of(students[WHEELS], pair, size)
    tests = [(str(one.said), reference) for one, reference in zip(bench.test, bench.references, strict=True)]
    found = list(measured(students, Path(pair["teacher"]), tests, engine, work))
    write_json(file, {"rows": found})
    return found


def table(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    lines = [
        "| way | asked | got | at most, ever | chrF | BLEU | ms an answer | 90% |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for same in zip(*seeds, strict=True):
        asked = "" if same[0]["asked"] is None else f"{same[0]['asked']:.0%}"
        parts = [cell([100 * one[key] for one in same], 1) for key in ("share", "most")]
        parts += [cell([one[key] for one in same], 2) for key in ("chrf", "bleu")]
        parts += [cell([one[key] for one in same], 0) for key in ("ms", "ms_p90")]
        lines.append(f"| {same[0]['way']} | {asked} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--engine", choices=["embedded", "vllm"], default="embedded")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size, work, pairs = chosen(arguments)
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(arguments.seeds):
        pair = pair_of(arguments.data, pairs, work, size, seed)
        found.append(of_seed(pair, work, size, seed, arguments.engine))
        write_json(work / f"served-{arguments.engine}.json", {"versions": versions(), "seeds": found})
    print(table(found))


if __name__ == "__main__":
    main()
