"""How large the experiments are. `full` fits two idle CPU cores for about two hours per method, `small` one busy core
for about twenty minutes per method and seed, `quick` three minutes (it shows that everything runs, and proves nothing).
`medium` is what the figures in docs/distill are of: all of Multi30k, models from scratch by Muon, and arms short enough
for three seeds of each on a busy core (a quarter of an epoch).
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    inner: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Translation: rows of Multi30k (those longer than `context` tokens are left out), shapes, epochs of each stage,
    rows per step. `muon`: models from scratch learn by Muon, on rows grouped by length;
    `smoothing`: of the teacher's labels."""

    vocabulary: int
    train_rows: int
    validation_rows: int
    measured_rows: int
    test_rows: int
    context: int
    teacher: Shape
    teacher_epochs: float
    student: Shape
    student_epochs: float
    distil_epochs: float
    rows: int
    teacher_rate: float
    student_rate: float
    evaluate_every: int
    warm_prompts: int
    fresh: Shape
    """The student of the arms that begin with one that has learned nothing, and for how long these run."""
    fresh_epochs: float
    muon: bool = False
    smoothing: float = 0.1
    teacher_rows: int | None = None
    """Per step; None: `rows`."""
    short: float = 0.25
    """Part of `distil_epochs` that the short distillations of warm-up take."""
    one_start: bool = False
    """All seeds begin with the student of seed 0 and differ in which rows they see, and when."""


# On Multi30k a student of 128 x 4 already reaches its teacher; 64 x 2 leaves a gap to see something in.
FULL = Sizes(
    vocabulary=4096, train_rows=29_000, validation_rows=512, measured_rows=1_000, test_rows=1_000, context=128,
    teacher=Shape(320, 864, 5, 5), teacher_epochs=10, student=Shape(64, 176, 2, 2), student_epochs=3, distil_epochs=3,
    rows=64, teacher_rate=1e-3, student_rate=3e-3, evaluate_every=100, warm_prompts=4_000,
    fresh=Shape(96, 256, 2, 3), fresh_epochs=3,
)  # fmt: skip

# A teacher of smoothed labels is never sure, and what it refuses or is asked for says less: so none are smoothed here.
MEDIUM = replace(
    FULL, context=64, teacher=Shape(192, 512, 4, 6), teacher_epochs=5, teacher_rate=2e-3, teacher_rows=64,
    student_epochs=1, distil_epochs=0.25, rows=32, muon=True, smoothing=0.0, validation_rows=256, evaluate_every=56,
    warm_prompts=640, measured_rows=300, test_rows=500, fresh_epochs=0.75,
    one_start=True,
)  # fmt: skip

# Fewer tokens in a step: with so few seconds, more steps teach more than larger ones.
SMALL = Sizes(
    vocabulary=2048, train_rows=29_000, validation_rows=192, measured_rows=384, test_rows=150, context=48,
    teacher=Shape(128, 352, 3, 4), teacher_epochs=2.5, student=Shape(64, 176, 2, 2), student_epochs=0.5,
    distil_epochs=0.75, rows=32, teacher_rate=3e-3, student_rate=3e-3, evaluate_every=40, warm_prompts=1_000,
    fresh=Shape(64, 176, 2, 2), fresh_epochs=0.75,
)  # fmt: skip

QUICK = Sizes(
    vocabulary=512, train_rows=400, validation_rows=40, measured_rows=40, test_rows=20, context=128,
    teacher=Shape(64, 128, 2, 2), teacher_epochs=3, student=Shape(32, 64, 1, 2), student_epochs=1, distil_epochs=1,
    rows=16, teacher_rate=3e-3, student_rate=3e-3, evaluate_every=10, warm_prompts=48,
    fresh=Shape(32, 64, 1, 2), fresh_epochs=1,
)  # fmt: skip
