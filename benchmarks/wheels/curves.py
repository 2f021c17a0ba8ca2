"""Points of every way to ask, and what they say about the gap."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.distill.tables import cell
from benchmarks.wheels.measuring import Bench, at_share, measured, quantiles, texts_of
from training.distill.report import write_json
from training.distill.wheels.mixing import (
    always,
    at_random,
    by_disagreement,
    by_entropy,
    by_help,
    by_largest_probability,
    never,
)
from training.distill.wheels.restrictions import HELD_OUT, TRAINED, Restriction

MARGINS = (0.0, 1.0, 2.0)
THRESHOLD = "largest probability"
"""The strongest of those that need no teacher to know when."""
RIVALS = (THRESHOLD, "entropy", "random", "disagreement")


def curves(
    bench: Bench,
    offsets: Mapping[str, float],
    shares: Sequence[float],
    folder: Path,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """`student`: help banned; `teacher`; `told`: help banned under the strictest and the loosest sentence, where wheels
    are measured; `curves`: arm -> points (share, bleu, chrf). Points are kept in `folder`."""

    def point(name: str, **asking: Any) -> dict[str, Any]:
        file = folder / f"{name.replace(' ', '-')}.json"
        if file.exists():
            kept: dict[str, Any] = json.loads(file.read_text())
            return kept
        found = measured(bench, texts_of(bench, bench.test, **asking))
        write_json(file, found)
        return found

    student, teacher = point("student", ask=never), point("teacher", ask=always)
    arms: dict[str, list[dict[str, Any]]] = {}
    told: dict[str, dict[str, Any]] = {}
    wanted = ("wheels", *RIVALS) if only is None else tuple(only)
    # A little denser than asked for, so that lines between points are short.
    dense = sorted({*shares, 0.15, 0.4}) if len(bench.test) > 200 else list(shares)
    if "wheels" in wanted:
        # In words alone, and with the offset that pacing starts from.
        arms["wheels"] = [point(f"wheels {s:g}", ask=by_help(), restriction=Restriction(s, TRAINED[0])) for s in shares]
        last = max(shares)
        # What of a curve is the sentence's doing, and not the help's: words under it, with nobody to ask.
        told = {
            f"{s:g}": _short(point(f"student told {s:g}", ask=never, restriction=Restriction(s, TRAINED[0])))
            for s in (shares[0], shares[-1])
        }
        # So that the last share asked for is on a line, too, where a little less was got.
        beyond = {"ask": by_help(0.1), "restriction": Restriction(last, TRAINED[0])}
        arms["wheels"].append(point(f"wheels {last:g} and a little", **beyond))
        arms["wheels, paced"] = [
            point(f"wheels paced {s:g}", ask=by_help(offsets[f"{s:g}"]), restriction=Restriction(s, TRAINED[0]))
            for s in shares
            if f"{s:g}" in offsets
        ] + arms["wheels"][-1:]
    for signal, asker, sign in (
        ("largest probability", by_largest_probability, -1.0),
        ("entropy", by_entropy, 1.0),
    ):
        if signal in wanted:
            more = [*(dense if signal == "largest probability" else shares), 0.6]
            at = quantiles(bench, more, signal)
            arms[signal] = [point(f"{signal} {s:g}", ask=asker(sign * t)) for s, t in zip(more, at, strict=True)]
    if "random" in wanted:
        arms["random"] = [
            point(f"random {s:g}", ask=at_random(s, torch.Generator().manual_seed(0)))
            # A little above half, so that half itself is on a line.
            for s in (0.1, 0.3, 0.53)
        ]
    if "disagreement" in wanted:
        arms["disagreement"] = [point(f"disagreement {m:g}", ask=by_disagreement(m)) for m in MARGINS]
    for points in arms.values():
        points.append(student)
        points.append(teacher)
    return {
        "student": _short(student),
        "teacher": _short(teacher),
        "told": told,
        "curves": {n: [_short(p) for p in ps] for n, ps in arms.items()},
    }


def _short(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "said"}


def asked(
    bench: Bench,
    told: Mapping[str, Any],
    shares: Sequence[float],
    count: int,
    phrasings: Sequence[str] = (*TRAINED, *HELD_OUT),
) -> list[dict[str, Any]]:
    """Requested and realised share for every one of `phrasings`, by words alone and with the level's offset."""
    rows = []
    for phrasing in phrasings:
        for share in shares:
            restriction = Restriction(share, phrasing)
            row: dict[str, Any] = {"requested": share, "phrasing": phrasing, "held_out": phrasing in HELD_OUT}
            # With the offset for one trained and one held-out phrasing: it is the level's, not the phrasing's.
            paced = {"paced": told["offsets"].get(f"{share:g}", 0.0)} if phrasing in (TRAINED[0], HELD_OUT[0]) else {}
            for name, offset in ({"realised": 0.0} | paced).items():
                texts = texts_of(bench, bench.test[:count], by_help(offset), restriction=restriction)
                row[name] = sum(t.teacher_tokens for t in texts) / sum(len(t.tokens) for t in texts)
            rows.append(row)
    return rows


def unsettled(report: Mapping[str, Any], shares: Sequence[float], rounds: int = 3) -> float:
    """Points by which the shares of the last rounds of training miss what was asked for, each level's mean over them:
    what multipliers alone achieve, before the row is settled."""
    last = [told["share"] for told in report["rounds"][-rounds:]]
    found = []
    for level, share in enumerate(shares):
        seen = [one[level] for one in last if one[level] is not None]
        if seen:
            found.append(100 * abs(fmean(seen) - share))
    return fmean(found)


def closed(seed: Mapping[str, Any], arm: str, share: float, key: str = "chrf") -> float | None:
    """Part of the gap between student and teacher that is closed at `share`."""
    value = at_share(seed["curves"][arm], share, key)
    gap = seed["teacher"][key] - seed["student"][key]
    return None if value is None or gap == 0 else (value - seed["student"][key]) / gap


def _above(one: Sequence[Sequence[float | None]], other: Sequence[Sequence[float | None]]) -> list[str]:
    """Cells of what `one` has more than `other`, (shares, seeds) both, by seed: both began with the same student."""
    return [
        cell([None if a is None or b is None else a - b for a, b in zip(*both, strict=False)], 2)
        for both in zip(one, other, strict=True)
    ]


def summary(
    seeds: Sequence[Mapping[str, Any]], others: Mapping[str, Sequence[Mapping[str, Any]]], shares: Sequence[float]
) -> str:
    """Tables in Markdown. `others`: side arms, with one or more seeds each."""
    head = " | ".join(f"{share:.0%}" for share in shares)
    lines = [f"| chrF gap closed at | {head} |", "|---|" + "---|" * len(shares)]
    for arm in ("wheels", "wheels, paced", *RIVALS):
        cells = []
        for share in shares:
            parts = [closed(seed, arm, share) for seed in seeds]
            cells.append(cell([None if part is None else 100 * part for part in parts], 0))
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    for arm, rival in product(("wheels", "wheels, paced"), RIVALS[:3]):
        cells = []
        for share in shares:
            pairs = [(closed(seed, arm, share), closed(seed, rival, share)) for seed in seeds]
            cells.append(cell([None if a is None or b is None else 100 * (a - b) for a, b in pairs], 0))
        lines.append(f"| {arm}, above {rival}, by seed | {' | '.join(cells)} |")
    lines += ["", "| | BLEU | chrF |", "|---|---|---|"]
    for name in ("student", "teacher"):
        lines.append(
            f"| {name} | {cell([s[name]['bleu'] for s in seeds], 2)} | {cell([s[name]['chrf'] for s in seeds], 2)} |"
        )
    for share in seeds[0]["told"]:
        both = (cell([seed["told"][share][key] for seed in seeds], 2) for key in ("bleu", "chrf"))
        lines.append(f'| student under "at most {float(share):.0%}", help banned | {" | ".join(both)} |')
    for arm, runs in others.items():
        both = (cell([run["student"][key] for run in runs], 2) for key in ("bleu", "chrf"))
        lines.append(f"| {arm} (no help) | {' | '.join(both)} |")
    lines += ["", f"| chrF at | {head} |", "|---|" + "---|" * len(shares)]
    ways = {arm: (seeds, arm) for arm in ("wheels", "wheels, paced", *RIVALS)}
    ways |= {
        f"{arm}, helped by {THRESHOLD}": (runs, THRESHOLD)
        for arm, runs in others.items()
        if THRESHOLD in runs[0]["curves"]
    }
    at = {
        name: [[at_share(run["curves"][curve], share, "chrf") for run in runs] for share in shares]
        for name, (runs, curve) in ways.items()
    }
    for name, columns in at.items():
        lines.append(f"| {name} | {' | '.join(cell(some, 2) for some in columns)} |")
    for name in ways:
        if name in ("wheels", "wheels, paced", "disagreement"):
            continue
        above = _above(at["wheels"], at[name])
        lines.append(f"| wheels, above {name}, by seed | {' | '.join(above)} |")
    ablated = {arm: runs for arm, runs in others.items() if "wheels" in runs[0]["curves"]}
    learned = ways | {arm: (runs, "wheels") for arm, runs in ablated.items()}
    regrets = {
        name: [[at_share(run["curves"][curve], share, "regret") for run in runs] for share in (0.0, *shares)]
        for name, (runs, curve) in learned.items()
    }
    lines += ["", f"| regret, nats per sentence, at | no help | {head} |", "|---|---|" + "---|" * len(shares)]
    for name, columns in regrets.items():
        lines.append(f"| {name} | {' | '.join(cell(some, 2) for some in columns)} |")
    for name, columns in regrets.items():
        if name != "wheels":
            lines.append(f"| wheels, below {name}, by seed | {' | '.join(_above(columns, regrets['wheels']))} |")
    if ablated:
        errors_head = "share error, points | the same before the row is settled"
        lines += ["", f"| left out: chrF at | {head} | {errors_head} |", "|---|" + "---|" * (len(shares) + 2)]
        # The whole was asked in more phrasings than what is left of it.
        common = {row["phrasing"] for runs in ablated.values() for row in runs[0]["asked"]}
        for arm, runs in {"nothing": seeds, **ablated}.items():
            columns = [[at_share(run["curves"]["wheels"], share, "chrf") for run in runs] for share in shares]
            errors = [
                100
                * fmean(abs(row["realised"] - row["requested"]) for row in run["asked"] if row["phrasing"] in common)
                for run in runs
            ]
            before = cell([run["unsettled"] for run in runs], 1)
            lines.append(f"| {arm} | {' | '.join(cell(some, 2) for some in columns)} | {cell(errors, 1)} | {before} |")
            if arm != "nothing":
                above = _above(at["wheels"], columns)
                lines.append(f"| whole above that, by seed | {' | '.join(above)} | | |")
    lines += ["", "| share: mean error, points | words alone | with the level's offset |", "|---|---|---|"]
    for held in (False, True):
        rows = [row for seed in seeds for row in seed["asked"] if row["held_out"] == held]
        errors = [
            100 * fmean(abs(row[name] - row["requested"]) for row in rows if name in row)
            for name in ("realised", "paced")
        ]
        lines.append(f"| {'held-out' if held else 'trained'} phrasings | {errors[0]:.1f} | {errors[1]:.1f} |")
    lines += ["", "| way | CPU ms per token | teacher passes per token |", "|---|---|---|"]
    for row in seeds[0]["clock"]:
        lines.append(f"| {row['way']} | {row['cpu_ms_per_token']:.2f} | {row['passes']:.2f} |")
    lines += ["", "| drafted | acceptance | teacher passes per token |", "|---|---|---|"]
    for row in seeds[0]["speculative"]:
        lines.append(f"| {row['drafted']} | {row['acceptance']:.2f} | {row['passes']:.2f} |")
    return "\n".join(lines)
