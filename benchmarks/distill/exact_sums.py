"""What rounds could reach on sums if the base were perfect and training found the optimum: computed, not trained.

A line `a+b=c` of one-digit numbers is four unknowns (a, b, tens and ones of c), so a denoiser is a table: one row per
partly masked line, one distribution per unknown. The perfect base is Bayes' rule. A round of reverse KL is minimised by
the normalised geometric mean of its targets, one of forward KL by their mean; both are estimated here with many draws
of time and sub-steps per state. Sampling is that of training.distill.diffusion.sampler, in both orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.distill.config import Order
from training.distill.diffusion.sampler import dilated

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZES = (10, 10, 2, 10)
"""Values of a, b, tens and ones; one more stands for MASK."""
MASKS = np.array(SIZES)
SHAPE = tuple(size + 1 for size in SIZES)
STATES: Ints = np.stack([axis.ravel() for axis in np.meshgrid(*map(np.arange, SHAPE), indexing="ij")], axis=1)
LINES: Ints = np.array([(a, b, (a + b) // 10, (a + b) % 10) for a in range(10) for b in range(10)])


PLACES = np.array([0, 2, 4, 5])
"""Of the unknowns in a line."""
LINE = 7
"""Characters of a line, its end included."""
SAID: dict[Order, str] = {"ancestral": "", "dilated": ", dilated"}
"""How arms of an order are called."""


@dataclass(frozen=True, slots=True)
class Tables:
    """`of[j]` (states, SIZES[j]): probabilities of unknown j. `possible` (states,): whether some right sum fits."""

    of: tuple[Floats, ...]
    possible: NDArray[np.bool_]


def perfect(digits: Floats, wrong: float = 1e-3, floor: float = 2e-4) -> Tables:
    """The base for numbers drawn from `digits` (10,). `wrong`: the chance that a revealed value is an error, so that
    impossible lines have an answer too; `floor`: what no network goes below."""
    prior = np.outer(digits, digits).ravel()
    misses = sum(
        ((STATES[:, None, j] != LINES[None, :, j]) & (STATES[:, None, j] != MASKS[j])).astype(np.int64)
        for j in range(4)
    )
    weight = prior * np.float64(wrong) ** misses
    weight /= weight.sum(1, keepdims=True)
    of = []
    for j, size in enumerate(SIZES):
        table = np.stack([weight[:, LINES[:, j] == value].sum(1) for value in range(size)], axis=1) + floor
        of.append(table / table.sum(1, keepdims=True))
    return Tables(tuple(of), np.asarray(misses).min(1) == 0)


def _drawn(table: Floats, rows: Ints, chance: np.random.Generator) -> Ints:
    above = chance.random(len(rows))[:, None] > table[rows].cumsum(1)
    found: Ints = np.minimum(above.sum(1), table.shape[1] - 1)
    return found


def _numbers(lines: Ints) -> Ints:
    return np.asarray(np.ravel_multi_index(tuple(lines.T), SHAPE))


def distilled(teacher: Tables, dt: float, substeps: int, kind: str, chance: np.random.Generator, draws: int) -> Tables:
    """The best student of one round. Noise comes from real lines, so only possible states are learned."""
    masked = (STATES == MASKS).sum(1)
    learned = np.flatnonzero(teacher.possible & (masked > 0))
    lines, count = STATES[learned], masked[learned]
    sums = [np.zeros((len(learned), size)) for size in SIZES]
    for _ in range(draws):
        # t is uniform, and k of four masked have the likelihood t^k (1 - t)^(4 - k).
        times = chance.beta(count + 1, 5 - count)
        current = lines.copy()
        targets = [np.zeros_like(of) for of in sums]
        for substep in range(substeps):
            rows, after = _numbers(current), current.copy()
            t = np.maximum(times - substep * dt, 0.0)
            stays = np.where(t > 0, np.maximum(t - dt, 0.0) / np.maximum(t, 1e-12), 0.0)
            for j in range(4):
                still = current[:, j] == MASKS[j]
                targets[j][still] = teacher.of[j][rows[still]]
                reveal = still & (chance.random(len(still)) >= stays)
                after[reveal, j] = _drawn(teacher.of[j], rows[reveal], chance)
            current = after
        for total, target in zip(sums, targets, strict=True):
            total += np.log(np.maximum(target, 1e-12)) if kind == "reverse" else target
    found = [table.copy() for table in teacher.of]
    for j, total in enumerate(sums):
        open_ = lines[:, j] == MASKS[j]
        found[j][learned[open_]] = _normalised(total[open_] / draws, kind)
    return Tables(tuple(found), teacher.possible)


def distilled_dilated(
    teacher: Tables, steps: int, substeps: int, kind: str, chance: np.random.Generator, draws: int, digits: Floats
) -> Tables:
    """The best student of one round in dilated order, which is to take `steps`: on `draws` thousand right lines of
    numbers drawn from `digits`, each as it is before one of these steps, with targets for all that is masked."""
    sums, seen = [np.zeros((len(STATES), size)) for size in SIZES], [np.zeros(len(STATES)) for _ in SIZES]
    prior = np.outer(digits, digits).ravel() / digits.sum() ** 2
    for _ in range(draws):
        lines = LINES[chance.choice(len(LINES), 1_000, p=prior)]
        at = _revealed_at(len(lines), steps, substeps, chance)
        before = substeps * chance.integers(steps, size=len(lines))[:, None]
        current = np.where(at >= before, MASKS, lines)
        state, masked = _numbers(current), current == MASKS
        targets = [np.zeros((len(lines), size)) for size in SIZES]
        for substep in range(substeps):
            rows, after = _numbers(current), current.copy()
            for j in range(4):
                still = current[:, j] == MASKS[j]
                targets[j][still] = teacher.of[j][rows[still]]
                reveal = still & (at[:, j] == before[:, 0] + substep)
                after[reveal, j] = _drawn(teacher.of[j], rows[reveal], chance)
            current = after
        for j, target in enumerate(targets):
            here = masked[:, j]
            told = np.log(np.maximum(target[here], 1e-12)) if kind == "reverse" else target[here]
            np.add.at(sums[j], state[here], told)
            np.add.at(seen[j], state[here], 1)
    found = [table.copy() for table in teacher.of]
    for j, total in enumerate(sums):
        met = seen[j] > 0
        found[j][met] = _normalised(total[met] / seen[j][met][:, None], kind)
    return Tables(tuple(found), teacher.possible)


def _normalised(mean: Floats, kind: str) -> Floats:
    """(N, size): of the geometric mean that reverse KL leads to, its logarithm."""
    if kind == "reverse":
        mean = np.exp(mean - mean.max(1, keepdims=True))
    found: Floats = mean / mean.sum(1, keepdims=True)
    return found


def _revealed_at(lines: int, steps: int, substeps: int, chance: np.random.Generator) -> Ints:
    """(lines, 4): the sub-step of each unknown in dilated order; a line lies anywhere in a text, and texts have offsets
    of their own."""
    every = steps * substeps
    first = torch.from_numpy(LINE * chance.integers(every, size=lines) + chance.integers(every, size=lines))
    found: Ints = dilated(first[:, None] + torch.from_numpy(PLACES), steps, substeps).numpy()
    return found


def cooled(tables: Tables, temperature: float) -> Tables:
    of = [table ** (1.0 / temperature) for table in tables.of]
    return Tables(tuple(table / table.sum(1, keepdims=True) for table in of), tables.possible)


def sampled(
    tables: Tables, steps: int, chance: np.random.Generator, lines: int, order: Order = "ancestral"
) -> dict[str, Any]:
    """Share of right sums, mean entropy of what was drawn from, entropy of the right lines (at most ln 100 = 4.6)."""
    z = np.tile(MASKS, (lines, 1))
    at = chance.integers(steps, size=(lines, 4)) if order == "ancestral" else _revealed_at(lines, steps, 1, chance)
    entropy, revealed = 0.0, 0
    for number in range(steps):
        rows, after = _numbers(z), z.copy()
        for j in range(4):
            reveal = at[:, j] == number
            table = tables.of[j][rows[reveal]]
            entropy -= float((table * np.log(np.maximum(table, 1e-12))).sum())
            revealed += len(table)
            drawn = table.argmax(1) if number == steps - 1 else _drawn(tables.of[j], rows[reveal], chance)
            after[reveal, j] = drawn
        z = after
    right = z[:, 0] + z[:, 1] == 10 * z[:, 2] + z[:, 3]
    shares = np.bincount(z[right, 0] * 10 + z[right, 1], minlength=100) / max(1, int(right.sum()))
    shares = shares[shares > 0]
    return {
        "valid_sums": float(right.mean()),
        "entropy": entropy / revealed,
        "line_entropy": float(-(shares * np.log(shares)).sum()),
    }


def at_entropy(
    base: Tables, steps: int, wanted: float, chance: np.random.Generator, lines: int, order: Order = "ancestral"
) -> dict[str, Any]:
    low, high = 0.2, 1.4
    for _ in range(8):
        middle = (low + high) / 2
        found = sampled(cooled(base, middle), steps, chance, lines, order)["entropy"]
        low, high = (low, middle) if found > wanted else (middle, high)
    return {**sampled(cooled(base, high), steps, chance, lines, order), "temperature": high}


def run(many: int, rounds: int, m: int, seeds: int, *, draws: int = 200, lines: int = 10_000) -> dict[str, Any]:
    """Arm -> results. Two kinds of numbers: every digit as likely, and small ones likelier (1 / (digit + 1))."""
    found: dict[str, list[dict[str, Any]]] = {}
    few = many // m**rounds
    weights: Sequence[tuple[str, Floats]] = (
        ("even digits", np.ones(10)),
        ("small digits likelier", 1.0 / np.arange(1.0, 11.0, dtype=np.float64)),
    )
    for name, digits in weights:
        base = perfect(digits / digits.sum())
        for seed in range(seeds):
            chance = np.random.default_rng(seed)
            results = {f"base, {steps} steps": sampled(base, steps, chance, lines) for steps in (many, few)}
            for steps in (many, few):
                results[f"base, dilated, {steps} steps"] = sampled(base, steps, chance, lines, "dilated")
            for kind in ("reverse", "forward"):
                student = base
                for number in range(rounds):
                    student = distilled(student, m**number / many, m, kind, chance, draws)
                results[f"rounds, {kind} KL, {few} steps"] = sampled(student, few, chance, lines)
                student = base
                for number in range(1, rounds + 1):
                    student = distilled_dilated(student, many // m**number, m, kind, chance, 5 * draws, digits)
                results[f"rounds, {kind} KL, dilated, {few} steps"] = sampled(student, few, chance, lines, "dilated")
            for order, said in SAID.items():
                wanted = results[f"rounds, reverse KL{said}, {few} steps"]["entropy"]
                results[f"base at the student's entropy{said}, {few} steps"] = at_entropy(
                    base, few, wanted, chance, lines, order
                )
            direct = distilled(base, 1 / many, m**rounds, "reverse", chance, draws)
            results[f"direct m = {m**rounds}, {few} steps"] = sampled(direct, few, chance, lines)
            direct = distilled_dilated(base, few, m**rounds, "reverse", chance, 5 * draws, digits)
            results[f"direct m = {m**rounds}, dilated, {few} steps"] = sampled(direct, few, chance, lines, "dilated")
            results[f"base at temperature 0.3, {few} steps"] = sampled(cooled(base, 0.3), few, chance, lines)
            full, quick = (results[f"base, {steps} steps"]["valid_sums"] for steps in (many, few))
            for arm, one in results.items():
                one["closed"] = {"valid_sums": (one["valid_sums"] - quick) / (full - quick)}
                found.setdefault(f"{name}: {arm}", []).append(one)
    return found
