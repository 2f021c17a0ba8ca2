"""Japanese text to lexemes: no spaces to go by, so at each place the longest thing that is known stands.

What is no word of the budget becomes an `UNKNOWN` lexeme, what wishes without saying how much a `VAGUE` one.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from router.budget import When
from router.language import zones
from router.language.characters import Normal
from router.language.grammar import whole
from router.language.japanese import fate, topics
from router.language.japanese.numbers import number, part
from router.language.japanese.times import AFTER, CLOCK, DAY_LIST, HOURS, KANJI_DAYS, days, either_half, minutes
from router.language.japanese.words import LEXICON
from router.language.lexicon import Lexeme, boundary
from router.language.lexing import closing, lexeme, unescaped
from router.language.pieces import Condition

_ZONE_PATH = re.compile(
    r"(?P<name>[a-z_]{1,30}(?:/[a-z0-9_+-]{0,30}[a-z0-9]){1,2})(?![/a-z0-9_])(?: ?(?:標準時|時間|時刻))?"
)
_ZONE_SHORT = re.compile(
    r"(?P<name>utc|gmt|jst|kst|cet|cest|est|edt|pst|pdt|aest|bst)(?![a-z])(?: ?(?:標準時|時間|時刻))?"
)
_ZONE_NAME = re.compile(
    rf"(?P<name>{'|'.join(sorted(zones.JAPANESE, key=len, reverse=True))})(?:の)?(?:標準時|時間|時刻|時)"
)
_ZONE_QUOTED = re.compile(r" ?(?:標準時|時間|時刻)")
_WEEK_START = re.compile(
    r"(?:週|1週間|一週間)(?:は|の)(?:始まり|開始|初め|はじめ|最初)?(?:は|"
    r"を)?(?P<a>[月火水木金土日])曜日?(?:始まり|に始まる|から始まる|から|開始|とする)?"
    r"|(?P<b>[月火水木金土日])曜日?(?:始まり|開始|はじまり|から始まる|に始まる)(?:の)?"
)
_UNIT = re.compile(
    r"(?P<ms>ミリ秒|ms(?![a-z]))|(?P<second>秒間?|s(?![a-z]))|(?P<minute>分間?)|(?P<hour>時間|"
    r"h(?![a-z]))|(?P<day>日間?)|(?P<week>週間?)"
    r"|(?P<month>[かヶカケ箇個ヵ]月間?|月間|月)|(?P<year>年間?)|(?P<quarter>四半期)"
)
_UNITS = {
    "ms": (1, "millisecond"),
    "second": (1, "second"),
    "minute": (1, "minute"),
    "hour": (1, "hour"),
    "day": (1, "day"),
    "week": (1, "week"),
    "month": (1, "month"),
    "year": (12, "month"),
    "quarter": (3, "month"),
}
_WHOM = {
    "key": "apiキー|api鍵|apikey|キー|鍵",
    "user": "エンドユーザー|ユーザー|ユーザ|利用者|使用者|人",
    "tenant": "テナント|組織|団体",
    "model": "モデル",
}
_EACH_OF = "ごとに|ごと|毎に|毎|別に|別|あたり|当たり|につき|に付き|単位で|単位"
_EACH = {
    scope: re.compile(
        rf"(?:各|それぞれの)(?:{names})(?:ごとに|ごと|は|が|に|につき)?"
        rf"|(?:1|一)?(?:つの|個の)?(?:{names})(?:(?:1|一)(?:人|つ|個|件)?)?(?:{_EACH_OF})"
        + rf"|(?:1|一)(?:{names})(?= ?\d)"
        + (r"|(?:1|一)人(?:あたり|当たり|につき|ごとに?)" if scope == "user" else "")
    )
    for scope, names in _WHOM.items()
}
_RATIO = re.compile(
    r" ?(?:回|件|リクエスト|問|質問|個)(?:の(?:リクエスト|質問|うち))?(?:に|中|のうち|につき|"
    r"あたり|当たり|に対して|に対し|の中で)(?!つ)"
)
_RATIO_END = re.compile(r" ?(?:回|件|リクエスト|問|度)")
# 「平均して1リクエスト0.003ドル」: per request, though no word for "per" is there.
_PER_REQUEST = re.compile(
    r"(?:平均(?:して|で|すると)?(?:1|一)(?:リクエスト|件)(?:あたり|当たり|につき)?|(?:1|一)(?:リクエスト|件)(?:の)?平均(?:で)?)"
    r"(?= ?[$\d])"
)
_MONTHS = re.compile(r"月(?:間)?(?=の(?:上限|限度|予算|最大))")
_COUNTER = re.compile(r" ?(?:回|度|コール)(?!り)(?:分|ずつ)?(?:の(?:呼び出し|利用|使用))?")
_SHARE_OF_ANSWERS = re.compile(r"(?:の|のうち|のうちの)?(?:回答|応答|返答|返事)")
_ANSWERS = re.compile(r"(?:回答|応答|返答|返事)(?:の|のうち|のうちの|は)")
_PTH = re.compile(r"p ?-?(?P<p>\d{1,2}(?:\.\d+)?|100)(?!\d)")
_LENGTH = re.compile(
    r" ?トークン(?P<way>を超える|超えの|超の|より長い|より多い|以上の|以上ある|より短い|"
    r"より少ない|未満の|以下の|以内の)"
    r"(?:長い|短い)?(?=(?:リクエスト|質問|プロンプト|文章|依頼|問い合わせ|入力|もの|メッセージ|相談|クエリ|会話))"
)
_LENGTHS = {
    "以上の": ("longer_than_tokens", -1),
    "以上ある": ("longer_than_tokens", -1),
    "より短い": ("shorter_than_tokens", 0),
    "より少ない": ("shorter_than_tokens", 0),
    "未満の": ("shorter_than_tokens", 0),
    "以下の": ("shorter_than_tokens", 1),
    "以内の": ("shorter_than_tokens", 1),
}
_TAIL = r"(?:の)?(?:タグ)?(?:の|が|を)?(?:付いた|ついた|付いている|ついている|付きの|つきの|持つ|付けられた)?(?:の)?"
_TAG = re.compile(r"タグ(?:が|は|名|:| )? ?")
_TAG_END = re.compile(
    r"(?:タグ)?(?:の|が|を)?(?:付いた|ついた|付いている|ついている|付きの|付き|つきの|持つ|付けられた)?(?:の)?"
)
_TAG_AFTER = re.compile(r" ?タグ")
_GROUP = re.compile(r"(?:apiキー|キー|鍵)?の?グループ(?:が|は|名|:| )? ?")
_GROUP_END = re.compile(r"(?:に属する|に入る|の)?(?:キー|apiキー|鍵)?(?:からの|の)?")
_GROUP_AFTER = re.compile(r" ?(?:キー)?グループ")
_HEADER = re.compile(r"(?:http ?)?ヘッダー?(?:の|が|に|:| )? ?")
_HEADER_IS = re.compile(r" ?(?:が|は|=|:|に) ?")
_HEADER_END = re.compile(r"(?:である|の)?")
_TONGUE = re.compile(r"言語(?:が|は|:| )? ?")
_KANJI = re.compile("[一-龯々]")
_NAME = re.compile(r"[a-z0-9_.@/+-]*[a-z0-9_@/+]")
_LATIN = re.compile(r"[a-z0-9_@.-]*[a-z0-9_@]")
_MALFORMED = re.compile(r"[.,]\d")
_FIGURES_END = re.compile(r"[\d.,]*\d")
_CLOSING = {"「": "」", "『": "』", '"': '"'}


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
        out = self._out
        return [
            word
            for place, word in enumerate(out)
            if not (word.type == "VAGUE_TIME" and _hours_follow(out[place + 1 : place + 4]))
        ]

    def _put(self, type_: str, first: int, last: int, meaning: Any = None) -> int:
        if type_ == "UNKNOWN" and self._out and self._out[-1].type == "UNKNOWN" and self._out[-1].last == first:
            first = self._out.pop().first  # a run of strange characters is one phrase
        if type_ != "SKIP":
            self._out.append(lexeme(type_, self._text, first, last, meaning))
        return last

    def _next(self, at: int) -> int:
        text = self._text
        if average := _PER_REQUEST.match(text, at):
            self._put("AVERAGE", at, at)
            self._put("REQUEST", at, average.end())
            return self._put("PER", average.end(), average.end())
        steps: tuple[Callable[[int], int | None], ...] = (self._named, self._quoted, self._time, self._fate, self._each)
        for step in steps:
            end = step(at)
            if end is not None:
                return end
        if self._out and self._out[-1].type == "MARK" and (unit := _UNIT.match(text, at)):
            return self._put("UNIT", at, unit.end(), _UNITS[unit.lastgroup or ""])
        found = LEXICON.longest(text, at)
        best = found[0] if found else at
        end = self._number(at, best)
        if end is not None:
            return end
        if found and found[1].type != "SKIP":
            return self._put(found[1].type, at, best, found[1].meaning)
        if found and not self._runs_on(best):
            return best
        end = self._topic(at)
        if end is not None:
            return end
        latin = _LATIN.match(text, at)
        return self._put("UNKNOWN", at, latin.end() if latin else at + 1)

    def _runs_on(self, at: int) -> bool:
        """True inside a word written in Chinese characters: 量 says nothing, but 量子 is another word."""
        around = self._text[at - 1 : at + 1]
        return len(_KANJI.findall(around)) == 2 and not (LEXICON.longest(self._text, at) or number(self._text, at))

    def _number(self, at: int, best: int) -> int | None:
        """Numbers, and what is said with them: units of time, ratios, lengths, quantiles."""
        text = self._text
        shared = part(text, at)
        counted = number(text, at)
        if shared and shared[0] > best and (counted is None or shared[0] > counted[0]):
            answers = _SHARE_OF_ANSWERS.match(text, shared[0])
            if answers:
                return self._put("PTH", at, answers.end(), shared[1])
            return self._put("PART", at, shared[0], shared[1])
        if counted is None or counted[0] <= best:
            return None
        end, value = counted
        if _MALFORMED.match(text, end):
            return self._put("MALFORMED", at, _FIGURES_END.match(text, end).end())  # type: ignore[union-attr]
        if length := _LENGTH.match(text, end):
            return self._length(at, length, value)
        if (ratio := _RATIO.match(text, end)) and (taken := number(text, ratio.end())):
            last = _RATIO_END.match(text, taken[0])
            if last and value > 0:
                return self._put("PART", at, last.end(), taken[1] / value)
        percent = re.compile(r" ?(?:%|パーセント)").match(text, end)
        if percent and (answers := _SHARE_OF_ANSWERS.match(text, percent.end())):
            return self._put("PTH", at, answers.end(), value / 100)
        self._put("NUM", at, end, value)
        unit = _UNIT.match(text, end + 1 if text[end : end + 1] == " " else end)
        if unit and boundary(text, unit.end()):
            return self._put("UNIT", unit.start(), unit.end(), _UNITS[unit.lastgroup or ""])
        counter = _COUNTER.match(text, end)
        return self._put("CALL", counter.start(), counter.end()) if counter else end

    def _length(self, at: int, match: re.Match[str], value: Fraction) -> int:
        name, more = _LENGTHS.get(match["way"], ("longer_than_tokens", 0))
        tokens = whole(value) + more
        when = When(longer_than_tokens=tokens) if name == "longer_than_tokens" else When(shorter_than_tokens=tokens)
        self._out.append(
            Lexeme.make("PIECE", self._text[at : match.end()], at, match.end(), Condition(at, match.end(), when))
        )
        return match.end()

    def _quoted(self, at: int) -> int | None:
        text = self._text
        if text[at] not in _CLOSING:
            return None
        found = self._string(at)
        if found is None:
            return self._put("UNKNOWN", at, len(text))
        end, value = found
        if (zone := _ZONE_QUOTED.match(text, end)) and zones.exists(value):
            return self._put("ZONE", at, zone.end(), value)
        if tag := _TAG_AFTER.match(text, end):
            return self._put("TAG", at, _TAG_END.match(text, tag.end()).end(), value)  # type: ignore[union-attr]
        if group := _GROUP_AFTER.match(text, end):
            return self._put("GROUP", at, _GROUP_END.match(text, group.end()).end(), value)  # type: ignore[union-attr]
        after = topics.AFTER.match(text, end)
        if after:
            return self._put("TOPIC", at, after.end(), value)
        return self._put("UNKNOWN", at, end)

    def _string(self, at: int) -> tuple[int, str] | None:
        """A name at `at`, in quotation marks or in Latin letters, as it was written."""
        mark = _CLOSING.get(self._text[at : at + 1])
        if mark:
            end = closing(self._text, at + 1, mark)
            if end is None or end == at + 2:
                return None
            return end, unescaped(self._normal.written(at + 1, end - 1))
        match = _NAME.match(self._text, at)
        return (match.end(), self._normal.written(at, match.end())) if match else None

    def _named(self, at: int) -> int | None:
        """Tags, headers, key groups and languages: a word that announces a name, and the name."""
        text = self._text
        for type_, opening, ending in (
            ("TAG", _TAG, _TAG_END),
            ("GROUP", _GROUP, _GROUP_END),
            ("TONGUE", _TONGUE, _GROUP_END),
        ):
            match = opening.match(text, at)
            found = self._string(match.end()) if match else None
            if found:
                return self._put(type_, at, ending.match(text, found[0]).end(), found[1])  # type: ignore[union-attr]
        for type_, after, ending in (("TAG", _TAG_AFTER, _TAG_END), ("GROUP", _GROUP_AFTER, _GROUP_END)):
            bare = _NAME.match(text, at)
            named = after.match(text, bare.end()) if bare else None
            if bare and named:
                value = self._normal.written(at, bare.end())
                return self._put(type_, at, ending.match(text, named.end()).end(), value)  # type: ignore[union-attr]
        match = _HEADER.match(text, at)
        name = self._string(match.end()) if match else None
        link = _HEADER_IS.match(text, name[0]) if name else None
        worth = self._string(link.end()) if link else None
        if name is None or worth is None:
            return None
        return self._put("HEADER", at, _HEADER_END.match(text, worth[0]).end(), (name[1].lower(), worth[1]))  # type: ignore[union-attr]

    def _fate(self, at: int) -> int | None:
        end = fate.exhausted(self._text, at)
        if end is not None:
            return self._put("EXHAUSTED", at, end)
        found = fate.outcome(self._text, at)
        return self._put(found[0], at, found[1]) if found else None

    def _each(self, at: int) -> int | None:
        for scope, pattern in _EACH.items():
            match = pattern.match(self._text, at)
            if match:
                return self._put("EACH", at, match.end(), scope)
        return None

    def _time(self, at: int) -> int | None:
        """Hours, days, time zones, the first day of the week, quantiles."""
        text = self._text
        if month := _MONTHS.match(text, at):
            return self._put("PER_UNIT", at, month.end(), (1, "month"))
        if match := _WEEK_START.match(text, at):
            return self._put("WEEK_START", at, match.end(), KANJI_DAYS.index(match["a"] or match["b"]))
        if match := HOURS.match(text, at):
            first, last = minutes(match, "a"), minutes(match, "b")
            return self._hours(at, match.end(), -2 if either_half(match, first, last) else first, last)
        if match := AFTER.match(text, at):
            at_clock = minutes(match, "a")
            after = match["way"] in ("以降", "以後", "から")
            return self._hours(at, match.end(), at_clock if after else 0, 1440 if after else at_clock)
        if (match := CLOCK.match(text, at)) and match["houra"]:
            return self._put("UNKNOWN", at, match.end())
        if match := DAY_LIST.match(text, at):
            each = bool(match["each"])
            return self._put("DAYS", at, match.end(), (days(match["days"]), each))
        if boundary(text, at) and (match := _PTH.match(text, at)):
            return self._put("PTH", at, match.end(), Fraction(match["p"]) / 100)
        if (match := _ANSWERS.match(text, at)) and (end := self._answers(at, match.end())):
            return end
        return self._zone(at)

    def _answers(self, at: int, start: int) -> int | None:
        """回答の95%: the quantile after its noun."""
        shared = part(self._text, start)
        if shared:
            return self._put("PTH", at, shared[0], shared[1])
        counted = number(self._text, start)
        percent = re.compile(r" ?(?:%|パーセント)").match(self._text, counted[0]) if counted else None
        return self._put("PTH", at, percent.end(), counted[1] / 100) if counted and percent else None

    def _hours(self, at: int, end: int, first: int, last: int) -> int:
        return self._put("HOURS", at, end, (first, last))

    def _zone(self, at: int) -> int | None:
        text = self._text
        if not boundary(text, at):
            return None
        for pattern in (_ZONE_PATH, _ZONE_SHORT, _ZONE_NAME):
            match = pattern.match(text, at)
            if match is None:
                continue
            name = zones.zone(self._normal.written(match.start("name"), match.end("name")))
            if name:
                return self._put("ZONE", at, match.end(), name)
            if pattern is _ZONE_PATH and match["name"].split("/")[0] in zones.AREAS:
                return self._put("NO_ZONE", match.start("name"), match.end("name"))
        return None

    def _topic(self, at: int) -> int | None:
        """法律や医療の質問: topics before the noun that is asked about."""
        read = topics.read(self._text, at)
        if not read:
            return None
        found, end = read
        for first, last in found:
            self._put("TOPIC", first, last, self._normal.written(first, last).strip())
        return end


def _hours_follow(rest: list[Lexeme]) -> bool:
    """True where 「業務時間(9時から18時)」 says itself which hours it means."""
    types = [word.type for word in rest if word.type not in ("COMMA", "COLON", "DAYS")]
    return types[:1] == ["HOURS"]
