"""What an admission costs: `python -m benchmarks.ledger [--quick] [--out FILE]`.

Every client asks one after the other: each request is counted, one in five asks for the teacher and is settled after.
Three limits are in force (a share, calls a day, dollars a day per key). CPU is per admission, that of the event loop
and of whatever keeps the ledger together: nothing else (`memory`), a thread (`sqlite, thread`: programs that keep a
ledger without a gateway), or a process beside it (`sqlite, process`: the gateway's workers).
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.processes import cpu_seconds
from router.budget import Budget, Limit, Window
from router.ledger import Ask, Settlement, Subject
from server.ledgers import Ledger, LedgerUnavailable
from server.ledgers.memory import MemoryLedger
from server.ledgers.process import ProcessLedger
from server.ledgers.sqlite import SqliteLedger

BUDGET = Budget(
    limits=(
        Limit("cap", "share", 0.2),
        Limit("cap", "calls", 10**9, Window(1, "day")),
        Limit("cap", "usd", 10.0**6, Window(1, "day"), scope="key"),
    )
)
NOW = 1_774_008_000.0


@dataclass(frozen=True)
class Result:
    ledger: str
    workers: int
    concurrent: int
    admissions: int
    admissions_per_s: float
    cpu_us: float
    """Per admission, its share of settlements included."""
    p50_ms: float
    p99_ms: float
    unavailable: int
    """Admissions that took longer than the deadline."""


async def client(ledger: Ledger, name: str, asks: int, latencies_s: list[float]) -> int:
    subject, unavailable = Subject(key=name), 0
    for i in range(asks):
        wants = i % 5 == 4
        ask = Ask(f"{name}-{i}", subject, counts_request=True, wants_teacher=wants, tokens=500, usd=0.01)
        began = time.perf_counter()
        try:
            admission = await ledger.admit(ask, NOW + i * 0.01)
        except LedgerUnavailable:
            unavailable += 1
            continue
        latencies_s.append(time.perf_counter() - began)
        if wants and admission.granted:
            await ledger.settle([Settlement(ask.id, "settled", tokens=321, usd=0.007)], NOW + i * 0.01)
    return unavailable


async def load(ledger: Ledger, name: str, concurrent: int, asks: int) -> tuple[list[float], float, float, int]:
    """(latencies in s, seconds, CPU seconds, unavailable)"""
    latencies_s: list[float] = []
    began, cpu = time.perf_counter(), used_s(ledger)
    clients = (client(ledger, f"{name}-{i}", asks // concurrent, latencies_s) for i in range(concurrent))
    unavailable = sum(await asyncio.gather(*clients))
    return latencies_s, time.perf_counter() - began, used_s(ledger) - cpu, unavailable


def used_s(ledger: Ledger) -> float:
    """CPU seconds of this process so far, and of the ledger's where it has one."""
    beside = ledger.pid if isinstance(ledger, ProcessLedger) else None
    return time.process_time() + (0.0 if beside is None else cpu_seconds(beside))


async def memory() -> Ledger:
    return MemoryLedger()


async def in_thread(path: Path) -> Ledger:
    return SqliteLedger.open(path)


async def in_process(path: Path) -> Ledger:
    return await ProcessLedger.start(path)


def measure(make: Callable[[], Awaitable[Ledger]], ledger: str, concurrent: int, asks: int) -> Result:
    async def run() -> Result:
        subject = await make()
        await subject.set_budget(BUDGET, "benchmark", "benchmark", NOW)
        await load(subject, "warm", concurrent, asks // 10)
        found = await load(subject, "hot", concurrent, asks)
        await subject.close()
        return result(ledger, 1, concurrent, [found])

    return uvloop.run(run())


def worker(path: Path, name: str, concurrent: int, asks: int, out: "multiprocessing.Queue[object]") -> None:
    async def run() -> None:
        ledger = await ProcessLedger.start(path)
        await load(ledger, f"{name}-warm", concurrent, asks // 10)
        out.put(await load(ledger, name, concurrent, asks))
        await ledger.close()

    uvloop.run(run())


def measure_workers(path: Path, workers: int, concurrent: int, asks: int) -> Result:
    async def prepare() -> None:
        ledger = SqliteLedger.open(path)
        await ledger.set_budget(BUDGET, "benchmark", "benchmark", NOW)
        await ledger.close()

    asyncio.run(prepare())
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    started = [context.Process(target=worker, args=(path, f"w{i}", concurrent, asks, out)) for i in range(workers)]
    for each in started:
        each.start()
    found = [out.get(timeout=600) for _ in started]
    for each in started:
        each.join()
    return result("sqlite, process", workers, concurrent, found)


def result(
    ledger: str, workers: int, concurrent: int, found: Sequence[tuple[list[float], float, float, int]]
) -> Result:
    latencies = sorted(each for latencies_s, *_ in found for each in latencies_s)
    return Result(
        ledger=ledger,
        workers=workers,
        concurrent=workers * concurrent,
        admissions=len(latencies),
        admissions_per_s=round(sum(len(latencies_s) / seconds for latencies_s, seconds, *_ in found)),
        cpu_us=round(1e6 * sum(cpu for _, _, cpu, _ in found) / len(latencies), 1),
        p50_ms=round(1e3 * latencies[len(latencies) // 2], 3),
        p99_ms=round(1e3 * latencies[int(0.99 * len(latencies))], 3),
        unavailable=sum(unavailable for *_, unavailable in found),
    )


def table(results: Sequence[Result]) -> str:
    head = "| ledger | workers | concurrent | admissions/s | CPU us | p50 ms | p99 ms | over 50 ms |\n"
    head += "|---|---|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {r.ledger} | {r.workers} | {r.concurrent} | {r.admissions_per_s:,.0f} | {r.cpu_us:.0f} | {r.p50_ms:.2f} "
        f"| {r.p99_ms:.2f} | {r.unavailable} of {r.admissions + r.unavailable} |"
        for r in results
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the admissions")
    parser.add_argument("--out", type=Path, help="also write the results as JSON")
    arguments = parser.parse_args()
    asks = 2_000 if arguments.quick else 20_000
    results = []
    with TemporaryDirectory() as folder:
        for concurrent in (1, 16, 64):
            results.append(measure(memory, "memory", concurrent, asks))
            for name, make in (("thread", in_thread), ("process", in_process)):
                path = Path(folder) / f"{name}-{concurrent}.db"
                results.append(measure(partial(make, path), f"sqlite, {name}", concurrent, asks))
        for workers in (2, 4):
            results.append(measure_workers(Path(folder) / f"w{workers}.db", workers, 16, asks // workers))
    print(table(results))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
