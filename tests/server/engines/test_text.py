import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.embedded.text import Detokenizer, StopStrings


def as_bytes(ids) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(ids).decode(errors="replace")


def emitted(data: bytes, prompt: bytes = b"") -> list[str]:
    detokenizer = Detokenizer(as_bytes, list(prompt))
    return [detokenizer.push(byte) for byte in data] + [detokenizer.flush()]


def test_a_character_is_emitted_with_its_last_byte():
    assert emitted("é😀x".encode()) == ["", "é", "", "", "", "😀", "x", ""]


def test_half_a_character_at_the_end_is_dropped():
    assert emitted("aé".encode()[:2]) == ["a", "", ""]


def test_broken_bytes_do_not_hold_the_text_back_for_ever():
    pieces = emitted(b"\xff" * 20)
    assert set("".join(pieces)) == {"�"}
    assert any(pieces[:10])


@given(st.text(), st.binary(max_size=8))
def test_the_pieces_are_the_text(text, prompt):
    assert "".join(emitted(text.encode(), prompt + b".")) == text


def test_a_tokenizer_that_drops_the_first_space_keeps_it_after_a_prompt():
    words = {0: "Hi", 1: " there", 2: " you"}
    detokenizer = Detokenizer(lambda ids: "".join(words[i] for i in ids).lstrip(), [0])
    assert [detokenizer.push(1), detokenizer.push(2)] == [" there", " you"]


def run_stops(stops, pieces, include=False) -> tuple[str, str | None]:
    search = StopStrings(stops, include)
    out = ""
    for piece in pieces:
        text, found = search.push(piece)
        out += text
        if found is not None:
            return out, found
    return out + search.flush(), None


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["a", "EN", "D", "b"], ("a", "END")),
        (["END"], ["a EN", "EMY"], ("a ENEMY", None)),
        (["END"], ["EE", "N", "EN", "DD"], ("EEN", "END")),
        (["\n\n", "###"], ["x\n", "y##", "#"], ("x\ny", "###")),
        (["ab", "abc"], ["xabc"], ("x", "abc")),
        ([], ["a", "b"], ("ab", None)),
    ],
)
def test_stop_strings(stops, pieces, expected):
    assert run_stops(stops, pieces) == expected


def test_a_stop_string_is_kept_on_request():
    assert run_stops(["END"], ["aE", "ND"], include=True) == ("aEND", "END")


def test_nothing_that_may_be_part_of_a_stop_string_is_let_out():
    search = StopStrings(["STOP"])
    assert [search.push(piece) for piece in ("S", "T", "x", "STO")] == [
        ("", None),
        ("", None),
        ("STx", None),
        ("", None),
    ]


@given(st.lists(st.text("abx", max_size=3)), st.lists(st.text("abx", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_before_the_first_stop_string(pieces, stops):
    whole = "".join(pieces)
    first = min((at for stop in stops if (at := whole.find(stop)) >= 0), default=len(whole))
    text, found = run_stops(stops, pieces)
    # Letter by letter, a short stop string may end the text before a longer one that began earlier is complete.
    assert whole.startswith(text)
    assert len(text) >= first
    assert (found is not None) == any(stop in whole for stop in stops)
