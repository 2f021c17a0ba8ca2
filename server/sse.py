"""Server-sent events as bytes: split at the blank line, looked at no closer than needed, never re-made from parts.

Format: WHATWG HTML, "Server-sent events"; OpenAI sends one `data:` line of JSON per event and ends with `data: [DONE]`.
"""

DONE = b"[DONE]"
MAX_EVENT_BYTES = 4 * 1024 * 1024


class MalformedStream(Exception):
    """The bytes are not the promised events."""


class EventSplitter:
    """Feeds on chunks as the network cut them; gives whole events, separators included, in order and unchanged."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:  # rare: some proxies write CRLF
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise MalformedStream(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return [event + b"\n\n" for event in events if event]

    @property
    def rest(self) -> bytes:
        """What came after the last separator."""
        return self._rest


def payload(event: bytes) -> bytes | None:
    """The data of one event: JSON text, or DONE; None for comments and events without data.

    Raises MalformedStream where the data is neither an object nor DONE.
    """
    if event.startswith(b"data:") and event.count(b"\n") == 2:  # the usual case: one data line and the blank one
        data = event[5:].strip()
    else:
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        others = (b":", b"event:", b"id:", b"retry:", b"data:")
        if any(line and not line.startswith(others) for line in event.split(b"\n")):
            raise MalformedStream("a line is no field of a server-sent event")
        if not lines:
            return None
        data = b"\n".join(lines)
    if data != DONE and not (data.startswith(b"{") and data.endswith(b"}")):
        raise MalformedStream("the data of an event is not a JSON object")
    return data


def encode(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
