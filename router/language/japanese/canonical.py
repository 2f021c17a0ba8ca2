"""The Japanese canonical sentence: every limit in the one way that leaves nothing open."""

from router.budget import Budget, During, Limit, Measure, Rule, When, Window
from router.language import tongues
from router.language.figures import exact, money, share, thousands
from router.language.japanese import topics
from router.language.lexing import escaped

DAY_NAMES = dict(zip(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "月火水木金土日", strict=True))
SCOPES = {
    "all": "",
    "key": "APIキーごとに",
    "user": "ユーザーごとに",
    "tenant": "テナントごとに",
    "model": "モデルごとに",
}
SUBJECTS: dict[Measure, str] = {
    "share": "教師モデルへのリクエスト",
    "calls": "教師モデルの呼び出し",
    "concurrent": "教師モデルの呼び出し",
    "tokens": "教師モデルのトークン",
    "token_share": "教師モデルのトークン",
    "usd": "教師モデルの費用",
}
UNITS = {"second": "秒", "minute": "分", "hour": "時間", "day": "日", "week": "週", "month": "月"}
SPANS = {"day": "日間", "week": "週間", "month": "か月間"}


def sentences(budget: Budget, explicit: bool) -> list[str]:
    """One sentence per statement. `explicit` names time zones and first days of the week also where they are usual."""
    out = [f"{limit(one, explicit)}。" for one in budget.limits]
    if not out:
        out.append("教師モデルは無制限とする。")
    out += [f"{rule(one)}。" for one in budget.rules]
    if budget.explore is not None:
        out.append(f"リクエストの{share(budget.explore, over='{below}分の{above}')}は無作為に決める。")
    out.append(f"予算を使い切ったら{_fate(budget)}。")
    return out


def _fate(budget: Budget) -> str:
    if budget.when_exhausted == "reject":
        return "エラー429を返す"
    if budget.when_exhausted == "queue":
        return f"最大{exact(budget.queue_s)}秒待たせる"
    return "生徒モデルが答える"


def limit(one: Limit, explicit: bool = False) -> str:
    """The words of one limit, without a full stop."""
    circumstances = _times(one.during, one.per, explicit) + SCOPES[one.scope] + _window(one.per, explicit)
    if one.measure == "latency_s":
        words = f"回答の{share(one.quantile or 0.0, over='{below}分の{above}')}は{circumstances}{exact(one.at_most)}秒"
        return words + ("を目安とする" if one.kind == "target" else "以内とする")
    if one.per is None and one.measure in ("calls", "tokens", "usd"):
        circumstances += "通算で"
    return f"{SUBJECTS[one.measure]}は{circumstances}{_amount(one)}" + (
        "を目安とする" if one.kind == "target" else "以下とする"
    )


def _amount(one: Limit) -> str:
    if one.measure in ("share", "token_share"):
        of = "全体の" if one.measure == "share" else ""
        return of + share(one.at_most, over="{below}分の{above}")
    if one.measure == "usd":
        return f"{money(one.at_most)}ドル"
    if one.measure == "tokens":
        return f"{thousands(one.at_most)}トークン"
    return ("同時に" if one.measure == "concurrent" else "") + f"{thousands(one.at_most)}回"


def _window(per: Window | None, explicit: bool) -> str:
    if per is None:
        return ""
    if per.unit == "request":
        return "リクエストあたり平均"
    if per.unit in ("second", "minute", "hour"):
        return f"{per.n}{UNITS[per.unit]}あたり"
    if per.rolling:
        return f"連続する{per.n}{SPANS[per.unit]}あたり"
    start = (
        f"{DAY_NAMES[DAYS[per.week_start]]}曜始まりの" if per.unit == "week" and (per.week_start or explicit) else ""
    )
    return f"{start}{'' if per.n == 1 else per.n}暦{UNITS[per.unit]}あたり"


DAYS = tuple(DAY_NAMES)


def zone(tz: str) -> str:
    """Asia/Tokyo時間の; a name without a region stands in quotes, so that nothing else can be read into it."""
    return f"{tz}時間の" if "/" in tz or tz == "UTC" else f"「{tz}」時間の"


def _times(during: During | None, per: Window | None, explicit: bool) -> str:
    """The hours, and the zones of hours and window: both where they differ, none where they are UTC."""
    windowed = per is not None and not per.rolls and per.unit != "request"
    tz = per.tz if per is not None and windowed else None
    if during is None:
        return zone(tz) if tz and (tz != "UTC" or explicit) else ""
    said = explicit or during.tz != "UTC" or (tz or "UTC") != "UTC"
    return (zone(during.tz) if said else "") + _hours(during) + (zone(tz) if tz and said else "")


def _hours(during: During) -> str:
    days = {"mon tue wed thu fri": "平日", "sat sun": "週末"}.get(" ".join(during.days))
    if days is None:
        days = "と".join(f"{DAY_NAMES[day]}曜" for day in during.days) if len(during.days) < 7 else ""
    hours = f"{during.start}から{during.end}まで" if (during.start, during.end) != ("00:00", "24:00") else ""
    joined = f"{days}の{hours}" if days and hours else days + hours
    return f"{joined}以外は" if during.otherwise else f"{joined}は"


def rule(one: Rule) -> str:
    """The words of one rule, without a full stop."""
    if one.route == "teacher":
        return f"{_requests(one.when)}は予算の範囲内で必ず教師モデルに聞く"
    return f"{_requests(one.when)}は教師モデルに聞かない"


def _requests(when: When) -> str:
    if when.topic is not None:
        return f"{when.topic if topics.plain(when.topic) else quoted(when.topic)}に関するリクエスト"
    if when.contains is not None:
        return "コードを含むリクエスト"
    if when.longer_than_tokens is not None:
        return f"{when.longer_than_tokens:,}トークンより長いリクエスト"
    if when.shorter_than_tokens is not None:
        return f"{when.shorter_than_tokens:,}トークンより短いリクエスト"
    if when.tag is not None:
        return f"タグ{quoted(when.tag)}の付いたリクエスト"
    if when.header is not None:
        return f"ヘッダー{quoted(when.header[0])}が{quoted(when.header[1])}のリクエスト"
    if when.key_group is not None:
        return f"キーグループ{quoted(when.key_group)}のリクエスト"
    if when.language in tongues.JAPANESE:
        return f"{tongues.JAPANESE[when.language]}のリクエスト"
    return f"言語{quoted(when.language or '')}のリクエスト"


def quoted(value: str) -> str:
    """In corner brackets that read back exactly."""
    return f"「{escaped(value, '「」')}」"
