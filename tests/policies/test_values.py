"""Values that are quickly made are what any frozen dataclass is."""

import contextlib
import copy
import pickle
import sys
from dataclasses import FrozenInstanceError, dataclass, field, fields, make_dataclass, replace
from typing import Any

import orjson
import pytest

from policies.observation import Draft, Observation, Prompt
from policies.values import quickly_made


@dataclass(frozen=True)
class Plain:
    name: str
    count: int = 3
    more: dict[str, int] = field(default_factory=dict)


@quickly_made
@dataclass(frozen=True)
class Quick:
    name: str
    count: int = 3
    more: dict[str, int] = field(default_factory=dict)


@quickly_made
@dataclass(frozen=True)
class Quicker(Quick):
    last: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        (("a",), {}),
        (("a", 5), {}),
        (("a", 5, {"x": 1}), {}),
        ((), {"name": "a", "more": {"y": 2}}),
        (("a",), {"count": 0}),
        ((), {"more": {}, "count": 0, "name": "a"}),
        (("a",), {"more": {}, "count": 0}),
    ],
)
def test_it_holds_what_a_plain_one_holds(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    plain, quick = Plain(*positional, **named), Quick(*positional, **named)
    assert [getattr(quick, each.name) for each in fields(Quick)] == [
        getattr(plain, each.name) for each in fields(Plain)
    ]
    assert repr(quick) == repr(plain).replace("Plain", "Quick")
    assert quick == Quick(*positional, **named)
    assert orjson.dumps(quick) == orjson.dumps(plain)


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((), {}),
        ((), {"count": 1}),
        (("a", 1, {}, 4), {}),
        (("a",), {"colour": 1}),
        (("a",), {"name": "b"}),
        (("a", 1), {"more": {}, "count": 1}),
    ],
)
def test_it_wants_the_same_arguments(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    said = []
    for kind in (Plain, Quick):
        with pytest.raises(TypeError) as error:
            kind(*positional, **named)
        said.append(str(error.value).replace("Quick.", "Plain."))
    assert said[0] == said[1]


def test_defaults_are_made_anew() -> None:
    assert Quick("a").more is not Quick("a").more


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Quick("a").name = "b"  # type: ignore[misc]


def test_one_that_inherits_has_all_fields() -> None:
    value = Quicker("a", last=(1, 2))
    assert (value.name, value.count, value.more, value.last) == ("a", 3, {}, (1, 2))


def test_it_may_have_any_number_of_fields() -> None:
    for count in (1, 63, 64, 65, 100):
        names = [f"field{i}" for i in range(count)]
        kind = quickly_made(make_dataclass("Many", [(name, int) for name in names], frozen=True))
        value = kind(*range(count - 1), **{names[-1]: -1})
        assert vars(value) == {**dict(zip(names, range(count), strict=True)), names[-1]: -1}
        with pytest.raises(TypeError):
            kind(*range(count - 1))


def test_what_is_given_is_let_go() -> None:
    given = object()
    before = sys.getrefcount(given)
    for _ in range(1000):
        Quick(given, more=given)  # type: ignore[arg-type]
        with contextlib.suppress(TypeError):
            Quick(given, name=given)  # type: ignore[arg-type, misc]
    assert sys.getrefcount(given) == before


def test_it_is_replaced_copied_pickled_and_hashed() -> None:
    seen = Observation("defer", Prompt("hello", "hello"), Draft("you", (-0.1,)))  # type: ignore[arg-type]
    assert replace(seen, draft=None) == Observation("defer", Prompt("hello", "hello"))  # type: ignore[arg-type]
    assert copy.deepcopy(seen) == pickle.loads(pickle.dumps(seen)) == seen
    assert hash(seen) == hash(copy.copy(seen))
