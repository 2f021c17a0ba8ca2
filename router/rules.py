"""Which rule of the budget speaks of a request. Pure, and quick enough for every request.

Nothing here is learned: a rule matches by words, structure and labels that an operator can point at. The first one that
matches wins. A topic matches by a tag of its name or by words that show it (`router.topics`); `contains code` by the
shape of the text; a language by its script and, in Latin script, by its commonest words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from router.budget import Rule, When
from router.script import language_of
from router.topics import stems

# Long prompts are read at both ends: that is where the question stands.
_READ_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What rules may look at."""

    text: str
    """The whole conversation, or at least its last user message."""
    tokens: int = 0
    """How long the prompt is, as well as the gateway knows it."""
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    key_group: str | None = None
    language: str | None = None
    """ISO 639-1 where the client has said it; None: told from the text."""


def match(rules: Sequence[Rule], facts: RequestFacts) -> Rule | None:
    """The first rule that speaks of this request, or None."""
    return next((rule for rule in rules if matches(rule.when, facts)), None)


def matches(when: When, facts: RequestFacts) -> bool:
    """True where the condition holds. An empty condition never does."""
    if when.topic is not None:
        return about(when.topic, facts)
    if when.contains is not None:
        return contains_code(facts.text)
    if when.longer_than_tokens is not None:
        return facts.tokens > when.longer_than_tokens
    if when.shorter_than_tokens is not None:
        return facts.tokens < when.shorter_than_tokens
    if when.tag is not None:
        return when.tag in facts.tags
    if when.header is not None:
        return facts.headers.get(when.header[0]) == when.header[1]
    if when.key_group is not None:
        return facts.key_group == when.key_group
    if when.language is not None:
        return (facts.language or language_of(_ends(facts.text))) == when.language
    return False


def about(topic: str, facts: RequestFacts) -> bool:
    """True where a tag names the topic, or where the text shows every word of it."""
    names, patterns = _topic(topic)
    if any(tag.lower() in names for tag in facts.tags):
        return True
    if not patterns:
        return False
    text = _ends(facts.text).lower()
    return all(pattern.search(text) for pattern in patterns)


def _ends(text: str) -> str:
    if len(text) <= 2 * _READ_CHARACTERS:
        return text
    return f"{text[:_READ_CHARACTERS]}\n{text[-_READ_CHARACTERS:]}"


# Words of a topic that say nothing about it.
_EMPTY_WORDS = (
    "a an the of in on for to with from and or about any all my our question questions request requests query queries "
    "prompt prompts matter matters topic topics issue issues problem problems task tasks inquiry inquiries enquiry "
    "enquiries case cases message messages advice related anything everything something stuff things work help"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ers", "ed", "es", "er", "al", "s", "y", "e")


@lru_cache(maxsize=1024)
def _topic(topic: str) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """The tags that name a topic, and one pattern for each of its words."""
    words = [word for word in _WORD.findall(topic.lower()) if word not in _EMPTY]
    bare = " ".join(words)
    names = frozenset(name for name in (topic.lower(), bare, bare.replace(" ", "-"), bare.replace(" ", "_")) if name)
    whole = stems(bare)
    groups = [whole] if whole else [(*stems(word), _stem(word)) for word in words]
    return names, tuple(_pattern(group) for group in groups)


def _stem(word: str) -> str:
    """A word without its ending, so that "cooking" also finds "cook"; short words stay whole."""
    for ending in _ENDINGS:
        if word.isascii() and word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def _pattern(group: Sequence[str]) -> re.Pattern[str]:
    """Stems of four letters and more begin a word; shorter ones are the word; other scripts stand anywhere."""
    latin = [stem for stem in group if stem.isascii()]
    alternatives = [re.escape(stem) for stem in group if not stem.isascii()]
    if latin:
        forms = "|".join(re.escape(stem) if len(stem) > 3 else rf"{re.escape(stem)}s?(?![a-z])" for stem in latin)
        alternatives.append(rf"(?<![a-z])(?:{forms})")
    return re.compile("|".join(alternatives))


# One line of these is enough ...
_CERTAIN = re.compile(
    r"^~~~\w|^#include\s*[<\"]|^#!/"
    r"|^(?:async )?def \w+\(.*\).*:\s*$|^class \w+(?:\(.*\))?\s*[:{]\s*$"
    r"|\bpublic static void\b|\bfunction\b\s*\w*\s*\([^)]*\)\s*\{|\b(?:fn|func) \w+\([^)]*\).*\{"
    r"|^(?:SELECT\b.+\bFROM\b|INSERT INTO\b|CREATE TABLE\b)|</[a-z][a-z0-9]*>\s*$",
    re.IGNORECASE,
)
# ... of these it takes lines of three kinds, or three signs of two kinds.
_SIGNS = tuple(
    re.compile(sign)
    for sign in (
        r"[;{}]\s*$",
        r"^(?:import \w[\w.]*|from \w[\w.]* import|using \w+|package \w+)\b",
        r"^(?:const|let|var|int|float|double|char|bool|auto|val|mut)\s+\w+\s*[=;]",
        r"\w+(?:\.\w+)+\([^)]*\)|\b\w+_\w+\([^)]*\)",
        r"^(?:if|for|while|else|elif|switch|try|except|catch)\b.*[:{]\s*$",
        r"^return\b|=>|->|\+=|==|!=|&&|\|\|",
        r"^\w+(?:\[\w*\])?\s*=\s*[\w\"'\[{(].*$",
        r"^(?://|/\*|#\s?\w+:)",
    )
)
# Prose is passed over quickly: a line of code begins so, or holds one of these characters.
_OPENINGS = (
    "import ",
    "class ",
    "from ",
    "using ",
    "package ",
    "return",
    "SELECT ",
    "select ",
    "INSERT ",
    "CREATE ",
    "public ",
)
_CHARACTERS = re.compile(r"[{};=<>#~&|]|\w\(|//|/\*")
_LONGEST_LINE = 300


def contains_code(text: str) -> bool:
    """True for text with the structure of source code; prose about code has none."""
    if "```" in text or "Traceback (most recent call last)" in text:
        return True
    kinds: set[int] = set()
    signs = 0
    for written in _ends(text).splitlines():
        line = written.strip()[:_LONGEST_LINE]
        if not (line.startswith(_OPENINGS) or _CHARACTERS.search(line)):
            continue
        if _CERTAIN.search(line):
            return True
        found = [kind for kind, sign in enumerate(_SIGNS) if sign.search(line)]
        kinds.update(found)
        signs += len(found)
        if len(kinds) >= 3 or (len(kinds) == 2 and signs >= 3):
            return True
    return False
