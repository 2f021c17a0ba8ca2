"""A small lexicon of common topics: which words speak of law, medicine, money, ... in English and Japanese.

It is deliberately plain: a rule must be explainable by pointing at a word.
"""

from collections.abc import Mapping
from functools import lru_cache

# topic -> (names an operator may give it, stems that show it in a request)
COMMON: Mapping[str, tuple[str, str]] = {
    "legal": (
        "legal law laws lawyer juridical 法律 法務 法的",
        "legal law lawyer attorney contract clause lawsuit sue court judge plaintiff defendant liabilit statut "
        "regulat complian copyright patent trademark gdpr tort litigat subpoena 法律 法務 契約 訴訟 裁判 弁護士 条文 "
        "著作権 特許 商標 規約 違法 損害賠償 遺言 相続",
    ),
    "medical": (
        "medical medicine health healthcare clinical 医療 医学 健康 病気",
        "medical medicine health doctor patient diagnos symptom disease illness drug dose dosage surgery cancer vaccin "
        "therap clinic hospital blood fever infection prescri 医療 医学 医師 医者 患者 診断 症状 病気 薬 副作用 手術 "
        "治療 病院 血圧 感染",
    ),
    "financial": (
        "financial finance money banking investment investments accounting 金融 財務 会計 投資 経理",
        "financ invest stock bond loan mortgage interest bank portfolio dividend accounting revenue profit "
        "audit pension insurance 金融 財務 会計 投資 株 債券 融資 住宅ローン 利息 銀行 年金 保険 決算",
    ),
    "tax": (
        "tax taxes taxation 税 税金 税務",
        "tax vat deduct irs 税 税金 税務 確定申告 控除",
    ),
    "coding": (
        "coding programming software code developer development プログラミング コーディング ソフトウェア 開発",
        "code coding program software function bug compil debug python javascript java rust sql api algorithm regex "
        "refactor exception プログラ コード 関数 バグ コンパイル デバッグ アルゴリズム",
    ),
    "maths": (
        "math maths mathematics mathematical arithmetic algebra calculation 数学 算数 計算",
        "math algebra geometr calculus equation integral derivativ theorem proof prove arithmetic fraction matrix "
        "probabilit calculate solve 数学 算数 方程式 積分 微分 定理 証明 確率 行列 計算",
    ),
    "science": (
        "science scientific physics chemistry biology 科学 物理 化学 生物",
        "science scientif physics chemist biolog quantum molecul atom genetic experiment energy 科学 物理 化学 生物 "
        "量子 分子 原子 遺伝 実験",
    ),
    "history": (
        "history historical 歴史",
        "histor century ancient medieval empire war revolution 歴史 世紀 古代 中世 帝国 戦争 革命 江戸 明治",
    ),
    "translation": (
        "translation translations translating 翻訳",
        "translat 翻訳 訳して 和訳 英訳",
    ),
    "security": (
        "security cybersecurity セキュリティ",
        "security vulnerab exploit malware phishing encrypt password firewall セキュリティ 脆弱性 "
        "マルウェア 暗号 パスワード",
    ),
    "personnel": (
        "hr personnel recruiting hiring 人事 採用",
        "hiring hire recruit payroll employee salary onboarding resume 人事 採用 給与 社員 面接 履歴書",
    ),
    "small talk": (
        "smalltalk chitchat chit-chat greetings 雑談 挨拶",
        "hello hey thanks weather joke 雑談 こんにちは おはよう ありがとう 天気 冗談",
    ),
}


@lru_cache(maxsize=1)
def _by_name() -> dict[str, str]:
    return {name: topic for topic, (names, _) in COMMON.items() for name in (topic, *names.split())}


def is_common(word: str) -> bool:
    """True for a word that names a topic of this lexicon."""
    return word.lower() in _by_name()


@lru_cache(maxsize=512)
def stems(word: str) -> tuple[str, ...]:
    """The stems that show the topic that `word` names; empty for any other word."""
    topic = _by_name().get(word.lower())
    return tuple(COMMON[topic][1].split()) if topic else ()
