"""Proof that the measured gateway did all of its work: what it wrote down, against what was sent and allowed."""

import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.decision_log import read_rows

SHARE_CAP = 0.2


@dataclass(frozen=True, slots=True)
class Evidence:
    sent: int
    """Answers that wrk counted."""
    logged: int
    """Decisions in the log."""
    teacher_calls: int
    reasons: dict[str, int]
    scored: int
    """Decisions that carry a score of the policy."""
    metrics: int
    """Samples on /metrics."""

    @property
    def share(self) -> float:
        return self.teacher_calls / self.logged if self.logged else 0.0

    def sentence(self) -> str:
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(self.reasons.items()))
        return (
            f"{self.logged} decisions logged for {self.sent} answers, {self.scored} scored by the policy, "
            f"teacher share {self.share:.4f} ({reasons}), {self.metrics} metric samples"
        )

    def faults(self) -> Iterator[str]:
        if self.logged < self.sent:
            yield f"{self.sent} answers were sent and only {self.logged} decisions logged"
        if self.share > SHARE_CAP:
            yield f"the teacher's share was {self.share:.4f}, above its cap of {SHARE_CAP}"
        if self.teacher_calls == 0:
            yield "the teacher was never asked, so nothing was routed"
        if self.scored < self.logged * 0.99:
            yield f"only {self.scored} of {self.logged} decisions were scored by the policy"
        if self.metrics == 0:
            yield "/metrics has no samples"


def gather(url: str, state: Path, sent: int) -> Evidence:
    rows = [row for folder in {path.parent for path in state.rglob("decisions-*.jsonl")} for row in read_rows(folder)]
    records = [row for row in rows if "steps" in row]
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return Evidence(
        sent=sent,
        logged=len(records),
        teacher_calls=sum(row["teacher_calls"] for row in records),
        reasons=dict(Counter(row["reason"] for row in records)),
        scored=sum(any(step["score"] is not None for step in row["steps"]) for row in records),
        metrics=sum(1 for line in lines if line.startswith("tw_")),
    )
