"""What the recipe is made of: sizes, steps, seeds. Frozen, printed at the start, saved beside the checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

Role = Literal["student", "teacher"]
ROLES: Final[tuple[Role, ...]] = ("student", "teacher")

# The student is to be sure of what takes one step, so it sees more of that than is asked.
PRACTISED: Final[Mapping[str, float]] = {
    "sum": 0.11, "difference": 0.09, "product": 0.09, "quotient": 0.06,
    "gain": 0.10, "loss": 0.09, "groups": 0.10, "share": 0.06,
    "large product": 0.03, "bags": 0.04, "in and out": 0.04, "compare": 0.03, "times as many": 0.03,
    "shopping": 0.03, "change": 0.04, "seats": 0.03, "chain": 0.03,
}  # fmt: skip

# The teacher sees the groups with several steps more often than they are asked, because their steps hold all it
# needs for the easy ones as well.
TAUGHT: Final[Mapping[str, float]] = {
    "sum": 0.10, "difference": 0.10, "product": 0.05, "quotient": 0.06,
    "gain": 0.06, "loss": 0.07, "groups": 0.04, "share": 0.05,
    "large product": 0.09, "bags": 0.05, "in and out": 0.06, "compare": 0.04, "times as many": 0.04,
    "shopping": 0.04, "change": 0.05, "seats": 0.04, "chain": 0.06,
}  # fmt: skip


# At the end the teacher repeats what is slowest to learn: taking away, alone and after other steps.
REPEATED: Final[Mapping[str, float]] = {
    "sum": 0.02, "difference": 0.24, "product": 0.01, "quotient": 0.01,
    "gain": 0.01, "loss": 0.20, "groups": 0.01, "share": 0.01,
    "large product": 0.03, "bags": 0.04, "in and out": 0.09, "compare": 0.03, "times as many": 0.01,
    "shopping": 0.01, "change": 0.11, "seats": 0.09, "chain": 0.08,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama: `heads` of `hidden / heads` dimensions, tied embeddings."""

    hidden: int
    inner: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Stage:
    """`steps` steps of a course on questions of these `shares`, with `layers` layers.

    The learning rate is `scale` times the course's: it rises over `warmup` steps and falls to zero over the last
    `decay` share of the stage.
    """

    steps: int
    shares: Mapping[str, float]
    layers: int
    scale: float = 1.0
    warmup: int = 100
    decay: float = 0.3


@dataclass(frozen=True, slots=True)
class Course:
    """How one model is trained: stage after stage, in steps of `rows` rows of `row_tokens` tokens. `worked` says
    whether it learns the steps or the number alone."""

    shape: Shape
    stages: tuple[Stage, ...]
    rows: int
    learning_rate: float
    embedding_rate: float
    worked: bool
    row_tokens: int = 128
    weight_decay: float = 0.05
    checkpoint_every: int = 100
    seed: int = 20

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of `step` and how many steps of it are done before."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(f"the course has {self.steps} steps and none after them")

    def shape_at(self, step: int) -> Shape:
        return replace(self.shape, layers=self.at(step)[0].layers)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Both courses, what the tokenizer reads, and how many held-out questions grade the pair."""

    student: Course
    teacher: Course
    vocabulary: int = 1024
    tokenizer_questions: int = 20_000
    graded: int = 2_000
    seed: int = 20

    def course(self, role: Role) -> Course:
        return self.student if role == "student" else self.teacher


FULL: Final = Recipe(
    student=Course(
        Shape(128, 384, 4, 4),
        (Stage(3_000, PRACTISED, layers=4),),
        rows=12,
        learning_rate=5e-3,
        embedding_rate=2e-3,
        worked=False,
    ),
    teacher=Course(
        Shape(384, 1152, 5, 6),
        (
            Stage(800, TAUGHT, layers=2, decay=0.0),
            Stage(400, TAUGHT, layers=5, scale=0.35, decay=0.9),
            Stage(400, REPEATED, layers=5, scale=0.3, warmup=40, decay=0.7),
        ),
        rows=20,
        learning_rate=4e-3,
        embedding_rate=2e-3,
        worked=True,
    ),
)

# Everything in a minute, to see that it runs; what comes out cannot calculate.
QUICK: Final = Recipe(
    student=Course(
        Shape(32, 64, 2, 2),
        (Stage(40, PRACTISED, layers=2, warmup=5),),
        rows=4,
        learning_rate=3e-3,
        embedding_rate=3e-3,
        worked=False,
    ),
    teacher=Course(
        Shape(64, 128, 2, 2),
        (Stage(20, TAUGHT, layers=1, warmup=5, decay=0.0), Stage(20, REPEATED, layers=2, warmup=5)),
        rows=4,
        learning_rate=3e-3,
        embedding_rate=3e-3,
        worked=True,
    ),
    vocabulary=512,
    tokenizer_questions=2_000,
    graded=40,
)
