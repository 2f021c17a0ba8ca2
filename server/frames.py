"""Frames between a worker and the processes beside it: four bytes of length (big-endian), then JSON."""

from collections.abc import Iterator
from typing import Any

import orjson

LENGTH = 4
MOST_READ = 1 << 16
"""Bytes asked for at once. A buffer of more is mapped and unmapped at every read."""


def frame(content: Any) -> bytes:
    return framed(orjson.dumps(content))


def framed(payload: bytes) -> bytes:
    """A frame of what is JSON already."""
    return len(payload).to_bytes(LENGTH, "big") + payload


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The content of every frame that is whole now. Raises ValueError for what is no JSON."""
        # Mostly it is one frame and nothing else: then nothing is copied.
        if not self._buffer and len(data) == LENGTH + int.from_bytes(data[:LENGTH], "big"):
            yield orjson.loads(memoryview(data)[LENGTH:])
            return
        self._buffer += data
        while len(self._buffer) >= LENGTH:
            end = LENGTH + int.from_bytes(self._buffer[:LENGTH], "big")
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[LENGTH:end])
            del self._buffer[:end]
            yield orjson.loads(content)
