"""How large the experiments with masked diffusion are; the names are those of sizes.py."""

from dataclasses import dataclass

from benchmarks.distill.sizes import Shape


@dataclass(frozen=True, slots=True)
class Texts:
    """One data set. `length`: characters in a text, the begin token not counted; `from_steps`: of the first teacher;
    `rows`, `round_rows`: texts in a step; `sampled`: texts that are measured."""

    length: int
    from_steps: int
    denoiser: Shape
    judge: Shape
    base_steps: int
    judge_steps: int
    round_steps: int
    rows: int
    round_rows: int
    sampled: int
    base_rate: float = 4e-3
    round_rate: float = 1e-3
    digits: int = 2
    """Sums only: of each of both numbers. `length` is a whole number of lines, so that every text begins with one."""
    lines: int = 200_000
    """Sums only: in training and validation together."""


@dataclass(frozen=True, slots=True)
class DiffusionSizes:
    shakespeare: Texts
    sums: Texts
    exact_draws: int = 200
    """Draws per partly masked line in exact_sums.py."""


FULL = DiffusionSizes(
    shakespeare=Texts(length=128, from_steps=128, denoiser=Shape(128, 344, 3, 2), judge=Shape(128, 344, 3, 2),
        base_steps=2_400, judge_steps=450, round_steps=250, rows=64, round_rows=32, sampled=512),
    sums=Texts(length=120, from_steps=128, denoiser=Shape(160, 432, 5, 5), judge=Shape(160, 432, 5, 5),
        base_steps=6_000, judge_steps=1_500, round_steps=800, rows=32, round_rows=32, sampled=512),
)  # fmt: skip

MEDIUM = DiffusionSizes(
    shakespeare=Texts(length=64, from_steps=64, denoiser=Shape(96, 256, 3, 2), judge=Shape(96, 256, 3, 2),
        base_steps=2_400, judge_steps=350, round_steps=250, rows=64, round_rows=32, sampled=256, base_rate=5e-3),
    sums=Texts(length=28, from_steps=32, denoiser=Shape(64, 176, 3, 2), judge=Shape(64, 176, 3, 2), digits=1,
        base_steps=1_100, judge_steps=250, round_steps=80, rows=128, round_rows=64, sampled=512, lines=100_000,
        base_rate=6e-3, round_rate=5e-4),
)  # fmt: skip

SMALL = DiffusionSizes(
    shakespeare=Texts(length=64, from_steps=64, denoiser=Shape(128, 344, 3, 2), judge=Shape(128, 344, 3, 2),
        base_steps=1_000, judge_steps=500, round_steps=100, rows=32, round_rows=32, sampled=256),
    sums=Texts(length=28, from_steps=32, denoiser=Shape(64, 176, 2, 2), judge=Shape(64, 176, 2, 2), digits=1,
        base_steps=1_500, judge_steps=400, round_steps=100, rows=64, round_rows=64, sampled=256, lines=100_000),
)  # fmt: skip

QUICK = DiffusionSizes(
    shakespeare=Texts(length=32, from_steps=32, denoiser=Shape(32, 64, 2, 2), judge=Shape(32, 64, 1, 2),
        base_steps=40, judge_steps=30, round_steps=10, rows=8, round_rows=8, sampled=16),
    sums=Texts(length=28, from_steps=32, denoiser=Shape(32, 64, 2, 2), judge=Shape(32, 64, 2, 2), digits=1,
        base_steps=40, judge_steps=30, round_steps=10, rows=8, round_rows=8, sampled=16, lines=2_000),
    exact_draws=10,
)  # fmt: skip

BY_NAME = {"full": FULL, "medium": MEDIUM, "small": SMALL, "quick": QUICK}
