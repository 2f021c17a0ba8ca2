"""Events come out as they went in, however the network cut them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import sse

EVENTS = [b'data: {"a":1}\n\n', b": comment\n\n", b'event: x\ndata: {"b":"\xc3\xa4"}\n\n', b"data: [DONE]\n\n"]


@given(st.lists(st.sampled_from(EVENTS), max_size=8), st.lists(st.integers(1, 20), min_size=1))
def test_splitting_is_the_same_wherever_the_chunks_end(events: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(events)
    splitter, out, position, turn = sse.EventSplitter(), [], 0, 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        out += splitter.feed(stream[position : position + step])
        position, turn = position + step, turn + 1
    assert out == events
    assert splitter.rest == b""


def test_payloads_are_read_and_broken_ones_refused() -> None:
    assert [sse.payload(event) for event in EVENTS] == [b'{"a":1}', None, b'{"b":"\xc3\xa4"}', sse.DONE]
    for broken in (b"data: {oops\n\n", b"data: hello\n\n", b"<html>\n\n", b'{"a":1}\n\n'):
        with pytest.raises(sse.MalformedStream):
            sse.payload(broken)


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    splitter = sse.EventSplitter()
    for _ in range(4):
        splitter.feed(b"x" * (sse.MAX_EVENT_BYTES // 4))
    with pytest.raises(sse.MalformedStream):
        splitter.feed(b"x")
