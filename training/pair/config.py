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


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama: `heads` of `hidden / heads` dimensions, tied embeddings."""

    hidden: int
    inner: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Course:
    """How one model is trained. A step is `rows` rows of `row_tokens` tokens; the learning rate rises over `warmup`
    steps, stays, and falls to zero over the last `decay` share of the steps. Where `grown_at` is set, the model has
    `young_layers` layers up to that step and all of them after it, at `grown_scale` of the learning rate."""

    shape: Shape
    shares: Mapping[str, float]
    steps: int
    rows: int
    learning_rate: float
    embedding_rate: float
    worked: bool
    young_layers: int = 0
    grown_at: int = 0
    grown_scale: float = 1.0
    row_tokens: int = 128
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.05
    checkpoint_every: int = 100
    seed: int = 20

    @property
    def young(self) -> Shape:
        """The shape at the first step."""
        return replace(self.shape, layers=self.young_layers) if self.grown_at else self.shape


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
        Shape(128, 384, 4, 4), PRACTISED, steps=3_000, rows=12, learning_rate=5e-3, embedding_rate=2e-3, worked=False
    ),
    teacher=Course(
        Shape(384, 1152, 5, 6),
        TAUGHT,
        steps=1_200,
        rows=20,
        learning_rate=4e-3,
        embedding_rate=2e-3,
        worked=True,
        young_layers=2,
        grown_at=800,
        grown_scale=0.35,
    ),
)

# Everything in a minute, to see that it runs; what comes out cannot calculate.
QUICK: Final = Recipe(
    student=Course(
        Shape(32, 64, 2, 2),
        PRACTISED,
        steps=40,
        rows=4,
        learning_rate=3e-3,
        embedding_rate=3e-3,
        worked=False,
        warmup=5,
    ),
    teacher=Course(
        Shape(64, 128, 2, 2),
        TAUGHT,
        steps=40,
        rows=4,
        learning_rate=3e-3,
        embedding_rate=3e-3,
        worked=True,
        young_layers=1,
        grown_at=20,
        warmup=5,
    ),
    vocabulary=512,
    tokenizer_questions=2_000,
    graded=40,
)
