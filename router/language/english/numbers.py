"""Numbers as people write them in English: 1,000, 5k, 2.5 million, a dozen, ten thousand, a fifth, three quarters."""

import re
from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
ONES = {word: value for value, word in enumerate(_ONES.split())} | {"none": 0}
TENS = {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
SUFFIXES = {"k": 1000, "mn": 10**6, "mio": 10**6, "bn": 10**9} | SCALES
SUFFIXES |= {f"{word}s": value for word, value in SCALES.items()}
# "second" is left out: it is a unit of time.
PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "twelfth": 12,
    "twentieth": 20,
    "hundredth": 100,
    "thousandth": 1000,
}
PARTS |= {f"{word}s": value for word, value in PARTS.items() if word != "half"} | {"halves": 2}

_DIGITS = re.compile(r"(?:minus )?[+-]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)?(?:\.\d+)?")
_SUFFIX = re.compile(r" ?([a-z]+)")
# "5m" may be minutes or millions; only a noun that is counted decides.
_MILLIONS = re.compile(r" ?m (?=tokens?\b|teacher\b|calls?\b|requests?\b|dollars?\b|usd\b)")
_WORD = re.compile(r"[ -]?([a-z]+)")
_SLASH = re.compile(r" ?/ ?(\d+)(?![\d.,]*\d)")


_EVERY = re.compile(
    r"(?:every|each) (?:(?P<word>other|second|[a-z]+)|(?P<figures>\d{1,6})(?:st|nd|rd|th))"
    r"(?= (?:requests?|questions?|quer(?:y|ies)|prompts?|messages?|calls?)\b)"
)


def number(text: str, at: int) -> tuple[int, Fraction] | None:
    """The number that begins at `at`: where it ends and its value."""
    return _digits(text, at) or _words(text, at)


def part(text: str, at: int) -> tuple[int, Fraction] | None:
    """The fraction that begins at `at`: "a fifth", "three quarters", "half", "1/5"."""
    first = _WORD.match(text, at)
    if first and first.start(1) == at and first[1] in ("half", "a", "an"):
        if first[1] == "half":
            return first.end(), Fraction(1, 2)
        second = _WORD.match(text, first.end())
        if second and second[1] in PARTS and not second[1].endswith("s"):
            return second.end(), Fraction(1, PARTS[second[1]])
    top = number(text, at)
    if top is None:
        return None
    end, value = top
    slash = _SLASH.match(text, end)
    if slash and value.denominator == 1 and int(slash[1]) > 0:
        return slash.end(), value / int(slash[1])
    below = _WORD.match(text, end)
    if below and below[1] in PARTS:
        return below.end(), value / PARTS[below[1]]
    return None


def every(text: str, at: int) -> tuple[int, Fraction] | None:
    """The share in "every tenth request", without its noun. "Second" is an ordinal here, since requests follow it."""
    match = _EVERY.match(text, at)
    if match is None:
        return None
    word = match["word"]
    below = int(match["figures"]) if word is None else 2 if word in ("other", "second") else PARTS.get(word, 0)
    return (match.end(), Fraction(1, below)) if below else None


def _digits(text: str, at: int) -> tuple[int, Fraction] | None:
    match = _DIGITS.match(text, at)
    if match is None or not match[0][-1:].isdigit():
        return None
    if match[0][0] in "+-" and at > 0 and text[at - 1].isalnum():
        return None
    written = match[0].replace(",", "")
    sign = -1 if written.startswith("minus ") else 1
    value = sign * Fraction(written.removeprefix("minus "))
    end = match.end()
    millions = _MILLIONS.match(text, end)
    if millions:
        return millions.end() - 1, value * 10**6
    while (suffix := _SUFFIX.match(text, end)) and suffix[1] in SUFFIXES:
        value *= SUFFIXES[suffix[1]]
        end = suffix.end()
    if end < len(text) and text[end].isdigit():
        return None
    return end, value


def _words(text: str, at: int) -> tuple[int, Fraction] | None:
    """ "twenty-five", "two hundred and fifty thousand", "a dozen", "half a million", "minus five"."""
    total, group, end = 0, 0, at
    sign = 1
    position = at
    seen = False
    while match := _WORD.match(text, position):
        if match.start(1) != position and not seen and position == at:
            return None
        word = match[1]
        if not seen and word == "minus" and sign == 1:
            sign, position = -1, match.end()
            continue
        if not seen and word in ("a", "an"):
            if not (following := _WORD.match(text, match.end())) or following[1] not in SCALES:
                return None
            group, position = 1, match.end()
            seen = True
            continue
        if (
            not seen
            and word == "half"
            and (scale := re.compile(r" an? (million|thousand|dozen|hundred)\b").match(text, match.end()))
        ):
            return scale.end(), Fraction(SCALES[scale[1]], 2)
        if word == "and" and seen and total + group >= 100:
            following = _WORD.match(text, match.end())
            if following is None or following[1] not in ONES | TENS:
                break
            position = match.end()
            continue
        if word in ONES:
            if group % 10 or (ONES[word] > 9 and group % 100):
                break
            group += ONES[word]
        elif word in TENS:
            if group % 100:
                break
            group += TENS[word]
        elif word in SCALES:
            scale_value = SCALES[word]
            if scale_value == 100:
                group = (group or 1) * 100
            else:
                total, group = total + (group or 1) * scale_value, 0
        else:
            break
        seen = True
        end = position = match.end()
    if end == at:
        return None
    return end, Fraction(sign * (total + group))
