"""What a prompt shows without any encoder: its shape, its words, its numbers, its choices.

Idea: everything is read from the UTF-8 bytes in a few passes that run in C (one count of kinds of bytes, one regular
expression for tokens, one for numbers), so that 500 tokens cost well under 200 microseconds. Words reach the linear
estimators as hashed unigrams and bigrams; CRC-32 is the hash because Python's own changes from process to process.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np
import numpy.typing as npt

from policies import compiled
from policies.observation import Prompt
from policies.values import quickly_made

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEATURES_VERSION = 1
"""Raised when a feature's meaning changes under the same name."""
NGRAM_BITS = 15
NGRAMS = 1 << NGRAM_BITS
"""Size of the table that word unigrams and bigrams are hashed into."""

_LEFT, _RIGHT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_TO_INDEX, _INDEX = np.uint64(64 - NGRAM_BITS), np.uint64(NGRAMS - 1)

LONGEST = 16_000
"""Characters looked at: of a longer text the first and the last half of this."""

# Runs of bytes above 127 are cut at 6 so that scripts without spaces give pieces of two characters, not whole lines.
_TOKEN = re.compile(rb"[a-z]+|[0-9]+|[\x80-\xff]{1,6}|[^\sa-z0-9\x80-\xff]")
_NUMBER = re.compile(rb"[0-9][0-9,]*(?:\.[0-9]+)?")
_OPTION = re.compile(r"^[ \t]*\(?([A-P])[.):][ \t]+(\S[^\n]*)", re.MULTILINE)
_PLAIN_NUMBER = re.compile(r"[-+]?[$£€]?\s?[0-9][0-9,]*(?:\.[0-9]+)?\s?%?[a-zA-Z/]{0,6}")

_CLASSES: dict[str, bytes] = {
    "letters": bytes(range(65, 91)) + bytes(range(97, 123)),
    "capitals": bytes(range(65, 91)),
    "digits": b"0123456789",
    "spaces": b" \t",
    "lines": b"\n",
    "stops": b".",
    "commas": b",;",
    "questions": b"?",
    "quotes": b"\"'`",
    "brackets": b"()[]{}",
    "operators": b"+-*/=<>^%",
    "money": b"$",
    "colons": b":",
    "underscores": b"_",
    "backslashes": b"\\",
    "braces": b"{};",
    "latin_high": bytes(range(0xC2, 0xCC)),
    "cyrillic_greek": bytes(range(0xCD, 0xD4)),
    "semitic": bytes(range(0xD6, 0xDC)),
    "cjk": bytes(range(0xE3, 0xEE)),
    "other_high": bytes(range(0xE0, 0xE3)) + bytes(range(0xEE, 0xF5)),
}

_LEXICONS: dict[str, str] = {
    "what": "what which who whom whose",
    "how": "how",
    "why": "why explain because reason",
    "when_where": "when where",
    "many_much": "many much total altogether sum amount",
    "negations": "not except never none no false incorrect cannot least",
    "truth": "true false correct statement statements following",
    "each": "each every per apiece",
    "change": "more less fewer than remaining left rest after before",
    "scale": "twice half third quarter times double triple percent percentage average ratio rate",
    "money_words": "cost costs price pay pays paid spend spends dollars cents sell sells buy buys earns profit",
    "time_words": "hour hours minute minutes day days week weeks month months year years",
    "if": "if suppose assume assuming given let",
    "orders": "write list give find calculate compute determine solve evaluate prove show",
    "text_work": "summarize summarise translate rewrite essay story poem email article paragraph",
    "code_words": "def return function code python java class import array string sql html program loop",
    "legal": "court plaintiff defendant statute contract liable law judge state",
    "science": "energy force mass velocity temperature pressure reaction acid electron cell gene equation",
    "person": "i me my we our us",
    "she_he": "he she his her him they their",
}
_LEXICONS_OF: dict[bytes, tuple[int, ...]] = {}
"""Word -> the lexicons it stands in, by place."""
for _place, _words in enumerate(_LEXICONS.values()):
    for _word in _words.encode().split():
        _LEXICONS_OF[_word] = (*_LEXICONS_OF.get(_word, ()), _place)

PROMPT_FEATURES: tuple[str, ...] = (
    "log_bytes",
    *(f"{name}_rate" for name in _CLASSES),
    "log_words",
    "log_letters_per_word",
    "distinct_words",
    *(f"{name}_words" for name in _LEXICONS),
    "log_numbers",
    "log_largest_number",
    "log_smallest_number",
    "distinct_numbers",
    "decimal_numbers",
    "long_numbers",
    "options",
    "log_option_length",
    "numeric_options",
    "none_option",
    "all_option",
    "log_longest_option",
    "log_stem_words",
    "ends_with_question",
    "blanks",
    "code_fence",
    "equals_signs",
    "turn",
    "last_route_teacher",
    "last_route_student",
    "last_user_part",
)


def _atoms() -> tuple[bytes, Floats]:
    """Byte -> atom, the bytes that are in the same classes; and (atoms, classes), which atom is in which class."""
    kinds: dict[tuple[bool, ...], int] = {}
    table = bytes(
        kinds.setdefault(tuple(byte in members for members in _CLASSES.values()), len(kinds)) for byte in range(256)
    )
    return table, np.array(list(kinds), dtype=np.float64)


_ATOM_OF, _ATOM_CLASSES = _atoms()


def shorten(text: str) -> str:
    """The text, or its first and last part where it is longer than `LONGEST` characters."""
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST // 2] + "\n" + text[-LONGEST // 2 :]


def to_number(digits: str) -> float:
    """`1,234.5` -> 1234.5; finite for any run of digits."""
    return min(float(digits.replace(",", "") or 0), 1e18)


@quickly_made
@dataclass(frozen=True)
class PromptView:
    """A prompt read once; the draft's features look at the same numbers and options."""

    dense: Floats
    """(len(PROMPT_FEATURES),), finite."""
    ngrams: Ints
    """Indices below `NGRAMS`, one per token and per pair of neighbours, repeats included."""
    numbers: tuple[float, ...]
    text: str

    @cached_property
    def options(self) -> dict[str, str]:
        """Letter -> text of the choices, in order; empty where the prompt offers none."""
        return read_options(self.text)


def read_options(text: str) -> dict[str, str]:
    """Lines such as `A. seven`, where at least A and B are there."""
    if not ("A." in text or "A)" in text or "A:" in text):  # most texts need no regular expression
        return {}
    found = dict(_OPTION.findall(text))
    return found if "A" in found and "B" in found else {}


def hash_tokens(tokens: list[bytes]) -> Ints:
    """(T,) tokens -> (2T-1,) indices of unigrams and bigrams."""
    hashes = np.fromiter(map(crc32, tokens), dtype=np.uint64, count=len(tokens))
    pairs = hashes[:-1] * _LEFT + hashes[1:] * _RIGHT
    pairs >>= _TO_INDEX
    # All are far below 2**63, so reading them as signed changes nothing.
    return np.concatenate([hashes & _INDEX, pairs]).view(np.int64)


def encode(text: str) -> bytes:
    # Lone surrogates come out of broken JSON escapes; they must not stop a request.
    return text.encode("utf-8", "replace")


def tokenise(raw_lower: bytes) -> list[bytes]:
    return _TOKEN.findall(raw_lower)


_CHOICES = slice(PROMPT_FEATURES.index("options"), PROMPT_FEATURES.index("log_stem_words") + 1)
_READER = compiled.reader(FEATURES_VERSION, PROMPT_FEATURES, _LEXICONS_OF, list(_CLASSES.values()))


def read_prompt(prompt: Prompt) -> PromptView:
    """All features of a prompt; raises nothing for any text."""
    if _READER is None:
        return read_prompt_in_python(prompt)
    text = shorten(prompt.text)
    raw = encode(text)
    dense, ngrams, numbers = _READER.prompt(raw, text.rstrip()[-1:] == "?", _conversation(prompt))
    view = PromptView(dense, ngrams, numbers, text)
    if raw.count(b"\n") >= 2 and (options := view.options):
        dense[_CHOICES] = _choices(text, options, max((len(ngrams) + 1) // 2, 1))
    return view


def read_prompt_in_python(prompt: Prompt) -> PromptView:
    """What `read_prompt` says, where nothing is compiled."""
    text = shorten(prompt.text)
    raw = encode(text)
    size = max(len(raw), 1)
    atoms = np.bincount(np.frombuffer(raw.translate(_ATOM_OF), np.uint8), minlength=len(_ATOM_CLASSES))
    classes = (atoms @ _ATOM_CLASSES).tolist()
    digits, lines, underscores = classes[2], classes[4], classes[13]
    tokens = tokenise(raw.lower())
    counts = Counter(tokens)
    words = max(len(tokens), 1)
    numbers = tuple([min(float(m.replace(b",", b"")), 1e18) for m in _NUMBER.findall(raw)]) if digits else ()
    # Options stand on lines of their own, so a text without line ends has none.
    options = read_options(text) if lines >= 2 else {}
    in_lexicons = [0] * len(_LEXICONS)
    for word in counts.keys() & _LEXICONS_OF.keys():
        for place in _LEXICONS_OF[word]:
            in_lexicons[place] += counts[word]
    last = text.rstrip()[-1:]
    dense = [
        math.log1p(len(raw)),
        *[value / size for value in classes],
        math.log1p(len(tokens)),
        math.log1p(classes[0] / words),
        len(counts) / words,
        *map(math.log1p, in_lexicons),
        math.log1p(len(numbers)),
        math.log1p(max(numbers, default=0.0)),
        math.log1p(min(numbers, default=0.0)),
        len(set(numbers)) / max(len(numbers), 1),
        math.log1p(sum([number != int(number) for number in numbers])),
        math.log1p(sum([number >= 1000 for number in numbers])),
        *_choices(text, options, words),
        float(last == "?"),
        float(underscores >= 2),
        float(b"```" in raw),
        math.log1p(raw.count(b"=")),
        *_conversation(prompt),
    ]
    return PromptView(np.array(dense), hash_tokens(tokens), numbers, text)


def _choices(text: str, options: dict[str, str], words: int) -> list[float]:
    """`options` to `log_stem_words`."""
    if not options:
        return [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.log1p(words)]
    lowered = [option.lower() for option in options.values()]
    lengths = [len(option) for option in options.values()]
    numeric = sum(_PLAIN_NUMBER.fullmatch(option.strip()) is not None for option in options.values())
    return [
        float(len(options)),
        math.log1p(sum(lengths) / len(lengths)),
        numeric / len(options),
        float(any("none of" in option for option in lowered)),
        float(any("all of" in option or "both" in option for option in lowered)),
        math.log1p(max(lengths)),
        math.log1p(max(1.0, words * (1 - sum(lengths) / max(len(text), 1)))),
    ]


def _conversation(prompt: Prompt) -> tuple[float, float, float, float]:
    """`turn` and what stands behind it."""
    return (
        math.log1p(prompt.turn),
        float(prompt.last_route == "teacher"),
        float(prompt.last_route == "student"),
        min(1.0, len(prompt.last_user) / max(len(prompt.text), 1)),
    )
