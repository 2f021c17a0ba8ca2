"""Frozen values that are cheap to make: every request makes some thirty."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

try:
    from policies import _values
except ImportError:
    _values = None  # type: ignore[assignment]

T = TypeVar("T")


def quickly_made(cls: type[T]) -> type[T]:
    """For a frozen dataclass without slots: an `__init__` that sets all fields in one go.

    What dataclasses write for frozen classes calls `object.__setattr__` for each field, which takes twice as long for a
    few fields and four times for many; and orjson writes a dataclass four times as fast where it finds a `__dict__`.
    Where it could be compiled, `policies/_values.pyx` halves what is left.
    """
    namespace: dict[str, Any] = {"_MISSING": MISSING, "_set": object.__setattr__}
    parameters, items = [], []
    for each in fields(cls):  # type: ignore[arg-type]
        item = each.name
        if each.default is not MISSING:
            namespace[f"_default_{each.name}"] = each.default
            parameters.append(f"{each.name}=_default_{each.name}")
        elif each.default_factory is not MISSING:
            namespace[f"_make_{each.name}"] = each.default_factory
            parameters.append(f"{each.name}=_MISSING")
            item = f"_make_{each.name}() if {each.name} is _MISSING else {each.name}"
        else:
            parameters.append(each.name)
        items.append(f"{each.name!r}: {item}")
    source = f"def __init__(self, {', '.join(parameters)}): _set(self, '__dict__', {{{', '.join(items)}}})"
    exec(source, namespace)  # noqa: S102  (as dataclasses do; all names in it are those of fields)
    made = namespace["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = cls.__init__.__annotations__
    cls.__init__ = made  # type: ignore[method-assign]
    if _values is not None:
        known = fields(cls)  # type: ignore[arg-type]
        defaults = {each.name: each.default for each in known if each.default is not MISSING}
        factories = {each.name: each.default_factory for each in known if each.default_factory is not MISSING}
        _values.call_quickly(cls, [each.name for each in known], defaults, factories)
    return cls
