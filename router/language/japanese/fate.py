"""What becomes of a request that finds the budget exhausted: 「使い切ったら」, 「429を返す」."""

import re

_AFTER = (
    r"(?:たら|た場合(?:に)?(?:は)?|た時(?:は)?|たとき(?:は)?|た後(?:は)?|たあと(?:は)?|ば|ると|"
    r"たなら|てからは?|る場合は?)"
)
_EXHAUSTED = re.compile(
    r"(?:(?:予算|上限|制限|枠|限度|クォータ|残り|割り当て|割当)(?:額)?(?:が|を|に|は|の)?)?"
    rf"(?:(?:使い切っ|使いきっ|使い果たし|使いはたし|尽き|つき|達し|到達し|なくなっ|無くなっ|"
    rf"切れ|きれ|枯渇し|超え|超過し|オーバーし|越え|消化し|ゼロになっ)"
    rf"{_AFTER}|切れの?(?:場合|とき|時|際)(?:は|に)?|切れ(?:なら|では|は)|残っていなければ|"
    rf"残りがなければ|がなければ|を使い切ると|が尽きると|に達すると|がなくなると)"
    r"|(?:予算|上限|枠)切れ(?:なら|では|は|のとき(?:は)?|の場合(?:は)?|の際(?:は)?)?"
    r"|使い切ると|尽きると|達すると|なくなると"
)
# A bare 429 is an error only where no noun follows it: 「429回」 is an amount.
_ERROR = r"(?:(?:http )?(?:429)? ?エラー(?: ?429)?|(?:http )?429(?= ?(?:$|[を、。)\n]|で返|で断|で拒)))"
_REJECT = re.compile(
    rf"{_ERROR} ?(?:を返す|を返して(?:ください)?|を返します|を返却(?:する)?|を返し|にする|"
    rf"にします|とする|で返す|で断る|で拒否(?:する)?|で応答(?:する)?|で答える|を出す|になる)?"
    r"|(?:リクエスト(?:は|を))?(?:拒否|却下)(?:する|して(?:ください)?|します|される|とする)?|"
    r"断る|断って|断ります|受け付けない"
)
_QUEUE = re.compile(
    r"(?:キュー|待ち行列|列)(?:に(?:入れる|入れて(?:待たせる)?|積む|並ばせる|並べる)|で(?:待つ|"
    r"待たせる|待機(?:する|させる)?))"
    r"|待(?:つ|って|たせる|たせて|たせます|ちます)(?:ください)?|待機(?:する|させる|させて|します)?|順番待ち(?:にする)?"
)


def exhausted(text: str, at: int) -> int | None:
    """The end of words that say the budget is used up."""
    match = _EXHAUSTED.match(text, at)
    return match.end() if match else None


def outcome(text: str, at: int) -> tuple[str, int] | None:
    """REJECT or QUEUE, and where the words for it end."""
    for type_, pattern in (("REJECT", _REJECT), ("QUEUE", _QUEUE)):
        match = pattern.match(text, at)
        if match and match[0]:
            return type_, match.end()
    return None
