"""wrk, and what it saw."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import StartFailed

SCRIPT = Path(__file__).with_name("chat.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """One run of wrk."""

    requests: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    """Failed connections, reads, writes, time-outs, and answers that were not 2xx or 3xx."""


def wrk(url: str, *, connections: int, seconds: int) -> Load:
    """Raises StartFailed where wrk is missing or could not reach the server."""
    program = shutil.which("wrk")
    if program is None:
        raise StartFailed("wrk is not installed; on Debian and Ubuntu: apt install wrk")
    done = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    report = next((line for line in done.stdout.splitlines() if line.startswith("REPORT ")), None)
    if done.returncode != 0 or report is None:
        raise StartFailed(f"wrk failed on {url}: {done.stderr.strip() or done.stdout.strip()}")
    seen = json.loads(report.removeprefix("REPORT "))
    return Load(
        requests=seen["requests"],
        per_second=seen["requests"] / (seen["duration_us"] / 1e6),
        p50_ms=seen["p50_us"] / 1e3,
        p95_ms=seen["p95_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        errors=sum(seen[kind] for kind in ("connect", "read", "write", "status", "timeout")),
    )
