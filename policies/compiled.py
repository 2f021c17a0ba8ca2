"""The compiled half of reading and scoring (`policies/_native.pyx`), where it was built.

Everything works without it, in about ten times the time: docs/decisions/0015.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

try:
    from policies import _native as native
except ImportError:
    native = None  # type: ignore[assignment]

__all__ = ["native", "reader"]


def reader(
    version: int, features: Sequence[str], words: Mapping[bytes, Sequence[int]], classes: Sequence[bytes] = ()
) -> "native.Reader | None":
    """None where nothing is compiled, or what is was built for other features: numbers at the wrong places would score
    quietly and wrongly."""
    if native is None or crc32(f"{version} {' '.join(features)}".encode()) not in native.MADE_FOR:
        return None
    return native.Reader(classes, words)
