"""Questions with numbers, made from a seed: arithmetic and small word problems, each with its worked answer.

A question is a group (the kind of calculation), numbers, and a wording; its answer follows from the numbers alone.
Which split a question belongs to is read off a hash of its prompt, so a held-out question can never be trained on,
whoever makes questions, with whatever seed. Pure: chance comes in as a `random.Random`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final, Literal, get_args

from training.pair.phrases import NAMES, PACKS, TEMPLATES, THINGS

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `reference` is the exact number as text, `worked` the step-by-step answer the teacher learns."""

    prompt: str
    reference: str
    worked: str
    group: str
    split: Split

    @property
    def id(self) -> str:
        return hashlib.sha256(self.prompt.encode()).hexdigest()[:16]

    def row(self) -> dict[str, str]:
        """What `tw collect` reads: id, prompt, reference, group, split."""
        fields = asdict(self)
        del fields["worked"]
        return {"id": self.id, **fields}

    def lesson(self) -> dict[str, Any]:
        """What `tw distill` reads: messages, the worked answer as the last; reference, group, split."""
        said = [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.worked}]
        return {"messages": said, "reference": self.reference, "group": self.group, "split": self.split}


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one question by placeholder, its steps in words, and its result."""

    values: Mapping[str, int | str]
    steps: tuple[str, ...]
    result: int


def split_of(prompt: str) -> Split:
    """Eight tenths train, one val, one test, by a hash of the prompt."""
    bucket = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % 10
    if bucket == 0:
        return "test"
    return "val" if bucket == 1 else "train"


def plus(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}."


def minus(a: int, b: int) -> str:
    return f"{a} - {b} = {a - b}."


def times(a: int, b: int) -> str:
    """Tens and ones apart where the tables end: a small model adds better than it multiplies."""
    small, large = min(a, b), max(a, b)
    if large <= 12 or large % 10 == 0:
        return f"{a} * {b} = {a * b}."
    tens = large - large % 10
    return f"{a} * {b} = {small * tens} + {small * (large - tens)} = {a * b}."


def over(a: int, b: int) -> str:
    return f"{a} / {b} = {a // b}."


def _sum(r: Random) -> Numbers:
    a, b = r.randint(2, 99), r.randint(2, 99)
    return Numbers({"a": a, "b": b}, (plus(a, b),), a + b)


def _difference(r: Random) -> Numbers:
    b, c = r.randint(2, 60), r.randint(1, 60)
    return Numbers({"a": b + c, "b": b}, (minus(b + c, b),), c)


def _product(r: Random) -> Numbers:
    a, b = r.randint(2, 12), r.randint(2, 12)
    return Numbers({"a": a, "b": b}, (times(a, b),), a * b)


def _quotient(r: Random) -> Numbers:
    b, c = r.randint(2, 12), r.randint(2, 12)
    return Numbers({"a": b * c, "b": b}, (over(b * c, b),), c)


def _large_product(r: Random) -> Numbers:
    a, b = r.randint(3, 9), r.randint(13, 99)
    return Numbers({"a": a, "b": b}, (times(a, b),), a * b)


def _bags(r: Random) -> Numbers:
    a, b, c = r.randint(3, 80), r.randint(2, 9), r.randint(3, 12)
    return Numbers({"a": a, "b": b, "c": c}, (times(b, c), plus(a, b * c)), a + b * c)


def _in_and_out(r: Random) -> Numbers:
    a, b = r.randint(10, 90), r.randint(5, 60)
    c = r.randint(3, a + b - 2)
    return Numbers({"a": a, "b": b, "c": c}, (plus(a, b), minus(a + b, c)), a + b - c)


def _compare(r: Random) -> Numbers:
    a, b = r.randint(3, 60), r.randint(3, 40)
    return Numbers({"a": a, "b": b}, (plus(a, b), plus(a, a + b)), a + a + b)


def _times_as_many(r: Random) -> Numbers:
    a, b = r.randint(3, 30), r.randint(2, 6)
    return Numbers({"a": a, "b": b}, (times(b, a), plus(a, a * b)), a + a * b)


def _shopping(r: Random) -> Numbers:
    a, b, c, d = r.randint(2, 9), r.randint(2, 12), r.randint(2, 9), r.randint(3, 12)
    values = {"a": a, "b": b, "c": c, "d": d}
    return Numbers(values, (times(a, b), times(c, d), plus(a * b, c * d)), a * b + c * d)


def _change(r: Random) -> Numbers:
    b, c = r.randint(2, 9), r.randint(3, 12)
    a = r.choice((50, 100, 200)) if r.random() < 0.3 else b * c + r.randint(2, 90)
    if a <= b * c:
        a = 200
    return Numbers({"a": a, "b": b, "c": c}, (times(b, c), minus(a, b * c)), a - b * c)


def _seats(r: Random) -> Numbers:
    a, b, c = r.randint(2, 9), r.randint(3, 12), r.randint(3, 40)
    d = r.randint(2, a * b + c - 1)
    values = {"a": a, "b": b, "c": c, "d": d}
    return Numbers(values, (times(a, b), plus(a * b, c), minus(a * b + c, d)), a * b + c - d)


def _chain(r: Random) -> Numbers:
    shape = r.randrange(5)
    a, b, c = r.randint(10, 90), r.randint(2, 9), r.randint(3, 12)
    if shape == 0:
        return Numbers({"e": f"{a} + {b} * {c}"}, (times(b, c), plus(a, b * c)), a + b * c)
    if shape == 1:
        return Numbers({"e": f"{b} * {c} + {a}"}, (times(b, c), plus(b * c, a)), b * c + a)
    if shape == 2:
        a, d = r.randint(3, 20), r.randint(2, 20)
        return Numbers({"e": f"({a} + {d}) * {b}"}, (plus(a, d), times(a + d, b)), (a + d) * b)
    if shape == 3:
        a += b * c
        return Numbers({"e": f"{a} - {b} * {c}"}, (times(b, c), minus(a, b * c)), a - b * c)
    d, f = r.randint(5, 60), r.randint(3, 60)
    f = min(f, a + d - 1)
    return Numbers({"e": f"{a} + {d} - {f}"}, (plus(a, d), minus(a + d, f)), a + d - f)


DRAWS: Final[Mapping[str, Callable[[Random], Numbers]]] = {
    "sum": _sum,
    "difference": _difference,
    "product": _product,
    "quotient": _quotient,
    "gain": _sum,
    "loss": _difference,
    "groups": _product,
    "share": _quotient,
    "large product": _large_product,
    "bags": _bags,
    "in and out": _in_and_out,
    "compare": _compare,
    "times as many": _times_as_many,
    "shopping": _shopping,
    "change": _change,
    "seats": _seats,
    "chain": _chain,
}

# What is asked: mostly one step, as at a till, and about a third that take more or leave the tables.
ASKED: Final[Mapping[str, float]] = {
    "sum": 0.10, "difference": 0.08, "product": 0.07, "quotient": 0.06,
    "gain": 0.10, "loss": 0.09, "groups": 0.08, "share": 0.06,
    "large product": 0.03, "bags": 0.05, "in and out": 0.05, "compare": 0.04, "times as many": 0.04,
    "shopping": 0.04, "change": 0.04, "seats": 0.04, "chain": 0.03,
}  # fmt: skip


def make(rng: Random, shares: Mapping[str, float] = ASKED) -> Question:
    """One question of any split; `shares` says how often each group comes."""
    group = rng.choices(tuple(shares), tuple(shares.values()))[0]
    numbers = DRAWS[group](rng)
    (name, he), (other, _) = rng.sample(NAMES, 2)
    template = rng.choice(TEMPLATES["chain ask" if group == "chain" else group])
    words = {"name": name, "other": other, "he": he, "things": rng.choice(THINGS), "packs": rng.choice(PACKS)}
    prompt = template.format(**words, **numbers.values).replace(". she ", ". She ").replace(". he ", ". He ")
    worked = f"{' '.join(numbers.steps)}\nThe answer is {numbers.result}."
    return Question(prompt, str(numbers.result), worked, group, split_of(prompt))


def stream(rng: Random, split: Split, shares: Mapping[str, float] = ASKED) -> Iterator[Question]:
    """Questions of one split without end; the same question may come again."""
    while True:
        question = make(rng, shares)
        if question.split == split:
            yield question


def distinct(seed: int, count: int, split: Split | None) -> list[Question]:
    """`count` different questions of one split (of all three where None), in the order drawn.

    Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"the number of questions is {count}; ask for 0 or more")
    rng = Random(f"questions-{seed}")
    found: dict[str, Question] = {}
    while len(found) < count:
        question = make(rng)
        if split is None or question.split == split:
            found.setdefault(question.prompt, question)
    return list(found.values())
