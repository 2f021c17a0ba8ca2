"""What the grammars make of words: small values, the same for every language, that `meaning` puts together."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from router.budget import Measure, Scope, Unit, When, WhenExhausted


@dataclass(frozen=True, slots=True)
class Piece:
    """`start` and `end` count characters of the normalised text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Separator(Piece):
    """What stands between two clauses. A `stop` ends the sentence; a `colon` opens what follows."""

    sort: Literal["comma", "and", "or", "colon", "stop"]


@dataclass(frozen=True, slots=True)
class Bound(Piece):
    """Which side of an amount is allowed. `over` is a promise only with a negation; `floor` never is.

    `within` bounds a latency, or opens a window ("10 calls within 5 minutes")."""

    way: Literal["under", "over", "target", "floor", "within"]


@dataclass(frozen=True, slots=True)
class Amount(Piece):
    """`measure` None: a bare number, read in the light of the clause before. `currency` only with usd."""

    measure: Measure | None
    value: Fraction
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Ratio(Piece):
    """ "in ten", "per 1,000 requests": what an amount is counted against."""

    requests: Fraction


@dataclass(frozen=True, slots=True)
class Duration(Piece):
    """A length of time, as a number of units."""

    n: Fraction
    unit: Unit | Literal["millisecond"]
    seconds: Fraction


@dataclass(frozen=True, slots=True)
class Per(Piece):
    """A window: `n` units; `mark` says how it counts where the words do."""

    n: Fraction
    unit: Unit | Literal["millisecond"]
    mark: Literal["rolling", "calendar"] | None = None


@dataclass(frozen=True, slots=True)
class Each(Piece):
    scope: Scope


@dataclass(frozen=True, slots=True)
class Days(Piece):
    """`each`: "every Monday", which is also the window of an amount that names none."""

    days: tuple[str, ...]
    each: bool = False


@dataclass(frozen=True, slots=True)
class Hours(Piece):
    """Minutes since midnight; 1440 is the end of the day, -1 a time that no clock shows, -2 one of two times."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Zone(Piece):
    name: str


@dataclass(frozen=True, slots=True)
class WeekStart(Piece):
    day: int


@dataclass(frozen=True, slots=True)
class Quantile(Piece):
    value: Fraction


@dataclass(frozen=True, slots=True)
class Condition(Piece):
    when: When


@dataclass(frozen=True, slots=True)
class Model(Piece):
    """None: "it", the model spoken of before."""

    name: Literal["student", "teacher"] | None


@dataclass(frozen=True, slots=True)
class Outcome(Piece):
    """What happens to a request that finds the budget exhausted."""

    way: WhenExhausted


Flag = Literal[
    "never",
    "always",
    "only",
    "verb",
    "answer",
    "calls",
    "requests",
    "tokens",
    "share",
    "to",
    "otherwise",
    "outside",
    "concurrent",
    "average",
    "total",
    "random",
    "no_limit",
    "exhausted",
    "latency",
    "zone_noun",
]


@dataclass(frozen=True, slots=True)
class Word(Piece):
    """A word that counts by being there."""

    flag: Flag
