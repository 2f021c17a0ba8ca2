"""Where a topic ends: "for legal questions and paint the door green" names one topic, "for law and medicine" two."""

import re

from router.language.english.numbers import number
from router.language.english.words import LEXICON
from router.topics import is_common

_ITEM_WORD = re.compile(r"[^\s,.;:!?()\"\n][^\s,;:!?()\"\n]*?(?=[.]?(?:[\s,;:!?()\"\n]|$))")
_JOIN = re.compile(r"(?:, ?and |, ?or |, ?| and | or | ?& ?)(?:for |on |about |any |the ){0,2}")
_NOUNS_WORDS = (
    "question questions request requests query queries prompt prompts matter matters topic topics issue issues problem "
    "problems task tasks inquiry inquiries enquiry enquiries case cases message messages"
)
NOUNS = frozenset(_NOUNS_WORDS.split())
# Words that a topic never holds unless it stands in quotes: they carry on the sentence.
_STOPS_WORDS = (
    "and or but plus always never not while when whenever if unless as during go goes ask asks "
    "use uses should must may "
    "can will would is are be was within at on to per each every with then otherwise except "
    "only once the teacher student "
    "it we you up no than outside until all any some everything else other others rest"
)
STOPS = frozenset(_STOPS_WORDS.split())
_ALWAYS_STOPS = frozenset(
    {"and", "or", "but", "always", "never", "not", "to", "the", "all", "any", "some", "other", "a"}
)
_MODELS = re.compile(r"\b(?:teacher|student|it|them|model)\b")
_AGAIN = frozenset({"about", "regarding", "concerning"})
LONGEST = 6
MOST = 12

Item = tuple[int, int, bool]


# A topic ends before these: they say how much, how often or which way.
_BREAKS = frozenset(
    {"UNDER", "WITHIN", "OVER", "TARGET", "FLOOR", "NEVER", "ALWAYS", "ONLY", "PERCENT", "CALL", "TIMES", "TOKENS"}
    | {"CURRENCY", "PER", "PER_UNIT", "EVERYBODY", "RANDOM", "NO_LIMIT", "EXHAUSTED", "REJECT", "QUEUE", "OTHERWISE"}
)


def read(text: str, at: int) -> list[tuple[int, int, str | None]]:
    """The topics of a list that begins at `at`: (start, end, noun that belongs to it too)."""
    first = _item(text, at)
    if first is None:
        return []
    items = [first]
    while len(items) < MOST and (join := _JOIN.match(text, items[-1][1])) and (item := _item(text, join.end())):
        items.append(item)
    if first[2]:
        kept = 1
        while kept < len(items) and items[kept][2]:
            kept += 1
        return [(start, end, None) for start, end, _ in items[:kept]]
    noun_at = next((place for place, item in enumerate(items) if item[2]), None)
    if noun_at is not None and all(_short(text, item) for item in items[:noun_at]):
        noun = text[items[noun_at][0] : items[noun_at][1]].split()[-1]
        return [
            (start, end, None if place == noun_at else noun)
            for place, (start, end, _) in enumerate(items[: noun_at + 1])
        ]
    kept = 1
    while kept < len(items) and all(is_common(word) for word in text[items[kept][0] : items[kept][1]].split()):
        kept += 1
    return [(start, end, None) for start, end, _ in items[:kept]]


def goes_somewhere(text: str, found: list[tuple[int, int, str | None]]) -> bool:
    """True where "legal questions ..." is the subject of a rule: topics by their form, and a model named after them."""
    _, end, _ = found[-1]
    sentence = re.split(r"[.;!?\n]", text[end:], maxsplit=1)[0]
    named = ends_in_noun(text, found) or all(is_common(text[first:last]) for first, last, _ in found)
    return named and bool(_MODELS.search(sentence))


def ends_in_noun(text: str, found: list[tuple[int, int, str | None]]) -> bool:
    """True where the last topic is said as "legal questions", not as "law"."""
    start, end, _ = found[-1]
    words = text[start:end].split()
    return len(words) > 1 and words[-1] in NOUNS


def _item(text: str, at: int) -> Item | None:
    """One topic: its start, its end, and whether it ends in a noun such as "questions"."""
    end = at
    words: list[str] = []
    position = at
    noun_seen = False
    while len(words) < LONGEST and (match := _ITEM_WORD.match(text, position)):
        word = match[0]
        if _breaks(text, position) or (not words and not word[0].isalpha()) or (noun_seen and word not in _AGAIN):
            break
        noun_seen = word in NOUNS and bool(words)
        words.append(word)
        end = match.end()
        if text[end : end + 1] != " ":
            break
        position = end + 1
    if not words:
        return None
    return at, end, words[-1] in NOUNS and len(words) > 1


def _breaks(text: str, at: int) -> bool:
    """True where a word carries on the sentence; not where it belongs to a noun, as in "drug use questions"."""
    word, _, rest = text[at:].partition(" ")
    if rest.partition(" ")[0].rstrip(".,;:!?") in NOUNS and word not in _ALWAYS_STOPS:
        return False
    found = LEXICON.longest(text, at)
    return word in STOPS or bool(number(text, at)) or (found is not None and found[1].type in _BREAKS)


def _short(text: str, item: Item) -> bool:
    return len(text[item[0] : item[1]].split()) <= 2


def plain(topic: str) -> bool:
    """True for a topic that reads back as itself without quotation marks, before "always" or "never"."""
    if not topic.isascii() or topic != " ".join(topic.split()) or topic != topic.strip():
        return False
    text = f"{topic.lower()} always ask the teacher"
    found = read(text, 0)
    return [(start, end) for start, end, _ in found] == [(0, len(topic))] and topic.replace(" ", "").replace(
        "-", ""
    ).isalpha()
