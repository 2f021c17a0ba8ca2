"""What a help inside an answer costs beyond the teacher's own writing, with the shipped pair behind a whole gateway.

    python -m benchmarks.help_overhead                          # the embedded engine
    python -m benchmarks.help_overhead --engine vllm            # real vLLM (.venv-vllm), prefix caching on and off

Every answer is cut into helps of k tokens: the student is doubted at each token it begins, so each help is a whole
round: call the student, look at its first token, ask the ledger, leave the student, call the teacher, k tokens, back.
The decision records say how long each turn took. Against it stands the teacher's own time for k tokens in the middle
of a long answer, measured at the same engine right before. Both at two lengths of context, because handing over means
reading the text so far, which prefix caching makes cheap. The machine's load is in the output; compare within one run.
"""

import argparse
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.processes import free_port, serving, tw

ROOT = Path(__file__).parents[1]
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
QUESTION = "Tom has 7 bags with 12 apples each and eats 5 apples. How many apples are left? "
MOST_TOKENS = 96


def measure(engine: str, tokens: int, answers: int, *, caching: bool, exact: bool, folder: Path) -> Iterator[Any]:
    """One gateway: rows for a short and a long context."""
    port = free_port()
    state = folder / f"{engine}-{tokens}-{caching}-{exact}"
    command = tw("serve", "--port", str(port), "--state-dir", str(state), "--engine", engine, "--help-by", "policy")
    command += ["--help-tokens", str(tokens), "--budget", "At most 1000000 calls a day."]
    env = {"TW_HELP__DOUBT": "0.9999999", "TW_HELP__MAX_SEGMENTS": "1000", "TW_HELP__EXACT": str(exact).lower()}
    if engine == "vllm":
        command += ["--vllm-python", str(VLLM)]
        args = [] if caching else ["--no-enable-prefix-caching"]
        env |= {f"TW_{role}__ENGINE_ARGS": json.dumps(args) for role in ("STUDENT", "TEACHER")}
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/readyz", folder / "gateway.log", env=env, timeout_s=600):
        for words, repeats in (("short", 1), ("long", 24)):
            body = {"messages": [{"role": "user", "content": QUESTION * repeats}], "ignore_eos": True, "temperature": 0}
            body |= {"max_tokens": MOST_TOKENS}
            for model in ("teacher", "auto"):  # the first requests warm everything up
                ask(url, {**body, "model": model})
            own, rounds, context = [], [], 0
            for _ in range(answers):
                own.append(per_token_ms(url, {**body, "model": "teacher"}))
                answer, decision = ask(url, {**body, "model": "auto"})
                context = answer["usage"]["prompt_tokens"]
                rounds += list(helps(get(f"{url}/v1/decisions/{decision}")))
            yield {
                "engine": engine,
                "prefix_caching": caching if engine == "vllm" else None,
                "hand_over": "ids" if exact else "text",
                "k": tokens,
                "context": words,
                "prompt_tokens": context,
                **summary(rounds, own, tokens),
            }


def arms(engine: str, only: str | None) -> list[tuple[bool, bool]]:
    """(prefix caching, hand over by token ids). The embedded engine is started with its cache wherever help is on."""
    found = {"ids": (True, True), "text": (True, False)}
    if engine == "vllm":
        found["uncached"] = (False, True)
    return [arm for name, arm in found.items() if only in (None, name)]


def helps(record: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """(the student's turn before it, the teacher's turn) in milliseconds, of each whole help."""
    segments = record["segments"]
    for before, help_ in pairwise(segments):
        if help_["by"] == "teacher" and help_["ended"] == "length" and before["reason"] == "handed_back":
            yield before["latency_ms"], help_["latency_ms"]


def summary(rounds: list[tuple[float, float]], own: list[float], tokens: int) -> dict[str, Any]:
    writing = median(own) * tokens
    over = [student + teacher - writing for student, teacher in rounds]
    deciles = quantiles(over, n=10)
    return {
        "helps": len(rounds),
        "teacher_own_ms": round(writing, 2),
        "teacher_turn_ms": round(median(teacher for _, teacher in rounds), 2),
        "student_turn_ms": round(median(student for student, _ in rounds), 2),
        "overhead_ms": round(median(over), 2),
        "overhead_ms_p10": round(deciles[0], 2),
        "overhead_ms_p90": round(deciles[-1], 2),
        "load": round(os.getloadavg()[0], 1),
    }


def per_token_ms(url: str, body: Mapping[str, Any]) -> float:
    """The teacher's time for one token in the middle of an answer, as a client sees it."""
    request = _request(f"{url}/v1/chat/completions", {**body, "stream": True})
    times = []
    with urllib.request.urlopen(request, timeout=300) as response:
        for line in response:
            if line.startswith(b"data: {"):
                times.append(time.perf_counter())
    return 1000 * (times[-1] - times[1]) / (len(times) - 2)


def ask(url: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    return posted(f"{url}/v1/chat/completions", body)


def posted(url: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The answer, and the id of its decision."""
    with urllib.request.urlopen(_request(url, body), timeout=300) as response:
        return json.load(response), response.headers["x-tw-decision-id"]


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
        return found


def _request(url: str, body: Mapping[str, Any]) -> urllib.request.Request:
    return urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["embedded", "vllm"], default="embedded")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 16], metavar="K")
    parser.add_argument("--answers", type=int, default=4, help="helped answers per row")
    parser.add_argument("--only", choices=["ids", "text", "uncached"], help="one of the three arms")
    parser.add_argument("--out", type=Path, help="where to keep the rows as JSON")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for tokens in options.tokens:
            for caching, exact in arms(options.engine, options.only):
                for row in measure(
                    options.engine, tokens, options.answers, caching=caching, exact=exact, folder=Path(folder)
                ):
                    print(json.dumps(row), flush=True)
                    rows.append(row)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
