"""What examples/asking buys: `python -m benchmarks.wheels.asking [--quick] [--seeds N]`. Needs no data.

The commands of docs/distill/first-wheels.md, with several seeds: a student that has learned nothing is distilled from
the shipped teacher, learns to ask it, and answers test questions under sentences. Right answers against the share of
tokens that the teacher writes: wheels, thresholds and chance on the same student, and true disagreement, which needs
the teacher everywhere.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.distill.surroundings import surroundings
from benchmarks.distill.tables import cell
from benchmarks.wheels.measuring import Bench, texts_of
from benchmarks.wheels.right import command, rivals, table
from training.distill.config import DistillConfig
from training.distill.fresh import fresh
from training.distill.models import load_model, load_tokenizer
from training.distill.report import write_json
from training.distill.run import distil
from training.distill.wheels.mixing import Mixed, always, by_disagreement, by_help, never
from training.distill.wheels.prompts import read_examples
from training.distill.wheels.restrictions import HELD_OUT, TRAINED, Restriction
from training.distill.wheels.run import distil_wheels
from training.grading import numeric
from training.pair.questions import Split, distinct

ROOT = Path(__file__).parents[2]
EXAMPLE, TEACHER = ROOT / "examples" / "asking", ROOT / "server" / "shipped" / "teacher"
WHEELS = "wheels"
SAID = (TRAINED[0], TRAINED[4], *HELD_OUT)
"""Phrasings whose shares are measured."""
BEYOND = 0.1
"""Added to the logit of `<help>` for one more point under the loosest sentence."""


@dataclass(frozen=True, slots=True)
class AskingSizes:
    """Questions to learn from, to settle and find thresholds on, to measure on; `shorter`: what is put in the place of
    the example's steps, to see that everything runs."""

    name: str
    train: int
    held: int
    tested: int
    shorter: bool = False


SIZE = AskingSizes("asking", 10_000, 1_000, 1_000)
QUICK = AskingSizes("quick-asking", 200, 60, 40, shorter=True)


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((EXAMPLE / f"{name}.toml").read_text(encoding="utf-8"))
    return found


SHARES: tuple[float, ...] = tuple(example("wheels")["wheels"]["levels"])


def questions(folder: Path, size: AskingSizes) -> dict[str, Path]:
    found: dict[str, Path] = {}
    splits: tuple[tuple[Split, int], ...] = (("train", size.train), ("val", size.held), ("test", size.tested))
    for split, count in splits:
        found[split] = file = folder / f"{split}.jsonl"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(question.lesson()) + "\n" for question in distinct(0, count, split)]
            file.write_text("".join(lines), encoding="utf-8")
    return found


def configuration(
    name: str, files: dict[str, Path], student: Path, out: Path, size: AskingSizes, seed: int
) -> DistillConfig:
    """The example's, with these files."""
    raw = example(name)
    raw |= {"out": str(out), "seed": seed, "student": {"path": str(student)}}
    raw["teacher"] |= {"path": str(TEACHER), "cache": str(files["train"].with_name("teacher-says"))}
    raw["data"] |= {"train": [str(files["train"])], "validation": [str(files["val"])]}
    if size.shorter:
        raw["training"]["steps"] = 20
        raw["data"]["validation_rows"] = 20
        if "wheels" in raw:
            raw["wheels"] |= {"sentence_steps": 10, "rounds": 2, "trajectories": 32}
    return DistillConfig.model_validate(raw)


def made(files: dict[str, Path], work: Path, size: AskingSizes, seed: int) -> Path:
    """The student that has learned to ask."""
    before, out = (work / name / f"seed-{seed}" for name in ("kd", WHEELS))
    if not (before / "report.json").exists():
        untaught = before / "fresh"
        if not untaught.exists():
            fresh(str(TEACHER), untaught, hidden=32, layers=2, heads=2, inner=None, context=1024, seed=seed)
        config = configuration("kd", files, untaught, before, size, seed)
        distil(config, "kd", surroundings(f"kd {seed}"), lambda _name: None)
    if not (out / "report.json").exists():
        config = configuration("wheels", files, before / "student", out, size, seed)
        distil_wheels(config, surroundings(f"{WHEELS} {seed}"), lambda _name: None)
    return out / "student"


def bench_of(student: Path, files: dict[str, Path], size: AskingSizes) -> Bench:
    """References are numbers."""
    tokenizer, theirs = load_tokenizer(str(student), "student"), load_tokenizer(str(TEACHER), "teacher")
    config = configuration("wheels", files, student, student, size, 0).data
    test, _ = read_examples([files["test"]], config, tokenizer, 0)
    held, _ = read_examples([files["val"]], config, tokenizer, 0)
    rows = [json.loads(line) for line in files["test"].read_text(encoding="utf-8").splitlines()]
    return Bench(
        load_model(str(student), "float32", "student").eval(), load_model(str(TEACHER), "float32", "teacher").eval(),
        tokenizer, len(theirs), tokenizer.convert_tokens_to_ids("<help>"), config, config.context, test,
        [row["reference"] for row in rows],
        # The first ones are what the row was settled on.
        held[len(held) // 2 :],
    )  # fmt: skip


def right(bench: Bench, texts: Sequence[Mixed]) -> dict[str, float]:
    said = [bench.tokenizer.decode(text.tokens, skip_special_tokens=True) for text in texts]
    tokens = sum(len(text.tokens) for text in texts)
    return {
        "share": sum(text.teacher_tokens for text in texts) / tokens,
        "right": fmean(numeric(one, reference) for one, reference in zip(said, bench.references, strict=True)),
    }


def of_seed(work: Path, size: AskingSizes, seed: int) -> dict[str, Any]:
    """Way to ask -> points, for one seed, and shares of the wheels by phrasing; kept in `work`."""
    file = work / f"asking-{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    files = questions(work / "questions", size)
    bench = bench_of(made(files, work, size, seed), files, size)
    points: list[dict[str, float]] = []
    asked: list[dict[str, Any]] = []
    for share in SHARES:
        for phrasing in SAID:
            point = right(bench, texts_of(bench, bench.test, by_help(), restriction=Restriction(share, phrasing)))
            if phrasing == TRAINED[0]:
                points.append(point)
            asked.append({"requested": share, "realised": point["share"], "held_out": phrasing in HELD_OUT})
    # So that the last share asked for is on a line, too, where a little less was got.
    most = Restriction(SHARES[-1], TRAINED[0])
    points.append(right(bench, texts_of(bench, bench.test, by_help(BEYOND), restriction=most)))
    ends = [right(bench, texts_of(bench, bench.test, ask)) for ask in (never, always)]
    ways = {WHEELS: points + ends, **rivals(bench, right, ends, (0.01, *SHARES, 0.13), (0.02, 0.06, 0.12))}
    ways["disagreement"] = [right(bench, texts_of(bench, bench.test, by_disagreement(0.0))), *ends]
    found = {"seed": seed, "ways": ways, "asked": asked}
    write_json(file, found)
    return found


def summary(seeds: Sequence[dict[str, Any]]) -> str:
    lines = table(seeds, SHARES, "answers that are right, %")
    alone = cell([100 * seed["ways"][WHEELS][-1]["right"] for seed in seeds], 1)
    lines += ["", f"The teacher alone: {alone}% right."]
    for held in (False, True):
        errors = [
            100 * fmean(abs(row["realised"] - row["requested"]) for row in seed["asked"] if row["held_out"] == held)
            for seed in seeds
        ]
        lines.append(f"Shares in {'held-out' if held else 'trained'} phrasings miss by {cell(errors, 2)} points.")
    return "\n".join(lines)


def main() -> None:
    command(
        __doc__, SIZE.name, lambda options, work, seed: of_seed(work, QUICK if options.quick else SIZE, seed), summary,
        "answers that are right, %", 12,
    )  # fmt: skip


if __name__ == "__main__":
    main()
