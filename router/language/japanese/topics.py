"""Where a topic stands: before 「の質問」「については」, and nowhere else, so that nothing strange becomes one."""

import re

_NOUN = (
    r"(?:質問|リクエスト|相談|話題|問題|依頼|問い合わせ|プロンプト|内容|話|件|もの|こと|"
    r"メッセージ|クエリ|案件|会話|文章|作業|タスク|仕事)"
)
_ABOUT = r"(?:に関する|についての|に関わる|にかかわる|に関連する|関連の|関係の|がらみの|系の|の)"
# What may follow a topic: the noun that is asked about, or a particle that sets the topic off.
AFTER = re.compile(
    rf"(?:{_ABOUT}{_NOUN}|については|に関しては|についてなら|について|に関して(?=必ず|常に|教師|生徒)|関係は)"
)
# A list of topics holds words without hiragana; a single topic may hold any.
_WORD = r"[一-龯々ァ-ヶーa-z0-9]{1,12}?"
_LIST = re.compile(
    rf"(?P<items>{_WORD}(?:(?:、|や|と|・|または|か|および|もしくは) ?{_WORD}){{1,7}})(?=(?:など)?{AFTER.pattern})"
)
_ONE = re.compile(rf"(?P<one>[^\s、。,.!?「」『』\"()を:;]{{1,20}}?)(?=(?:など)?{AFTER.pattern})")
_JOIN = re.compile("、 ?|や|と|・|または|か|および|もしくは")
# Set off by は or には, only with a model named after it: 「雑談には教師を使わない」.
_SET_OFF = re.compile(
    r"(?P<one>[^\s、。,.!?「」『』\"()をはがにで:;]{1,12})(?:には|は|なら|ならば)、?(?=[^。]*(?:教師|生徒|それ))"
)


def read(text: str, at: int) -> tuple[list[tuple[int, int]], int] | None:
    """The topics that stand at `at` as (start, end), and the end of the words that make them topics."""
    for pattern in (_LIST, _ONE):
        match = pattern.match(text, at)
        if match is None:
            continue
        last = re.compile(rf"(?:など)?(?:{AFTER.pattern})").match(text, match.end())
        end = last.end() if last else match.end()
        if pattern is _ONE:
            return [(at, match.end())], end
        return _items(text, at, match.end()), end
    match = _SET_OFF.match(text, at)
    return ([(at, match.end("one"))], match.end()) if match else None


def _items(text: str, at: int, end: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    start = at
    for join in _JOIN.finditer(text, at, end):
        if join.start() > start:
            found.append((start, join.start()))
            start = join.end()
    return [*found, (start, end)]


def plain(topic: str) -> bool:
    """True for a topic that reads back as itself before 「に関するリクエスト」 without quotation marks."""
    if not re.fullmatch("[一-龯々ァ-ヶー]{1,12}", topic):
        return False
    from router.language.japanese.words import LEXICON

    text = f"{topic}に関するリクエストは必ず教師モデルに聞く"
    return LEXICON.longest(text, 0) is None and read(text, 0) == ([(0, len(topic))], len(topic) + 9)
