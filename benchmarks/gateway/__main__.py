"""The gateway against a proxy that does nothing, side by side in alternating rounds.

Everything a request costs is on: routing with the shipped policy, the SQLite ledger under a share cap, the decision
log, metrics. One worker, nginx with a fixed answer behind, wrk in front. The program ends with 1 if the gateway makes
less than 0.4 of the proxy's requests per second, or adds 1.5 ms or more at the median, or did not do what it claims.

    python -m benchmarks.gateway --out benchmarks/out/gateway.json
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.estimates import Estimate, bootstrap, machine, median_difference, median_ratio
from benchmarks.gateway.evidence import Evidence, gather
from benchmarks.gateway.load import Load, wrk
from benchmarks.gateway.nginx import fixed_upstream
from benchmarks.processes import StartFailed, children, cpu_seconds, free_port, serving, tw

LEAST_RATIO = 0.4
MOST_ADDED_MS = 1.5
BUDGET = "At most 20% of requests."
POLICY = Path("server/shipped/policy")


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    busy_s: int
    """Seconds of load with 16 connections, per server and round."""
    lone_s: int
    """Seconds of load with one connection, per server and round."""


FULL = Plan(rounds=7, busy_s=5, lone_s=3)
QUICK = Plan(rounds=3, busy_s=2, lone_s=1)


@dataclass(frozen=True, slots=True)
class Seen:
    """One server in one round."""

    busy: Load
    lone: Load
    cpu_ms: float
    """CPU time of the server per request under load: what a busy machine distorts least."""
    beside_ms: float
    """The same of the processes that it has started (scoring, ledger): work that was moved is still work."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    pid: int | None = None


@contextmanager
def proxy_at(upstream: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.gateway.proxy", "--upstream", upstream, "--port", str(port)]
    with serving(command, f"{url}/v1/models", folder / "proxy.log") as process:
        yield Server(url, process.pid)


@contextmanager
def gateway_at(upstream: str, folder: Path, policy: Path) -> Iterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = tw("serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--budget", BUDGET)
    command += ["--student-url", f"{upstream}/v1", "--teacher-url", f"{upstream}/v1", "--policy", str(policy)]
    state = {"TW_STATE_DIR": str(folder / "state")}
    with serving(command, f"{url}/readyz", folder / "gateway.log", env=state) as process:
        yield Server(url, process.pid)


def run_rounds(plan: Plan, servers: dict[str, Server], console: Console) -> dict[str, list[Seen]]:
    """Rounds in which each server is loaded in turn; who goes first changes with every round."""
    seen: dict[str, list[Seen]] = {name: [] for name in servers}
    for server in servers.values():
        wrk(server.url, connections=16, seconds=1)
    for number in range(plan.rounds):
        order = list(servers) if number % 2 == 0 else list(reversed(servers))
        for name in order:
            server = servers[name]
            before_s, beside_before_s = used(server)
            busy = wrk(server.url, connections=16, seconds=plan.busy_s)
            after_s, beside_after_s = used(server)
            lone = wrk(server.url, connections=1, seconds=plan.lone_s)
            each_ms = 1e3 / max(busy.requests, 1)
            own, beside = (after_s - before_s) * each_ms, (beside_after_s - beside_before_s) * each_ms
            seen[name].append(Seen(busy, lone, own, beside))
            speeds = f"{busy.per_second:8.0f}/s at 16, p50 {lone.p50_ms:.2f} ms alone"
            console.print(f"round {number + 1}/{plan.rounds} {name:8} {speeds}")
    return seen


def used(server: Server) -> tuple[float, float]:
    """CPU seconds of a server so far, and of the processes that it has started."""
    if server.pid is None:
        return 0.0, 0.0
    return cpu_seconds(server.pid), sum(cpu_seconds(child) for child in children(server.pid))


def compare(seen: dict[str, list[Seen]]) -> dict[str, Estimate]:
    pairs = list(zip(seen["proxy"], seen["gateway"], strict=True))
    busy = [(a.busy.per_second, b.busy.per_second) for a, b in pairs]
    over_proxy = [(a.lone.p50_ms, b.lone.p50_ms) for a, b in pairs]
    over_direct = [(a.lone.p50_ms, b.lone.p50_ms) for a, b in zip(seen["direct"], seen["gateway"], strict=True)]
    return {
        "ratio": bootstrap(busy, median_ratio),
        "added_ms_over_direct": bootstrap(over_direct, median_difference),
        "added_ms_over_proxy": bootstrap(over_proxy, median_difference),
    }


def table(seen: dict[str, list[Seen]]) -> Table:
    shown = Table(title="medians over rounds")
    for heading in (
        "server",
        "requests/s at 16",
        "p50 ms at 16",
        "p99 ms at 16",
        "p50 ms alone",
        "p99 ms alone",
        "CPU ms each",
        "beside it",
    ):
        shown.add_column(heading, justify="left" if heading == "server" else "right")
    for name, rounds in seen.items():
        shown.add_row(
            name,
            f"{middle([r.busy.per_second for r in rounds]):.0f}",
            *(
                f"{middle(values):.2f}"
                for values in (
                    [r.busy.p50_ms for r in rounds],
                    [r.busy.p99_ms for r in rounds],
                    [r.lone.p50_ms for r in rounds],
                    [r.lone.p99_ms for r in rounds],
                    [r.cpu_ms for r in rounds],
                    [r.beside_ms for r in rounds],
                )
            ),
        )
    return shown


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def faults(figures: dict[str, Estimate], seen: dict[str, list[Seen]], evidence: Evidence, *, quick: bool) -> list[str]:
    """What must not be; a quick run is too short to judge speed by, and judges the rest."""
    found = list(evidence.faults())
    errors = {name: sum(r.busy.errors + r.lone.errors for r in rounds) for name, rounds in seen.items()}
    found += [f"{count} requests to {name} failed" for name, count in errors.items() if count]
    if not quick and figures["ratio"].value < LEAST_RATIO:
        found.append(f"{figures['ratio'].value:.2f} of the proxy's requests/s is less than {LEAST_RATIO}")
    if not quick and figures["added_ms_over_direct"].value >= MOST_ADDED_MS:
        found.append(f"{figures['added_ms_over_direct'].value:.2f} ms added at the median is {MOST_ADDED_MS} or more")
    return found


def measure(plan: Plan, policy: Path, *, logprobs: bool, console: Console) -> tuple[dict[str, list[Seen]], Evidence]:
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        folder = Path(name)
        with (
            fixed_upstream(folder, logprobs=logprobs) as direct,
            proxy_at(direct, folder) as proxy,
            gateway_at(direct, folder, policy) as gateway,
        ):
            servers = {"direct": Server(direct), "proxy": proxy, "gateway": gateway}
            seen = run_rounds(plan, servers, console)
            sent = sum(load.requests for r in seen["gateway"] for load in (r.busy, r.lone))
            return seen, gather(gateway.url, folder / "state", sent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three short rounds; judges everything but speed")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    console = Console()
    plan = QUICK if arguments.quick else FULL
    report: dict[str, Any] = {"machine": machine(), "plan": asdict(plan), "budget": BUDGET, "bodies": {}}
    wrong: list[str] = []
    try:
        for body, logprobs in (("plain", False), ("with log-probabilities", True)):
            console.rule(f"answers {body}" if logprobs else "plain answers")
            seen, evidence = measure(plan, arguments.policy, logprobs=logprobs, console=console)
            figures = compare(seen)
            console.print(table(seen))
            console.print(f"requests/s, gateway / proxy: {figures['ratio']}")
            console.print(
                f"added p50, ms: {figures['added_ms_over_direct']} over direct, "
                f"{figures['added_ms_over_proxy']} over the proxy"
            )
            console.print(evidence.sentence())
            wrong += [f"answers {body}: {fault}" for fault in faults(figures, seen, evidence, quick=arguments.quick)]
            report["bodies"][body] = {
                **{name: figure.as_dict() for name, figure in figures.items()},
                "evidence": asdict(evidence),
                "rounds": {name: [asdict(r) for r in rounds] for name, rounds in seen.items()},
            }
    except StartFailed as error:
        console.print(f"[red]{error}[/red]")
        return 1
    report["faults"] = wrong
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for fault in wrong:
        console.print(f"[red]{fault}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
