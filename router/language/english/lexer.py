"""English text to lexemes: the longest phrase, number, time or name that stands at each place; nothing is passed over.

What is no word of the budget becomes an `UNKNOWN` lexeme, what wishes without saying how much a `VAGUE` one.
"""

import re
from fractions import Fraction
from typing import Any

from router.language import zones
from router.language.characters import Normal
from router.language.english import fate, topics
from router.language.english.context import resolved
from router.language.english.numbers import every, number, part
from router.language.english.words import DAY_WORDS, DAYS, LEXICON
from router.language.lexicon import SEPARATORS, Lexeme, boundary
from router.language.lexing import closing, lexeme, unescaped

_DAY = "|".join(sorted(DAY_WORDS, key=len, reverse=True)) + "|weekdays?|working days?|workdays?|week-?ends?"
_DAYS = re.compile(
    rf"(?:(?:on|at|every|each|from|during|the|all) ){{0,3}}(?P<days>(?:{_DAY})\b"
    r"(?:(?:, ?(?:and |or )?| and | or | ?& ?|/| ?- ?| to | through | till | until )"
    rf"(?:on |at |the ){{0,2}}(?:{_DAY})\b){{0,9}})"
)
_DAY_ONE = re.compile(
    r"(?P<join>, ?|and |& ?|or |/|- ?|to |through |till |until )?(?:on |at |the ){0,2}"
    rf"(?P<day>{_DAY})\b ?"
)
_EACH_DAY = re.compile(r"each|every")
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?:[:.h](?P<minute>\d{2}))?(?::00)? ?(?P<half>a\.m\.|p\.m\.|am\b|pm\b)"
    r"|(?P<hour24>\d{1,2})(?::|h)(?P<minute24>\d{2})(?::00)?(?: ?hrs| o'clock|h\b)?"
    r"|(?P<bare>\d{1,2}) ?(?:o'clock)"
    r"|(?P<word>noon|midday|midnight)\b"
)
_WEEK_START = re.compile(
    r"(?:(?:the )?weeks? (?:starts?|begins?|should start|are counted)|starting|beginning|"
    r"counted)(?: on| at| with| from)?(?: a| every)? "
    rf"(?P<day>{'|'.join(sorted(DAY_WORDS, key=len, reverse=True))})\b"
)
_ZONE_PATH = re.compile(
    r"(?:in |the |at ){0,3}(?P<name>[a-z_]{1,30}(?:/[a-z0-9_+-]{0,30}[a-z0-9]){1,2})(?![/a-z0-9_])"
    r"(?: time)?(?: zone)?\b"
)
_ZONE_TIME = re.compile(
    r"(?:in |the |at ){0,3}(?P<name>[a-z][a-z.']*(?: [a-z.']+){0,2}?) "
    r"(?:standard |local |daylight )?time(?:zone| zone)?\b"
)
_ZONE_SHORT = re.compile(r"(?:in )?(?P<name>utc|gmt|jst|kst|cet|cest|est|edt|pst|pdt|aest|bst)\b(?: time)?")
_ZONE_NAMED = re.compile(
    r"(?:the )?time ?zone(?: is| of|:| =)? (?P<name>[a-z_]{1,30}(?:/[a-z0-9_+-]{0,30}[a-z0-9]){0,2})\b"
)
_ZONE_ODD = re.compile(r"\b(?:ist|cst|local|my|our)\b")
_PTH = re.compile(r"p ?-?(?P<p>\d{1,2}(?:\.\d+)?|100)\b|(?P<th>\d{1,2}(?:\.\d+)?)(?:st|nd|rd|th) percentile\b")
_LONE_TAG = re.compile(
    r"(?:with |has |have |carry |carrying |bearing )?(?:the |a )?(?:tagged|tags?|labelled|"
    r"labeled)(?: with| as| is| are|:)? "
)
_GROUP = re.compile(
    r"(?:from |of |in |by |with |for )?(?:the )?(?:api )?(?:keys? (?:in|of|"
    r"from) (?:the )?)?(?:key |keys )?group(?: called| named|:)? "
)
_HEADER = re.compile(
    r"(?:with |whose |has |have |carrying |carry |when |if )?(?:the |a )?(?:http |request )?header(?: named| called)? "
)
_HEADER_IS = re.compile(r" ?(?:: ?|= ?|is set to |set to |equal to |equals |is |of |being )")
_NAME = re.compile(r"[\w.@/+-]*[\w@/+]")
_TONGUE = re.compile(r"(?:in )?(?:the )?language ")
_MALFORMED = re.compile(r"[.,]\d")
_WORD = re.compile(r"[\w'&+#@-]*\w")
_FOR = re.compile(
    r"(?:for|on|with|in case of|when it comes to|if it is|when it is) (?:the |any |all |anything |everything ){0,3}"
)
_ONCE_PER = re.compile(r" ?(?:per|a|an|each|every|in|daily|hourly|weekly|monthly|only|at most)\b|,? ?$|\.")


class Lexer:
    """One pass over one text."""

    def __init__(self, normal: Normal) -> None:
        self._normal = normal
        self._text = normal.text
        self._out: list[Lexeme] = []

    def lexemes(self) -> list[Lexeme]:
        at = 0
        while at < len(self._text):
            at = at + 1 if self._text[at] == " " else self._next(at)
        return resolved(self._out)

    def _put(self, type_: str, first: int, last: int, meaning: Any = None) -> int:
        if type_ == "OF_REQUESTS":  # "of the time"
            self._out.append(lexeme("OF", self._text, first, first + 2))
            type_, first = "REQUEST", first + 3
        if type_ != "SKIP":
            self._out.append(lexeme(type_, self._text, first, last, meaning))
        return last

    def _next(self, at: int) -> int:
        text = self._text
        if text[at] == '"':
            return self._quoted(at)
        for special in (self._fate, self._named, self._time, self._topic):
            end = special(at)
            if end is not None:
                return end
        found = LEXICON.longest(text, at)
        best, kind, meaning = (found[0], found[1].type, found[1].meaning) if found else (at, "UNKNOWN", None)
        counted = number(text, at)
        if counted and counted[0] > best:
            best, kind, meaning = counted[0], "NUM", counted[1]
            if _MALFORMED.match(text, best):
                return self._put("MALFORMED", at, _WORD_END.match(text, best).end())  # type: ignore[union-attr]
        shared = part(text, at) or every(text, at)
        if shared and shared[0] > best:
            best, kind, meaning = shared[0], "PART", shared[1]
        if kind == "ABOUT":
            return self._about(at, best)
        if kind == "UNKNOWN":
            word = _WORD.match(text, at)
            return self._put("UNKNOWN", at, word.end() if word else at + 1)
        if kind == "UNIT" and text[at : at + 1] == "m" and best == at + 1 and not self._after_number():
            return self._put("UNKNOWN", at, best)
        if kind == "TIMES" and text.startswith("once", at) and not _ONCE_PER.match(text, best):
            return best  # "once the budget is exhausted"
        if kind == "RANGE" and not self._between_numbers(at, best):
            return self._put("COMMA" if text[at - 1 : at] == " " else "SKIP", at, best)
        return self._put(kind, at, best, meaning)

    def _after_number(self) -> bool:
        return bool(self._out) and self._out[-1].type == "NUM"

    def _between_numbers(self, at: int, end: int) -> bool:
        rest = self._text[end : end + 2].lstrip()
        return bool(self._out) and self._out[-1].type in ("NUM", "CLOCK") and rest[:1].isdigit() and at > 0

    def _quoted(self, at: int) -> int:
        end = closing(self._text, at + 1, '"')
        if end is None:
            return self._put("UNKNOWN", at, len(self._text))
        value = unescaped(self._normal.written(at + 1, end - 1))
        zone = re.compile(r" time\b").match(self._text, end)
        if zone and zones.exists(value):
            return self._put("ZONE", at, zone.end(), value)
        return self._put("UNKNOWN", at, end)

    def _string(self, at: int) -> tuple[int, str] | None:
        """A name at `at`, bare or in quotes, as it was written."""
        if self._text[at : at + 1] == '"':
            end = closing(self._text, at + 1, '"')
            if end is None or end == at + 2:
                return None
            return end, unescaped(self._normal.written(at + 1, end - 1))
        match = _NAME.match(self._text, at)
        return (match.end(), self._normal.written(at, match.end())) if match else None

    def _fate(self, at: int) -> int | None:
        if not boundary(self._text, at):
            return None
        end = fate.exhausted(self._text, at)
        if end is not None:
            return self._put("EXHAUSTED", at, end)
        found = fate.outcome(self._text, at)
        return self._put(found[0], at, found[1]) if found else None

    def _named(self, at: int) -> int | None:
        """Tags, headers, key groups and languages: a word that announces a name, and the name."""
        if not boundary(self._text, at):
            return None
        for type_, opening in (("TAG", _LONE_TAG), ("GROUP", _GROUP), ("TONGUE", _TONGUE)):
            match = opening.match(self._text, at)
            found = self._string(match.end()) if match else None
            if found:
                return self._put(type_, at, found[0], found[1])
        match = _HEADER.match(self._text, at)
        name = self._string(match.end()) if match else None
        if name is None:
            return None
        link = _HEADER_IS.match(self._text, name[0])
        value = self._string(link.end()) if link else None
        if value is None:
            return None
        return self._put("HEADER", at, value[0], (name[1].lower(), value[1]))

    def _time(self, at: int) -> int | None:
        """Days, clock times, time zones, the first day of the week, quantiles."""
        text = self._text
        if not boundary(text, at):
            return None
        if match := _WEEK_START.match(text, at):
            return self._put("WEEK_START", at, match.end(), DAYS.index(DAY_WORDS[match["day"]]))
        if match := _DAYS.match(text, at):
            each = bool(_EACH_DAY.search(self._text[at : match.start("days")]))
            return self._put("DAYS", at, match.end(), (_days(match["days"]), each))
        if match := _PTH.match(text, at):
            return self._put("PTH", at, match.end(), Fraction(match["p"] or match["th"]) / 100)
        if (match := _CLOCK.match(text, at)) and boundary(text, match.end()):
            return self._put("CLOCK", at, match.end(), _minutes(match))
        return self._zone(at)

    def _zone(self, at: int) -> int | None:
        text = self._text
        for pattern in (_ZONE_NAMED, _ZONE_PATH, _ZONE_SHORT, _ZONE_TIME):
            match = pattern.match(text, at)
            if match is None:
                continue
            name = zones.zone(self._normal.written(match.start("name"), match.end("name")))
            if name:
                return self._put("ZONE", at, match.end(), name)
            if pattern is _ZONE_TIME and match[0].startswith("in ") and self._unknown(match.start("name")):
                return self._put("NO_ZONE", match.start("name"), match.end())
            if pattern is _ZONE_NAMED or (pattern is _ZONE_PATH and match["name"].split("/")[0] in zones.AREAS):
                return self._put("NO_ZONE", match.start("name"), match.end("name"))
        return None

    def _topic(self, at: int) -> int | None:
        """ "for legal questions", or "Legal questions always go to the teacher" where a clause begins."""
        text = self._text
        if not boundary(text, at):
            return None
        match = _FOR.match(text, at)
        start = match.end() if match else at
        if text[start : start + 1] == '"' and match:
            found = self._string(start)
            return self._put("TOPIC", at, found[0], found[1]) if found else None
        if match is None and (self._out and self._out[-1].type not in SEPARATORS):
            return None
        if not self._unknown(start):
            return None
        read = topics.read(text, start)
        if match is None and not (read and topics.goes_somewhere(text, read)):
            return None
        # A topic that opens a sentence has its capital from there.
        if match and match[0].startswith(("on", "with")) and read and not topics.ends_in_noun(text, read):
            return None  # "on Blursday" is a day that nobody knows, no topic
        return self._topics(read, lowered=match is None) if read else None

    def _about(self, at: int, end: int) -> int:
        text = self._text
        start = end + 1 if text[end : end + 1] == " " else end
        if text.startswith("about", at) and (
            number(text, start)
            or part(text, start)
            or text[start : start + 1] in "$€£¥₹₩~"
            or text.startswith("once", start)
        ):
            return self._put("TARGET", at, end)
        if text[start : start + 1] == '"':
            found = self._string(start)
            if found:
                return self._put("TOPIC", at, found[0], found[1])
        read = topics.read(text, start)
        return self._topics(read) if read else self._put("UNKNOWN", at, end)

    def _topics(self, read: list[tuple[int, int, str | None]], lowered: bool = False) -> int:
        for first, last, noun in read:
            topic = self._normal.written(first, last)
            if lowered and topic[1:2].islower():
                topic = topic[0].lower() + topic[1:]
            self._put("TOPIC", first, last, " ".join((f"{topic} {noun}" if noun else topic).split()))
        return read[-1][1]

    def _unknown(self, at: int) -> bool:
        """True where no word of the budget stands at `at`."""
        if at >= len(self._text) or not self._text[at].isalpha():
            return False
        found = LEXICON.longest(self._text, at)
        if found:
            return False
        return not (number(self._text, at) or part(self._text, at) or _DAYS.match(self._text, at))


_WORD_END = re.compile(r"[\d.,]*\d")


def _days(written: str) -> tuple[str, ...]:
    """The days of a list with ranges, in the order of the week."""
    chosen: set[str] = set()
    last: str | None = None
    for match in _DAY_ONE.finditer(written):
        word, join = match["day"], (match["join"] or "").strip()
        if word.startswith(("weekd", "work")):
            chosen.update(DAYS[:5])
        elif word.startswith("week"):
            chosen.update(DAYS[5:])
        elif join in ("-", "to", "through", "till", "until") and last:
            first, end = DAYS.index(last), DAYS.index(DAY_WORDS[word])
            chosen.update(DAYS[(first + step) % 7] for step in range((end - first) % 7 + 1))
        else:
            chosen.add(DAY_WORDS[word])
        last = DAY_WORDS.get(word)
    return tuple(day for day in DAYS if day in chosen)


def _minutes(match: re.Match[str]) -> int:
    """Minutes since midnight; -1 for a time that no clock shows."""
    if match["word"]:
        return 0 if match["word"] == "midnight" else 720
    hour = int(match["hour"] or match["hour24"] or match["bare"])
    minute = int(match["minute"] or match["minute24"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            return -1
        hour = hour % 12 + (12 if match["half"].startswith("p") else 0)
    if minute > 59 or hour > 24 or (hour == 24 and minute):
        return -1
    return 60 * hour + minute
