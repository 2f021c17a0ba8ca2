from collections.abc import Callable, Mapping, Sequence
from typing import Any

MADE_FROM: str

def call_quickly(
    cls: type, names: Sequence[str], defaults: Mapping[str, Any], factories: Mapping[str, Callable[[], Any]]
) -> None: ...
