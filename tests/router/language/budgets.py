"""Arbitrary valid budgets, in the normal form that reading produces."""

from itertools import combinations

from hypothesis import strategies as st

from router.budget import Budget, During, Limit, Rule, When, Window
from router.language.checks import clash
from router.language.tongues import ENGLISH

ZONES = (
    "UTC",
    "Asia/Tokyo",
    "America/New_York",
    "America/Argentina/Buenos_Aires",
    "Etc/GMT+9",
    "Australia/Lord_Howe",
    "EST5EDT",
    "Japan",
    "GMT",
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCKS = [f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in range(0, 1440)]

zones = st.sampled_from(ZONES)
shares = st.one_of(st.sampled_from([0.0, 0.01, 0.15, 0.2, 1 / 3, 2 / 3, 0.5, 1.0, 0.003]), st.floats(0, 1))
positive_shares = shares.filter(lambda share: share > 0)
counts = st.one_of(st.just(429), st.integers(0, 20), st.integers(0, 10**15)).map(float)
money = st.one_of(st.sampled_from([0.003, 12.5, 300.0, 0.1, 1234.56]), st.floats(0, 1e9))
seconds = st.one_of(st.sampled_from([2.0, 0.5, 30.0, 1.0]), st.floats(1e-6, 3600))
sizes = st.one_of(st.integers(1, 31), st.integers(1, 1_000_000))

rolling_windows = st.builds(Window, n=sizes, unit=st.sampled_from(["second", "minute", "hour"])) | st.builds(
    Window, n=sizes, unit=st.sampled_from(["day", "week", "month"]), rolling=st.just(True)
)
calendar_windows = st.builds(Window, n=sizes, unit=st.sampled_from(["day", "month"]), tz=zones) | st.builds(
    Window, n=sizes, unit=st.just("week"), tz=zones, week_start=st.integers(0, 6)
)
windows = st.none() | rolling_windows | calendar_windows


@st.composite
def durings(draw: st.DrawFn) -> During | None:
    if draw(st.booleans()):
        return None
    days = draw(st.sampled_from([c for n in range(1, 8) for c in combinations(DAYS, n)]))
    start = draw(st.sampled_from(CLOCKS))
    end = draw(st.sampled_from([*CLOCKS[1:], "24:00"]))
    if start == end or (days == DAYS and (start, end) == ("00:00", "24:00")):
        start, end = "09:00", "18:00"
    return During(days, start, end, draw(zones), draw(st.booleans()))


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    measure = draw(st.sampled_from(["share", "token_share", "calls", "tokens", "usd", "concurrent", "latency_s"]))
    if measure == "token_share":
        return Limit(draw(st.sampled_from(["cap", "target"])), measure, draw(shares))
    amount = {"share": shares, "usd": money, "latency_s": seconds}.get(measure, counts)
    per = draw(windows)
    if measure in ("tokens", "usd") and draw(st.booleans()):
        per = Window(1, "request")
    if measure == "concurrent":
        per = None
    return Limit(
        draw(st.sampled_from(["cap", "target"])),
        measure,
        draw(amount),
        per,
        draw(st.sampled_from(["all", "key", "user", "tenant", "model"])),
        draw(durings()),
        draw(positive_shares) if measure == "latency_s" else None,
    )


names = st.one_of(
    st.sampled_from(
        ["vip", "gold", "it's", 'a "b"', "c\\", "「x」", "x y", "Ｘ", "ﾞ", "“q”", "a\nb", "法律", "per day", "。"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)
topics = st.one_of(
    st.sampled_from(
        [
            "legal questions",
            "tax law",
            "small talk",
            "法律",
            "機械学習",
            "user keys",
            "5 calls",
            "at most",
            "law and order",
            "C++",
            "コード",
        ]
    ),
    names,
)
whens = st.one_of(
    st.builds(When, topic=topics),
    st.just(When(contains="code")),
    st.builds(When, longer_than_tokens=st.integers(0, 10**9)),
    st.builds(When, shorter_than_tokens=st.integers(0, 10**9)),
    st.builds(When, tag=names),
    st.builds(When, header=st.tuples(names.map(str.lower), names)),
    st.builds(When, key_group=names),
    st.builds(When, language=st.sampled_from([*ENGLISH, "xx", "tlh"])),
)
rules = st.builds(Rule, route=st.sampled_from(["student", "teacher"]), when=whens)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    chosen: list[Limit] = []
    for limit in draw(st.lists(limits(), max_size=4)):
        if limit not in chosen and not any(clash(other, limit) for other in chosen):
            chosen.append(limit)
    way = draw(st.sampled_from(["student", "reject", "queue"]))
    queue_s = draw(seconds) if way == "queue" else Budget().queue_s
    return Budget(tuple(chosen), tuple(draw(st.lists(rules, max_size=4))), way, queue_s, draw(st.none() | shares))
