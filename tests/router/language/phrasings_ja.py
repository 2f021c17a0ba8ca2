"""Japanese phrasings and the whole budget that each of them says."""

from router.budget import Budget, During, Limit, Rule, When, Window
from tests.router.language.phrasings_en import (
    DAY,
    EVERY_DAY,
    HOUR,
    MINUTE,
    MONTH,
    REQUEST,
    SECOND,
    TARGET,
    WEEK,
    WEEKDAYS,
    WEEKEND,
    at_a_time,
    calls,
    latency,
    only,
    rules,
    share,
    tokens,
    usd,
)

OFFICE = During(WEEKDAYS, "09:00", "18:00", "Asia/Tokyo")

PHRASINGS: dict[str, Budget] = {
    # the examples of the design
    "教師モデルの呼び出しは1日100回まで": only(calls(100, DAY)),
    "リクエストの20%以下": only(share(0.2)),
    "1時間あたり最大50回": only(calls(50, HOUR)),
    "ユーザーごとに1分間に2回まで": only(calls(2, MINUTE, "user")),
    "使い切ったらエラーを返す": Budget(when_exhausted="reject"),
    # shares
    "教師はリクエストの2割まで": only(share(0.2)),
    "リクエストの半分以下": only(share(0.5)),
    "教師を使うのは全体の15パーセント以内にしてください。": only(share(0.15)),
    "リクエストの約20%を目安にする": only(share(0.2, kind=TARGET)),
    "教師モデルの割合は30%程度": only(share(0.3, kind=TARGET)),
    "10回に1回だけ教師に聞く": only(share(0.1)),
    "リクエスト100件につき3件まで": only(share(0.03)),
    "全体の三分の一を超えないようにする": only(share(1 / 3)),
    "リクエストの２０％以下": only(share(0.2)),
    "二割五分以下": only(share(0.25)),
    "リクエストの20%前後、上限は25%": only(share(0.2, kind=TARGET), share(0.25)),
    "ユーザーごとにリクエストの1割まで": only(share(0.1, None, "user")),
    "1日あたりリクエストの20%まで": only(share(0.2, DAY)),
    # calls and windows
    "教師の利用は毎日200回まで": only(calls(200, DAY)),
    "二十回まで": only(calls(20)),
    "百回以下": only(calls(100)),
    "月に1万回まで": only(calls(10_000, MONTH)),
    "1か月に1,000回を超えない": only(calls(1000, MONTH)),
    "1週間に5千回まで": only(calls(5000, WEEK)),
    "毎分10回以内": only(calls(10, MINUTE)),
    "1秒に1回まで": only(calls(1, SECOND)),
    "5分間で30回まで": only(calls(30, Window(5, "minute"))),
    "任意の24時間で100回まで": only(calls(100, Window(24, "hour"))),
    "連続する7日間で100回まで": only(calls(100, Window(7, "day", rolling=True))),
    "暦月あたり200回まで": only(calls(200, MONTH)),
    "2週間で1000回まで": only(calls(1000, Window(2, "week"))),
    "日曜始まりの週あたり500回まで": only(calls(500, Window(1, "week", week_start=6))),
    "通算で1万回まで": only(calls(10_000)),
    "教師モデルを1日5回しか使わない": only(calls(5, DAY)),
    "1日に3ダースの呼び出しまで": only(calls(36, DAY)),
    "東京時間の1日あたり200回まで": only(calls(200, Window(1, "day", tz="Asia/Tokyo"))),
    "タイムゾーンはAsia/Tokyo。1日200回まで。": only(calls(200, Window(1, "day", tz="Asia/Tokyo"))),
    "1日約100回、最大120回": only(calls(100, DAY, kind=TARGET), calls(120, DAY)),
    "1分10回まで、1時間100回まで、1日500回まで": only(calls(10, MINUTE), calls(100, HOUR), calls(500, DAY)),
    "１日１００回まで": only(calls(100, DAY)),
    "1日100回以下かつリクエストの20%以下": only(calls(100, DAY), share(0.2)),
    "1年に1200回まで": only(calls(1200, Window(12, "month"))),
    # scopes
    "APIキーごとに1日200回まで": only(calls(200, DAY, "key")),
    "キーごとに、1時間10回まで": only(calls(10, HOUR, "key")),
    "各ユーザーは1分2回まで": only(calls(2, MINUTE, "user")),
    "テナントごとに毎日1000回まで": only(calls(1000, DAY, "tenant")),
    "モデルごとに1日100回まで": only(calls(100, DAY, "model")),
    "ユーザー1人あたり1日5回まで": only(calls(5, DAY, "user")),
    "1日1000回まで。ただし、キーごとに1日50回まで。": only(calls(1000, DAY), calls(50, DAY, "key")),
    # tokens, money, concurrency, latency
    "教師トークンは1日5万トークンまで": only(tokens(50_000, DAY)),
    "1か月に200万トークン以下": only(tokens(2_000_000, MONTH)),
    "1リクエストあたり平均800トークン以下": only(tokens(800, REQUEST)),
    "1日12.50ドルまで": only(usd(12.5, DAY)),
    "費用は月に300ドルまで": only(usd(300, MONTH)),
    "リクエストあたり平均0.003ドル以下": only(usd(0.003, REQUEST)),
    "1000リクエストあたり3ドルまで": only(usd(0.003, REQUEST)),
    "1日3,000円まで": only(usd(20.1, DAY)),
    "ユーザーごとに1日25セントまで": only(usd(0.25, DAY, "user")),
    "同時に4回まで": only(at_a_time(4)),
    "同時呼び出しはキーごとに8件まで": only(at_a_time(8, "key")),
    "p95は2秒以内": only(latency(2, 0.95)),
    "回答の95%を2秒以内に": only(latency(2, 0.95)),
    "95%の応答は500ミリ秒以内": only(latency(0.5, 0.95)),
    "応答時間の中央値は1.5秒を目標とする": only(latency(1.5, 0.5, TARGET)),
    "すべての回答は10秒以内": only(latency(10, 1.0)),
    # hours
    "平日9時から18時まで（東京時間）は1時間に50回まで、それ以外は10回まで。": only(
        Limit("cap", "calls", 50, HOUR, during=OFFICE),
        Limit("cap", "calls", 10, HOUR, during=During(WEEKDAYS, "09:00", "18:00", "Asia/Tokyo", otherwise=True)),
    ),
    "週末はリクエストの5%まで": only(Limit("cap", "share", 0.05, during=During(WEEKEND))),
    "土曜と日曜は1時間5回まで": only(Limit("cap", "calls", 5, HOUR, during=During(WEEKEND))),
    "月曜から木曜の9時〜17時30分は1時間20回まで": only(
        Limit("cap", "calls", 20, HOUR, during=During(("mon", "tue", "wed", "thu"), "09:00", "17:30"))
    ),
    "22時から6時までは1時間に3回まで": only(
        Limit("cap", "calls", 3, HOUR, during=During(EVERY_DAY, "22:00", "06:00"))
    ),
    "18時以降は1時間30回まで": only(Limit("cap", "calls", 30, HOUR, during=During(EVERY_DAY, "18:00", "24:00"))),
    "午前9時から午後6時まで1時間5回まで": only(
        Limit("cap", "calls", 5, HOUR, during=During(EVERY_DAY, "09:00", "18:00"))
    ),
    "平日以外は教師を使わない": only(Limit("cap", "calls", 0, during=During(WEEKDAYS, otherwise=True))),
    "週末は教師を使わない": only(Limit("cap", "calls", 0, during=During(WEEKEND))),
    "月・水・金曜日は1日50回まで": only(Limit("cap", "calls", 50, DAY, during=During(("mon", "wed", "fri")))),
    # all or nothing
    "教師は使わない": only(calls(0)),
    "教師モデルの使用は禁止": only(calls(0)),
    "常に教師を使う": Budget(),
    "無制限": Budget(),
    "教師モデルは制限なし": Budget(),
    # rules
    "法律の質問には必ず教師を使う": rules(("teacher", When(topic="法律"))),
    "法律や医療の質問は必ず教師に聞く": rules(("teacher", When(topic="法律")), ("teacher", When(topic="医療"))),
    "雑談には教師を使わない": rules(("student", When(topic="雑談"))),
    "税金については教師に聞く": rules(("teacher", When(topic="税金"))),
    "「社内規定」に関する質問は教師に送る": rules(("teacher", When(topic="社内規定"))),
    "コードを含むリクエストは必ず教師に送る": rules(("teacher", When(contains="code"))),
    "2000トークンを超える質問は教師に聞く": rules(("teacher", When(longer_than_tokens=2000))),
    "2000トークン以上のリクエストは教師に聞く": rules(("teacher", When(longer_than_tokens=1999))),
    "20トークン未満の質問は生徒が答える": rules(("student", When(shorter_than_tokens=20))),
    "タグ「vip」のリクエストは教師に": rules(("teacher", When(tag="vip"))),
    "タグbatchの付いたリクエストは教師に送らない": rules(("student", When(tag="batch"))),
    "ヘッダー「X-Plan」が「gold」のリクエストは教師に": rules(("teacher", When(header=("x-plan", "gold")))),
    "キーグループ「research」のリクエストは必ず教師に": rules(("teacher", When(key_group="research"))),
    "日本語の質問は教師に": rules(("teacher", When(language="ja"))),
    "英語で書かれたリクエストは生徒が答える": rules(("student", When(language="en"))),
    # what happens when it is used up, and exploring
    "予算を使い切ったら生徒が答える": Budget(),
    "上限に達したら429を返す": Budget(when_exhausted="reject"),
    "予算がなくなったら最大10秒待たせる": Budget(when_exhausted="queue", queue_s=10),
    "使い切った場合はキューに入れる": Budget(when_exhausted="queue"),
    "1日10回まで。使い切ったらリクエストを拒否する。": Budget((calls(10, DAY),), when_exhausted="reject"),
    "リクエストの1%はランダムに試す": Budget(explore=0.01),
    # several things at once
    "教師はリクエストの20%前後、キーごとに1日200回まで。法律の質問にはそれを必ず使う。": Budget(
        (share(0.2, kind=TARGET), calls(200, DAY, "key")), (Rule("teacher", When(topic="法律")),)
    ),
    "教師はリクエストの20%前後、キーごとに1日200回まで。法律の質問には必ず教師を使う。": Budget(
        (share(0.2, kind=TARGET), calls(200, DAY, "key")), (Rule("teacher", When(topic="法律")),)
    ),
    "・リクエストの20%以下\n・1日5ドルまで": only(share(0.2), usd(5, DAY)),
}
