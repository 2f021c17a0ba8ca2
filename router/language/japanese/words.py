"""What Japanese words mean to the grammar. Particles say nothing by themselves; word order inside a clause is free."""

from collections.abc import Iterable

from router.language import currencies, tongues
from router.language.lexicon import Entry, Lexicon

_TABLE: dict[str, Entry] = {}


def _add(type_: str, meaning: object, words: str) -> None:
    for word in words.split():
        _TABLE[word] = Entry(type_, meaning)


def _endings(type_: str, meaning: object, stems: Iterable[str], endings: str) -> None:
    """Every stem with every ending; "." stands for no ending."""
    for stem in stems:
        for ending in endings.split():
            _TABLE[stem + ending.replace(".", "")] = Entry(type_, meaning)


# Particles, politeness, and verbs that only carry the bound.
_add(
    "SKIP",
    None,
    "は が を に の で も へ って には では にも とは との へは へも への までは までに まで、 ね よ か だ な",
)
_add(
    "SKIP",
    None,
    (
        "返す 返します 書く 書いた "
        "です ます する した して せよ とする とします として としては とし にする にします にして "
        "になる となる こと ように"
    ),
)
_add(
    "SKIP",
    None,
    "ください 下さい してください して下さい とする。 お願いします お願いいたします ほしい 欲しい たい したい",
)
_add(
    "SKIP",
    None,
    "とどめる とどめて 留める 留めて 抑える 抑えて 抑えます おさえる おさえて 収める 収めて おさめる 保つ 保って 維持",
)
_add(
    "SKIP",
    None,
    (
        "維持する 設定 設定する 許可 許可する 許す 認める 可能 可能とする できる できます 行う "
        "行って 実行 予算 予算は 予算を 回数"
    ),
)
_add(
    "SKIP",
    None,
    "回数は 頻度 量 費用 コスト 支出 料金 利用料 金額 数 件数 全部で 場合 場合は 場合には 際 際は とき 時は ときは",
)
_add(
    "SKIP",
    None,
    (
        "予算の範囲内で 予算の範囲で 予算内で 予算の許す限り 予算が許す限り 予算があるかぎり "
        "予算がある限り 予算以内で 間は 間 中 中は"
    ),
)
_add(
    "SKIP",
    None,
    (
        "もの ものは ものに これ この その 当該 私たち 弊社 当社 試す 試し 試して 試みる 決める "
        "決めて 決め 選ぶ 振り分ける だが であれば"
    ),
)
_add(
    "SKIP",
    None,
    (
        "あたりの 分 付いた ついた 付きの つきの 書かれた 付いている ついている 属する 来る 来た "
        "からの から 含まれる なら ならば とき、 そのとき"
    ),
)
for _word in ("数", "分", "中", "間", "か", "な", "したい", "たい", "まで、", "とする。", "とき、"):
    _TABLE.pop(_word, None)

# Bounds
_add(
    "UNDER",
    None,
    (
        "以下 以下に 以下で 以下と 以内 以内に 以内で 以内と まで までで までと 最大 最大で "
        "最大でも 最高 最高で 上限 上限は 上限を 上限で 上限と"
    ),
)
_add(
    "UNDER",
    None,
    (
        "上限として 上限に 未満 未満に 未満で 多くても せいぜい 高々 たかだか 限度 限度に 限度と "
        "限度とする 限り ≤ <= < だけ のみ 内 内に"
    ),
)
_endings(
    "UNDER",
    None,
    ("", "を", "は"),
    "超えない 超えないこと 超えないで 超えないように 超えず 超えずに 超えてはならない 超えてはいけない",
)
_endings(
    "UNDER",
    None,
    ("", "を"),
    "超えないようにする 超過しない 超えさせない 上回らない 上限 限度に 限度として 超えないものとする こえない",
)
_endings(
    "UNDER",
    None,
    ("しか", "以上は"),
    "使わない 呼ばない 呼び出さない 聞かない 利用しない 使用しない 使えない 送らない 許可しない 使ってはいけない",
)
_endings("UNDER", None, ("制限", "上限", "限定"), "する します して した せよ とする")
_endings("UNDER", None, ("に", "と"), "制限 制限する 制限して 限る 限定する 限定")
for _word in ("だけ", "のみ"):
    _TABLE[_word] = Entry("ONLY")
_add("OVER", None, "超 超える を超える 超えて を超えて 上回る を上回る より多く 超過 >")
_add("FLOOR", None, "以上 以上に 以上で 以上は 少なくとも 最低 最低でも 最低限 下限 ≥ >= を下回らない")
_add(
    "TARGET",
    None,
    (
        "約 およそ おおよそ おおむね 概ね だいたい 大体 程度 程度に 程度で くらい ぐらい くらいに "
        "ぐらいに くらいで ほど ほどに 前後 前後に ~ ≈"
    ),
)
_add(
    "TARGET",
    None,
    (
        "目安 目安に 目安と 目安とする 目安として 目安で 目標 目標に 目標と 目標とする 目標は "
        "目標とし 目安とし 目標として 目指す 目指して 目指します を目指す 狙う 狙って ねらう"
    ),
)
_add("TARGET", None, "近く 近くに あたりを目安に 付近 ごろ")

# Yes and no
_VERBS = (
    "使",
    "つか",
    "呼",
    "呼び出",
    "聞",
    "送",
    "回",
    "頼",
    "任せ",
    "渡",
    "用い",
    "尋ね",
    "問い合わせ",
    "ルーティング",
    "転送",
    "利用",
    "使用",
    "相談",
)
_add("ALWAYS", None, "必ず かならず 常に つねに いつも 毎回 例外なく どんなときも どんな時も")
_add("NEVER", None, "決して けっして 一切 いっさい 絶対に使わない 禁止 禁止する 禁止とする 禁じる 不可 不可とする だめ")
_add("SKIP", None, "絶対に 絶対")
_endings(
    "NEVER",
    None,
    ("使", "つか"),
    (
        "わない わないで わないこと わず わないように わないでください わせない ってはいけない "
        "ってはならない っては駄目 ってはだめ いません"
    ),
)
_endings("NEVER", None, ("呼",), "ばない ばないで ばないこと ばず んではいけない んではならない ばないように びません")
_endings(
    "NEVER",
    None,
    ("呼び出", "渡", "回"),
    "さない さないで さないこと さず してはいけない してはならない さないように しません",
)
_endings("NEVER", None, ("聞",), "かない かないで かないこと かず いてはいけない いてはならない かないように きません")
_endings("NEVER", None, ("送",), "らない らないで らないこと らず ってはいけない ってはならない らないように りません")
_endings("NEVER", None, ("頼",), "らない まない まないで")
_endings(
    "NEVER",
    None,
    ("任せ", "用い", "尋ね", "問い合わせ", "答え"),
    "ない ないで ないこと ず てはいけない てはならない ないように ません",
)
_endings(
    "NEVER",
    None,
    ("利用", "使用", "転送", "ルーティング", "相談"),
    "しない しないで しないこと せず してはいけない してはならない しないように しません 禁止 不可",
)
_endings(
    "VERB",
    None,
    ("使", "つか"),
    "う って い います える えます ってよい ってもよい っていい われる ってください うこと いたい わせる",
)
_endings("VERB", None, ("呼",), "ぶ んで び びます べる べます んでよい んでください ばれる ぶこと")
_endings("VERB", None, ("呼び出", "渡", "回"), "す して し します せる せます してよい してください される すこと")
_endings("VERB", None, ("聞",), "く いて き きます ける いてよい いてください かれる くこと")
_endings("VERB", None, ("送",), "る って り ります れる ってよい ってください られる ること")
_endings("VERB", None, ("任せ", "用い", "尋ね", "問い合わせ"), "る て ます られる てよい てください ること")
_endings(
    "VERB",
    None,
    ("利用", "使用", "転送", "ルーティング", "相談"),
    "する して し します できる してよい してください される すること",
)
_endings("VERB", None, ("答え", "応答し", "回答し", "返答し", "対応し"), "る て ます させる てください られる てよい")
_endings("ANSWER", None, ("応答", "回答", "返答"), "する させる します すること される")
_endings("VERB", None, ("対応", "処理"), "する させる します すること される")

# Counting
_add("PERCENT", None, "% パーセント ％")
_add(
    "CALL",
    None,
    (
        "回 度 コール 呼び出し 呼出し 呼出 呼びだし 利用 使用 回の呼び出し 回分 利用回数 "
        "呼び出し回数 呼出回数 使用回数 回の利用 回ずつ 並列"
    ),
)
_TABLE.pop("並列")
_add(
    "REQUEST",
    None,
    (
        "リクエスト 要求 質問 問い合わせ 依頼 クエリ クエリー プロンプト メッセージ トラフィック "
        "件 問 全体の 全リクエスト 件の 相談 会話 入力"
    ),
)
_add("REQUEST", None, "全体 すべてのリクエスト 全てのリクエスト 件のリクエスト 全トラフィック 文章 内容 話題 話")
_add("SHARE", None, "割合 比率 比率は 割合は シェア シェアは")
_add(
    "REST",
    None,
    "それ以外のリクエスト それ以外の質問 その他のリクエスト その他の質問 残りのリクエスト 他のリクエスト 残りは",
)
_add("TOKENS", None, "トークン 教師トークン トークン数 教師のトークン 教師モデルのトークン tokens token")
_add("ANSWER", None, "回答 応答 返答 返事 答え")
_add("LATENCY", None, "レイテンシ レイテンシー 遅延 応答時間 待ち時間 回答時間 返答時間")
_add(
    "CONCURRENT",
    None,
    (
        "同時 同時に 並行 並行して 並列 並列に 並列で 一度に いちどに 同時実行 同時実行数 同時接続 "
        "同時接続数 同時呼び出し 同時呼び出し数 同時実行は"
    ),
)
_add("AVERAGE", None, "平均 平均で 平均して 平均すると 平均的に")
_add(
    "TOTAL",
    None,
    "合計 合計で 通算 通算で 累計 累計で 総計 総計で 全期間 全期間で 全期間を通じて トータル トータルで 総数",
)
_add("PERCENTILE", None, "パーセンタイル %タイル パーセンタイル値 パーセンタイルの")
_add("MEDIAN", None, "中央値 中央値の 中央値は メジアン")
_add(
    "EVERY_ANSWER",
    None,
    "すべての回答 全ての回答 全回答 すべての応答 全ての応答 全応答 どの回答も どの応答も 各回答 各応答",
)

# Windows
_add("PER", None, "あたり 当たり あたりに 当たりに ごと ごとに 毎 毎に につき に付き 単位 単位で ずつ")
_add(
    "MARK",
    "rolling",
    "任意の 連続する 連続した どの いかなる 直近 直近の 過去 過去の 移動 ローリング ローリングで スライディング 直前の",
)
_add("MARK", "calendar", "暦 暦の カレンダー カレンダーの")
_add("PER_UNIT", (1, "second"), "毎秒 秒に 秒間に")
_add("PER_UNIT", (1, "minute"), "毎分 分に")
_add("PER_UNIT", (1, "hour"), "毎時 毎時間 時間に")
_add("PER_UNIT", (1, "day"), "毎日 日に 日次 日次で 一日中 日毎 日毎に")
_add("PER_UNIT", (1, "week"), "毎週 週に 週次 週次で")
_add("PER_UNIT", (2, "week"), "隔週 隔週で")
_add("PER_UNIT", (1, "month"), "毎月 月に 月次 月次で 月々 ひと月に 一月に ひと月")
_add("PER_UNIT", (3, "month"), "四半期に 四半期ごと 四半期ごとに 四半期あたり 毎四半期")
_add("PER_UNIT", (12, "month"), "毎年 年に 年次 年間 年間で")
for _unit, _stems in {
    "second": ("秒",),
    "minute": ("分",),
    "hour": ("時間",),
    "day": ("日",),
    "week": ("週",),
    "month": ("月",),
}.items():
    _endings("PER_UNIT", (1, _unit), _stems, "あたり 当たり ごと ごとに 毎に につき あたりに")
_endings("PER_UNIT", (12, "month"), ("年",), "あたり 当たり ごと ごとに 毎に につき")
_add(
    "EVERYBODY",
    "all",
    (
        "全体で 全体として みんなで 全員で 全員合わせて 全ユーザー合計 全ユーザー合計で 全キー合計 "
        "全キー合計で 全ユーザーで 全キーで 全テナントで 全部合わせて"
    ),
)

_add("PER_UNIT", (1, "month"), "月額 月額で")
_add("PER_UNIT", (1, "day"), "日額 日額で")
_add("PER_UNIT", (12, "hour"), "半日に 半日で 半日あたり 半日ごとに")
_add("SHARE", None, "利用率 使用率 利用率は 使用率は")
_add("CONCURRENT", None, "同時リクエスト数 同時リクエスト 同時利用数")
_add("TOKENS", None, "教師のトークン数 教師モデルのトークン数")
_add("CODE", None, "プログラムのコード プログラムのコードを含む プログラムのコードが含まれる")
_add("SKIP", None, "長さが 長さの 長さは")

# Hours; days, clock times and zones are read by the lexer
_add(
    "OTHERWISE",
    None,
    (
        "それ以外 それ以外は それ以外では それ以外の時間 それ以外の時間は それ以外の時間帯 "
        "それ以外の時間帯は その他 その他の時間 その他の時間は その他の時間帯は"
    ),
)
_add(
    "OTHERWISE",
    None,
    (
        "ほかの時間 他の時間 他の時間は 他の時間帯は それ以外の日 それ以外の日は その他の日 "
        "その他の日は それ以外のとき それ以外のときは"
    ),
)
_add("OUTSIDE", None, "以外 以外は 以外の 以外では 以外の時間 以外の時間は 以外の時間帯は を除き を除いて を除く")
_add(
    "ZONE_NOUN", None, "タイムゾーン タイムゾーンは 時間帯 時間帯は 時刻 時刻は 時刻はすべて 時刻はすべて、 日付 日付は"
)

# Models
_add(
    "TEACHER",
    None,
    (
        "教師 教師モデル 先生 先生モデル 大きいモデル 大きなモデル 大型モデル 強いモデル 大モデル "
        "teacher teacherモデル ティーチャー"
    ),
)
_add(
    "STUDENT",
    None,
    (
        "生徒 生徒モデル 学生 学生モデル 小さいモデル 小さなモデル 小型モデル 弱いモデル 小モデル "
        "student studentモデル スチューデント"
    ),
)
_add("IT", None, "それ そちら")

# Rules
_add(
    "CODE",
    None,
    (
        "コード ソースコード プログラムコード コードを含む コードが含まれる コード入りの "
        "ソースコードを含む コードの入った コードを含んだ コードが含まれている"
    ),
)
_add("LONG", None, "長い 短い 長文 短文 長い文章 大きい 小さい")

# When the budget is exhausted; whole phrases are read by `fate`
_add(
    "REJECT",
    None,
    "エラー エラーに エラーで エラーを 拒否 拒否する 拒否して 拒む 断る 断って 却下 却下する 受け付けない",
)
_add(
    "QUEUE",
    None,
    (
        "待つ 待って 待たせる 待たせて 待機 待機する 待機させる 順番待ち 順番待ちにする 並ばせる "
        "並ぶ キューに入れる キュー キューに"
    ),
)
_add(
    "QUEUE", None, "キューで待つ キューで待たせる 待ち行列に入れる 待ち行列 待ち行列で待たせる 列に並ばせる 待ちにする"
)
_add(
    "RANDOM",
    None,
    "ランダム ランダムに ランダムで 無作為 無作為に 無作為で 探索 探索する 探索に コイン コインで くじで 乱数で",
)
_add(
    "NO_LIMIT",
    None,
    (
        "無制限 無制限に 無制限で 制限なし 制限なしで 制限無し 上限なし 上限なしで 上限無し "
        "制限しない 制限はない 制限は設けない 上限はない 無限 無限に"
    ),
)
_add("NO_LIMIT", None, "好きなだけ いくらでも 何度でも 何回でも 制限を設けない 上限を設けない 制限なく")

# Wishes that do not say how much.
_add(
    "VAGUE",
    None,
    (
        "たまに 時々 ときどき 時折 ときおり たくさん 沢山 少し 少しだけ すこし 少なめ 少なめに "
        "多め 多めに ほどほど ほどほどに なるべく できるだけ 出来るだけ"
    ),
)
_add(
    "VAGUE",
    None,
    (
        "できる限り 適度に 適度 適宜 適切に 適当に 適量 必要に応じて 必要なら 必要であれば "
        "必要なとき 必要な時 必要なときだけ 必要なときに しばしば よく あまり めったに"
    ),
)
_add(
    "VAGUE",
    None,
    (
        "滅多に ちょっと ちょっとだけ いくつか いくつかの 何回か 何度か 数回 数十回 数百回 数件 "
        "数千回 数 ある程度 そこそこ 控えめ 控えめに 節約 節約して 極力 可能な限り"
    ),
)
_add(
    "VAGUE",
    None,
    (
        "ほとんど 大部分 大半 一部 一部の 多く 多くの 少ない 多い 十分 十分に 十分な 普段 普段は "
        "通常 通常は 基本的に 原則 原則として 頻繁に 安く 早く 速く 安い 高い"
    ),
)
_TABLE.pop("十分")
_add("VAGUE_REQUEST", None, "難しい 重要な 簡単な 複雑な 大事な 易しい 高度な 急ぎの 緊急の 大切な")
_add(
    "VAGUE_TIME",
    None,
    (
        "夜間 夜間は 日中 日中は 昼間 昼間は 夜 夜は 朝 朝は 昼 昼は 営業時間 営業時間中 "
        "営業時間内 業務時間 業務時間中 勤務時間 勤務時間中 深夜 早朝 夕方 就業時間"
    ),
)

# Punctuation
_add("COMMA", None, "、 , ( ) （ ） ・ ／")
_add(
    "AND",
    None,
    (
        "と かつ 且つ また および 及び そして ただし 但し なお および、 また、 かつ、 ただし、 "
        "なお、 & さらに さらに、 しかし しかし、 加えて"
    ),
)
_add("OR", None, "または 又は もしくは あるいは")
_add("COLON", None, ":")
_add("STOP", None, "。 . ! ? ;")
_TABLE["\n"] = Entry("STOP")

# Money
for _sign, _code in (currencies.SIGNS | currencies.JAPANESE).items():
    _TABLE[_sign] = Entry("CURRENCY", (_code, 1))
for _code in currencies.CODES:
    _TABLE[_code.lower()] = Entry("CURRENCY", (_code, 1))
_add("CURRENCY", ("USD", 100), "セント")

for _code, _name in tongues.JAPANESE.items():
    _endings("TONGUE", _code, (_name,), ". で での で書かれた による")

LEXICON = Lexicon(_TABLE)
