"""How large the experiment is: the pair's sizes are those of benchmarks/distill, the rest is here."""

from dataclasses import dataclass

from benchmarks.distill.sizes import FULL, MEDIUM, QUICK, SMALL, Sizes


@dataclass(frozen=True, slots=True)
class WheelsSizes:
    """`start`: steps of word-level distillation that make the student which every arm begins with: one that has much
    left to learn about words would lose that to learning when to ask. Then arms with help have `reading` more with
    sentences before the prompts, and `steps` of wheels; the others have as many of their own. `rounds` of
    `trajectories` texts; `tested` sentences for quality, `asked` for shares, `timed` for the clock; validation
    sentences: the first `settled` for the row of `<help>`, the last `calibrated` for thresholds."""

    name: str
    pair: Sizes
    start: int
    reading: int
    steps: int
    rounds: int
    trajectories: int
    tested: int
    asked: int
    timed: int
    calibrated: int
    settled: int


SIZES = {
    "full": WheelsSizes("full", FULL, 3_600, 1_800, 1_800, 30, 2_048, 1_000, 500, 100, 300, 512),
    "medium": WheelsSizes("medium", MEDIUM, 4_300, 2_000, 1_000, 8, 1_024, 1_000, 200, 40, 500, 512),
    "small": WheelsSizes("small", SMALL, 900, 200, 400, 8, 512, 400, 40, 8, 64, 192),
    "quick": WheelsSizes("quick", QUICK, 30, 10, 30, 3, 48, 20, 12, 4, 12, 40),
}
