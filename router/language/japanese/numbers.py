"""Numbers as people write them in Japanese: 1,000、2万、百、二十五、1万5千、2割、三分の一、半分."""

import re
from fractions import Fraction

DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0}
SMALL = {"十": 10, "百": 100, "千": 1000}
LARGE = {"万": 10**4, "億": 10**8, "兆": 10**12}

_SIGN = re.compile(r"マイナス|-|\+")
_FIGURES = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+")
_KANJI = re.compile("[〇零一二三四五六七八九]+")
_TENTHS = re.compile(r" ?割")
_OF = re.compile(r" ?分の ?")
_DOZEN = re.compile(r" ?ダース")
_HALF = re.compile("半分|半数")


def number(text: str, at: int) -> tuple[int, Fraction] | None:
    """The number that begins at `at`: where it ends and its value."""
    sign = _SIGN.match(text, at)
    if sign:
        found = _plain(text, sign.end())
        return (found[0], -found[1] if sign[0] != "+" else found[1]) if found else None
    found = _plain(text, at)
    if found and (dozen := _DOZEN.match(text, found[0])):
        return dozen.end(), found[1] * 12
    return found


def part(text: str, at: int) -> tuple[int, Fraction] | None:
    """The fraction that begins at `at`: 2割, 1割5分, 三分の一, 半分."""
    half = _HALF.match(text, at)
    if half:
        return half.end(), Fraction(1, 2)
    first = number(text, at)
    if first is None:
        return None
    end, value = first
    tenths = _TENTHS.match(text, end)
    if tenths:
        value /= 10
        end = tenths.end()
        if text[end : end + 1] == "半":
            return end + 1, value + Fraction(1, 20)
        more = number(text, end)
        if more and text[more[0] : more[0] + 1] == "分" and text[more[0] + 1 : more[0] + 2] != "間":
            return more[0] + 1, value + more[1] / 100
        return end, value
    below = _OF.match(text, end)
    above = number(text, below.end()) if below else None
    if above and value > 0:
        return above[0], above[1] / value
    return None


def _plain(text: str, at: int) -> tuple[int, Fraction] | None:
    total, group = Fraction(0), Fraction(0)
    pending: Fraction | None = None
    end = at
    while end < len(text):
        figures = _FIGURES.match(text, end) if pending is None else None
        if figures:
            pending, end = Fraction(figures[0].replace(",", "")), figures.end()
            continue
        kanji = _KANJI.match(text, end) if pending is None else None
        if kanji:
            digits = [DIGITS[character] for character in kanji[0]]
            if len(digits) > 1 and not _positional(text, at, end, kanji.end()):
                break
            pending, end = Fraction("".join(map(str, digits))), kanji.end()
            continue
        character = text[end]
        if character in SMALL:
            group += (Fraction(1) if pending is None else pending) * SMALL[character]
        elif character in LARGE and (pending is not None or group):
            total += (group + (pending or 0)) * LARGE[character]
            group = Fraction(0)
        else:
            break
        pending, end = None, end + 1
    if end == at:
        return None
    return end, total + group + (pending or 0)


def _positional(text: str, at: int, start: int, end: int) -> bool:
    """True for 一〇〇, which writes figures; 百二三 is no number."""
    return start == at and text[end : end + 1] not in SMALL
