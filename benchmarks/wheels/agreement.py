"""Where asking early pays: a made-up language in which the first word decides endings to the end of the sentence.

`python -m benchmarks.wheels.agreement [--quick] [--seeds N]`; needs no data. A sentence names a person, and what that
person does with others. The translation begins with a pronoun for the first person, every verb agrees with it, and each
other person gets an article. Which of four classes a name belongs to has to be known by heart: the teacher does, the
student is too small. So pronoun and articles are equally hard, but a wrong article is one wrong word, and a wrong
pronoun is followed by wrong endings, since the student goes by what it has written, and the teacher by the name.

It is known here what there is to be foreseen, so that a value function that can foresee anything has to show it: the
pronoun is where to ask first. Beside the whole: without the value function; with a critic that knows no more than the
student; with the texts of others alone; at a temperature of 1; and the thresholds.
"""

import json
import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.distill.material import multi30k, translation_pair
from benchmarks.distill.sizes import MEDIUM, Shape
from benchmarks.distill.tables import cell
from benchmarks.wheels.arms import HOT, SHARES, START, WHEELS, made
from benchmarks.wheels.made_up import write_pairs
from benchmarks.wheels.measuring import Bench, bench_of, texts_of
from benchmarks.wheels.right import command, rivals, table, values
from benchmarks.wheels.sizes import SIZES, WheelsSizes
from training.distill.report import write_json
from training.distill.wheels.mixing import Mixed, always, by_help, never
from training.distill.wheels.restrictions import TRAINED, Restriction
from training.distill.wheels.trajectories import ASK, INSIDE

CLAUSES, NOISE = 4, 0.08
"""Persons beside the first; how often a pronoun in the teacher's data is any of the four: so names and not pronouns are
what a teacher goes by. In the student's data pronouns are right."""
FIRST = [a + b for a in "bdfgklmn" for b in "aeiou"]
FAMILY = [a + b + "rs" for a in "bdfgklmn" for b in "aeiou"]
VERBS, WAYS = ([a + b for a in letters for b in ("ap", "ep", "op")] for letters in ("hjpr", "stvz"))
PRONOUNS, ARTICLES, ENDINGS = ("er", "sie", "es", "man"), ("der", "die", "das", "den"), ("xa", "xe", "xo", "xu")
ENDING_PLACES = tuple(2 + 4 * clause for clause in range(CLAUSES))
PLACES = (0, *ENDING_PLACES, *(4 + 4 * clause for clause in range(CLAUSES)))
"""Of endings, and of all that has to be known by heart, among the words of a translation."""
TOLD = SHARES[:-1]
"""Shares of the tables: at half of the tokens every way has everything right."""
ARMS = (WHEELS, "no value function", "critic knows no more", "off-policy only", HOT)

SIZE = WheelsSizes(
    "agreement",
    replace(
        MEDIUM, vocabulary=640, train_rows=24_000, teacher=Shape(128, 344, 3, 4), teacher_epochs=6, teacher_rate=2e-3,
        student=Shape(32, 64, 1, 2), student_epochs=1, context=72, one_start=False,
    ),
    start=800, reading=1_600, steps=800, rounds=8, trajectories=1_024, tested=500, asked=200, timed=20, calibrated=500,
    settled=256,
)  # fmt: skip
QUICK = replace(
    SIZE, name="quick-agreement", start=20, reading=10, steps=20, rounds=2, trajectories=32, tested=20, calibrated=12,
    settled=20, pair=replace(SIZES["quick"].pair, vocabulary=640, train_rows=400, context=72),
)  # fmt: skip


def _class_of(person: Sequence[str]) -> int:
    return random.Random(" ".join(person)).randrange(4)


def sentence(draw: random.Random, *, noise: float) -> tuple[str, str]:
    people = [(draw.choice(FIRST), draw.choice(FAMILY)) for _ in range(CLAUSES + 1)]
    clauses = [(draw.randrange(12), draw.randrange(12), one) for one in people[1:]]
    said = [*people[0]]
    subject = _class_of(people[0])
    translated = [PRONOUNS[draw.randrange(4) if draw.random() < noise else subject]]
    for verb, way, other in clauses:
        said += [VERBS[verb], WAYS[way], *other]
        translated += [VERBS[verb][::-1], ENDINGS[subject], WAYS[way][::-1], ARTICLES[_class_of(other)]]
    return " ".join(said), " ".join(translated)


def agreement(folder: Path, train: int, noise: float = 0.0) -> Path:
    """Writes the splits under `folder` and returns it; the same every time."""
    for split, count in (("train", train), ("val", 1_014), ("test_2016_flickr", 1_000)):
        draw = random.Random(split)
        write_pairs(folder, split, [sentence(draw, noise=noise) for _ in range(count)])
    return folder


def pair_of(pairs: Path, work: Path, size: WheelsSizes, seed: int) -> dict[str, Any]:
    folder = agreement(pairs / "agreement", size.pair.train_rows)
    noisy = agreement(folder / "noisy", size.pair.train_rows, NOISE)
    pair = translation_pair(folder, folder, size.pair, seed, teachers=multi30k(noisy, noisy, size.pair))
    prompts = folder / "prompts.jsonl"
    if not prompts.exists():
        draw = random.Random("prompts")
        count = size.rounds * size.trajectories
        lines = [json.dumps({"prompt": f"{sentence(draw, noise=0.0)[0]} =>"}) + "\n" for _ in range(count)]
        prompts.write_text("".join(lines), encoding="utf-8")
    pair |= {"prompts": prompts, "cache": work / "teacher-cache"}
    pair["student"], _ = made(START, pair, work, size, seed)
    return pair


def right(bench: Bench, texts: Sequence[Mixed]) -> dict[str, float]:
    """Parts of what must be known by heart that are right, and of the pronouns and endings that the teacher wrote."""
    known = asked = endings = 0
    for text, reference in zip(texts, bench.references, strict=False):
        words, wanted = bench.tokenizer.decode(text.tokens, skip_special_tokens=True).split(), reference.split()
        known += sum(place < len(words) and words[place] == wanted[place] for place in PLACES)
        helped = _helped_words(bench, text)
        asked += 0 in helped
        endings += sum(place in helped for place in ENDING_PLACES)
    count = len(texts)
    tokens = sum(len(text.tokens) for text in texts)
    return {
        "share": sum(text.teacher_tokens for text in texts) / tokens,
        "right": known / (count * len(PLACES)),
        "pronouns_asked": asked / count,
        "endings_asked": endings / (count * len(ENDING_PLACES)),
    }


def _helped_words(bench: Bench, text: Mixed) -> set[int]:
    """Numbers of the words that the teacher began."""
    found, word = set(), -1
    for token, acted in zip(text.tokens, text.acted, strict=True):
        piece = bench.tokenizer.decode([token], skip_special_tokens=True)
        if piece.startswith(" ") or word < 0:
            word += 1
            if acted in (ASK, INSIDE):
                found.add(word)
    return found


def of_seed(pairs: Path, work: Path, size: WheelsSizes, seed: int, arms: Sequence[str]) -> dict[str, Any]:
    """Way to ask -> points, for one seed; kept in `work`."""
    file = work / f"agreement-{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    pair = pair_of(pairs, work, size, seed)
    ways: dict[str, list[dict[str, float]]] = {}
    for arm in arms:
        student, _ = made(arm, pair, work, size, seed)
        bench = bench_of(student, pair, size)
        ways[arm] = [
            right(bench, texts_of(bench, bench.test, by_help(), restriction=Restriction(share, TRAINED[0])))
            for share in SHARES
        ]
        ends = [right(bench, texts_of(bench, bench.test, ask)) for ask in (never, always)]
        ways[arm] += ends
        if arm != WHEELS:
            continue
        ways |= rivals(bench, right, ends, (*SHARES, 0.6), (0.1, 0.3, 0.53))
    write_json(file, {"seed": seed, "ways": ways})
    return {"seed": seed, "ways": ways}


def summary(seeds: Sequence[dict[str, Any]]) -> str:
    head = " | ".join(f"{share:.0%}" for share in TOLD)
    lines = table(seeds, TOLD, "words known by heart that are right, %")
    lines += ["", f"| of all pronouns (endings) the teacher wrote, % | {head} |", "|---" * (len(TOLD) + 1) + "|"]
    for way in seeds[0]["ways"]:
        cells = [
            "{} ({})".format(*(cell(values(seeds, way, share, f"{of}_asked"), 0) for of in ("pronouns", "endings")))
            for share in TOLD
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    def one(options: Namespace, work: Path, seed: int) -> dict[str, Any]:
        size = QUICK if options.quick else SIZE
        # Quick: one of each kind shows that they run.
        return of_seed(options.pairs / size.name, work, size, seed, ARMS[:2] if options.quick else ARMS)

    command(__doc__, SIZE.name, one, summary, "words known by heart that are right, %", 35)


if __name__ == "__main__":
    main()
