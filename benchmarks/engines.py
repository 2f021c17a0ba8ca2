"""How fast the embedded engine is: steps of the bare model, and whole requests over HTTP.

    python benchmarks/engines.py server/shipped/student server/shipped/teacher
    python benchmarks/engines.py --generic server/shipped/student      # transformers' own forward instead of numpy

Wall-clock and CPU time both: on a busy machine only the second repeats. One thread per model.
"""

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from statistics import median, quantiles
from typing import Any

BATCHES = (1, 8, 16)
STEPS = 128
PROMPT = 40


def measure_steps(model: str, generic: bool) -> Iterator[dict[str, Any]]:
    """Greedy steps with `PROMPT` tokens before them, batch by batch."""
    import torch
    from transformers import AutoModelForCausalLM

    from server.engines.embedded.loading import load
    from server.engines.embedded.masked import Denoiser
    from server.engines.embedded.runner import TransformersRunner

    loaded = load(model, threads=1)
    if isinstance(loaded.runner, Denoiser):
        raise SystemExit(f"{model} is a masked diffusion model, which takes no step per token")
    runner = loaded.runner
    if generic:
        plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        runner = TransformersRunner(plain, runner.context)
    for batch in BATCHES:
        prompts = [[(7 * i + row) % runner.vocab_size for i in range(PROMPT)] for row in range(batch)]
        for _ in range(2):  # the first round warms up
            wall, cpu = time.perf_counter(), time.process_time()
            tokens = runner.join(prompts).argmax(-1).tolist()
            joined_ms = 1000 * (time.perf_counter() - wall)
            walls = []
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                began = time.perf_counter()
                tokens = runner.step(tokens).argmax(-1).tolist()
                walls.append(1000 * (time.perf_counter() - began))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            runner.clear()
        yield {
            "model": model,
            "parameters": loaded.parameters,
            "runner": type(runner).__name__,
            "batch": batch,
            "join_ms": round(joined_ms, 2),
            "step_ms": round(median(walls), 2),
            "step_cpu_ms": round(1000 * cpu / STEPS, 2),
            "tokens_per_s": round(batch * STEPS / wall),
            "tokens_per_cpu_s": round(batch * STEPS / cpu),
        }


def measure_http(model: str) -> Iterator[dict[str, Any]]:
    """Whole requests of 64 streamed tokens, at 1, 8 and 16 clients."""
    from server.engines import EngineSpec, ManagedEngine

    engine = ManagedEngine(EngineSpec("student", "embedded", model, args=("--threads", "1")))
    began = time.monotonic()
    engine.start()
    try:
        engine.wait_ready(120)
        ready_s = time.monotonic() - began
        for clients in BATCHES:
            result = asyncio.run(_clients(engine.url, clients))
            yield {"model": model, "clients": clients, "ready_s": round(ready_s, 1), **result}
    finally:
        engine.stop()


async def _clients(url: str, clients: int, rounds: int = 6) -> dict[str, Any]:
    import aiohttp

    first_ms: list[float] = []
    whole_ms: list[float] = []
    body = {
        "messages": [{"role": "user", "content": "Anna has 12 apples and gives 5 to Ben. How many are left?"}],
        "max_tokens": 64,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }

    async def ask(session: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        async with session.post(url + "/chat/completions", json=body) as response:
            await response.content.readany()
            first_ms.append(1000 * (time.perf_counter() - began))
            async for _ in response.content.iter_any():
                pass
        whole_ms.append(1000 * (time.perf_counter() - began))

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in range(rounds):
            await ask(session)

    async with aiohttp.ClientSession() as session:
        await ask(session)
        first_ms.clear()
        whole_ms.clear()
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        wall = time.perf_counter() - began
    return {
        "tokens_per_s": round(clients * rounds * 64 / wall),
        "requests_per_s": round(clients * rounds / wall, 1),
        "first_token_ms_p50": round(median(first_ms), 1),
        "answer_ms_p50": round(median(whole_ms), 1),
        "answer_ms_p95": round(quantiles(whole_ms, n=20)[-1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--generic", action="store_true", help="transformers' own forward pass")
    parser.add_argument("--no-http", action="store_true")
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before numpy is imported
    for model in options.models:
        for result in measure_steps(model, options.generic):
            print(json.dumps(result), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for result in [] if options.no_http or options.generic else measure_http(model):
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
