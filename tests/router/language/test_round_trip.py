"""Reading a canonical sentence gives the same budget back, in both languages, under any settings."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.budget import Budget
from router.language import Unreadable, canonical, describe_limit, parse
from tests.router.language.budgets import budgets, limits, zones


@pytest.mark.parametrize("language", ["en", "ja"])
@given(budget=budgets())
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_canonical_text_reads_back_as_the_same_budget(language: str, budget: Budget) -> None:
    text = canonical(budget, language)
    if len(text) > 2000:
        return
    parsed = parse(text)
    assert parsed.budget == budget
    assert parsed.language == language
    assert parsed.canonical == text


@pytest.mark.parametrize("language", ["en", "ja"])
@given(budget=budgets(), tz=zones, week_start=st.integers(0, 6))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_an_explicit_canonical_text_means_the_same_under_any_settings(
    language: str, budget: Budget, tz: str, week_start: int
) -> None:
    text = canonical(budget, language, explicit=True)
    if len(text) <= 2000:
        assert parse(text, timezone=tz, week_start=week_start).budget == budget


@pytest.mark.parametrize("language", ["en", "ja"])
@given(limit=limits())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_words_of_one_limit_read_back_as_that_limit(language: str, limit: object) -> None:
    assert parse(describe_limit(limit, language)).budget.limits == (limit,)  # type: ignore[arg-type]


def refusal(text: str) -> Unreadable | None:
    """None where `text` reads, and its canonical text as the same budget."""
    try:
        parsed = parse(text)
    except Unreadable as error:
        return error
    assert parse(parsed.canonical).budget == parsed.budget
    return None


def assert_read_or_refused(text: str) -> None:
    error = refusal(text)
    if error is not None:
        assert text[slice(*error.at)] == error.phrase
        assert error.message
        assert error.hint


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_is_read_or_refused_with_a_phrase_of_its_own(text: str) -> None:
    assert_read_or_refused(text)


@pytest.mark.parametrize(
    "unit",
    [
        "a/",
        "the ",
        "at ",
        "9:",
        "-",
        "1割",
        "法律や",
        '"',
        "\\",
        "「",
        "monday and ",
        "law and ",
        "return it ",
        "twenty ",
        "万",
        "\n- ",
    ],
)
@pytest.mark.parametrize("around", ["{}", "always use it for {}", "{}の質問は教師へ"])
def test_a_long_run_of_the_same_words_is_read_or_refused(unit: str, around: str) -> None:
    assert_read_or_refused(around.format((unit * 1900)[:1900]))


_WORDS = (
    "at most,around,never,always,more than,under,20%,a fifth,one in ten,5,-3,429,"
    "1e9,200,calls,requests,tokens,$5,300 euros,a,"
    'per,each,day,hour,week,rolling,calendar,key,user,teacher,student,it,for,about,legal questions,code,and,but,",",.,'
    "on weekdays,between,from,9,18:00,25:00,to,-,Tokyo time,otherwise,outside,p95,within,2 "
    "seconds,of answers,on average,"
    "in total,at random,no limit,when the budget is exhausted,return an error,queue,up to,sometimes,door,tagged vip,"
    'longer than,header,only,use,go to,at a time,starting Sunday,twice,/,=,\\,「,」,",in,of,or more'
)
_WORDS_JA = (
    "教師,生徒,は,を,に,の,1日,100回,まで,以下,リクエスト,20%,2割,約,目安,あたり,ごとに,ユーザー,キーごとに,平日,9時から18時まで,東京時間,"
    "それ以外は,使い切ったら,エラーを返す,最大,30秒,待たせる,法律の質問,必ず,使わない,使う,コード,2000トークン,を超える,以上,同時に,回答の95%,"
    "2秒以内,無制限,ランダムに,たまに,、,。"
    ",と,だけ,10回に1回,300ドル,平均,暦,連続する,7日間,半分,タグ「vip」,日曜始まりの,「,」,万,一,千"
)
WORDS = _WORDS.split(",")
WORDS_JA = _WORDS_JA.split(",")


@given(
    st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
    | st.lists(st.sampled_from(WORDS_JA), max_size=14).map("".join)
)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_order_of_known_words_is_read_or_refused(text: str) -> None:
    assert_read_or_refused(text)
