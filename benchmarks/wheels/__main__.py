"""What training wheels inside the answer buy: `python -m benchmarks.wheels [--quick | --small | --medium] [--seeds N]`.

On Multi30k German-English, same student and sentences for all: quality against the share of teacher tokens for wheels,
random help, thresholds on entropy and on the largest probability, true disagreement (which needs the teacher
everywhere) and speculative decoding; requested against realised share per phrasing; and the wheels with a part left
out. Every arm writes its JSON when it is done and is not run again. Without Multi30k under --data/text a made-up
language pair stands in, to see that everything runs.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.wheels import figures
from benchmarks.wheels.arms import ABLATIONS, BASELINES, CONSISTENCY, LIKENESS, SHARES, WHEELS, made, pair_of, slug
from benchmarks.wheels.curves import THRESHOLD, asked, curves, summary, unsettled
from benchmarks.wheels.measuring import at_share, bench_of, speculative, teacher_texts
from benchmarks.wheels.options import chosen, parser_of
from benchmarks.wheels.sizes import WheelsSizes
from training.distill.report import versions, write_json
from training.distill.wheels.restrictions import HELD_OUT, TRAINED

SIDE = (*BASELINES, "sequence-level distillation", "cross-entropy", CONSISTENCY)
# Those that the gap is compared with, the other reward, and what is left out with little effect have all seeds; the
# other side arms have one.
ALL_SEEDS = (
    "word-level distillation", "cross-entropy", LIKENESS, "no value function", "off-policy only", "one multiplier",
)  # fmt: skip


def headline(data: Path, pairs: Path, work: Path, size: WheelsSizes, seed: int) -> dict[str, Any]:
    """Everything about the wheels of one seed."""
    file = work / f"headline-{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    pair = pair_of(data, pairs, work, size, seed)
    student, report = made(WHEELS, pair, work, size, seed)
    bench = bench_of(student, pair, size)
    told = json.loads((student / "wheels.json").read_text())
    result = {
        "seed": seed,
        **curves(bench, told["offsets"], SHARES, work / "points" / f"seed-{seed}"),
        "asked": asked(bench, told, SHARES, size.asked),
        "training_seconds": report["stages"]["wheels"]["seconds"],
        "multipliers": report["rounds"][-1],
        "unsettled": unsettled(report, SHARES),
    }
    teachers = teacher_texts(bench)
    result["speculative"] = [speculative(teachers, drafted) for drafted in (1, 2, 4, 8)]
    from benchmarks.wheels.clock import timed

    result["clock"] = timed(bench, size.timed, told["offsets"], (0.1, 0.2, 0.3))
    # The quality of each way over all sentences: more than were timed.
    paced = {f"wheels {s:.0%}": at_share(result["curves"]["wheels, paced"], s, "chrf") for s in SHARES}
    alone = {"student": result["student"]["chrf"]}
    for row in result["clock"]:
        row["chrf"] = (paced | alone).get(row["way"], result["teacher"]["chrf"])
    write_json(file, result)
    return result


def side(arm: str, data: Path, pairs: Path, work: Path, size: WheelsSizes, seed: int) -> dict[str, Any]:
    """A baseline without help, word-level distillation also below a threshold; or a curve of a cut-down wheels."""
    file = work / "arms" / f"{slug(arm)}-{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    pair = pair_of(data, pairs, work, size, seed)
    student, report = made(arm, pair, work, size, seed)
    bench = bench_of(student, pair, size)
    result: dict[str, Any] = {"arm": arm, "seed": seed}
    points = work / "points" / f"{slug(arm)}-{seed}"
    if arm in ABLATIONS:
        told = json.loads((student / "wheels.json").read_text())
        result |= curves(bench, told["offsets"], SHARES, points, only=("wheels",))
        result["asked"] = asked(bench, told, SHARES, size.asked, (TRAINED[0], HELD_OUT[0]))
        result["unsettled"] = unsettled(report, SHARES)
    else:
        # The student that learned words alone, helped by the best threshold, is whom the wheels must beat in the end.
        rivals = (THRESHOLD,) if arm == "word-level distillation" else ()
        result |= curves(bench, {}, SHARES, points, only=rivals)
    write_json(file, result)
    return result


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-side", action="store_true", help="the headline only: no baselines, no ablations")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    size, work, pairs = chosen(arguments)
    seeds = 1 if arguments.quick else arguments.seeds
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

    found: list[dict[str, Any]] = []
    others: dict[str, list[dict[str, Any]]] = {}

    def tell() -> str:
        """What there is so far: a run that is stopped leaves its tables."""
        text = summary(found, others, SHARES)
        (work / "wheels.md").write_text(text + "\n")
        write_json(
            work / "wheels.json",
            {
                "size": size.name, "seeds": len(found), "versions": versions(), "seconds": time.monotonic() - began,
                "headline": found, "side": others,
            },
        )  # fmt: skip
        figures.quality_png(found, others, work / "quality.png")
        figures.shares_png(found, work / "shares.png")
        figures.clock_png(found[0], work / "clock.png")
        return text

    for seed in range(seeds):
        say(f"headline, seed {seed}")
        found.append(headline(arguments.data, pairs, work, size, seed))
        tell()
    # One of each kind shows that they run.
    sides = ("no value function", "word-level distillation") if arguments.quick else (*ABLATIONS, *SIDE)
    for arm in () if arguments.no_side else sides:
        for seed in range(seeds if arm in ALL_SEEDS else 1):
            say(f"{arm}, seed {seed}")
            others.setdefault(arm, []).append(side(arm, arguments.data, pairs, work, size, seed))
            tell()
    print(tell())


if __name__ == "__main__":
    main()
