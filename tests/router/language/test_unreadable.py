"""Every error quotes the phrase as it was written, says where it stands, and hints at a sentence that reads."""

import re

import pytest

from router.language import Unreadable, parse
from router.language.english.messages import ENGLISH
from router.language.japanese.messages import JAPANESE

# (text, the phrase that is quoted, words of the message)
ERRORS = [
    # shares, counts, numbers
    ("At most 120% of requests", "120% of requests", "more than 100%"),
    ("Aim for 20% of requests, at most 1.5 of requests", "1.5 of requests", "more than 100%"),
    ("at most -5% of requests", "-5% of requests", "negative"),
    ("At most -200 calls a day", "-200 calls", "negative"),
    ("At most minus five dollars a day", "minus five dollars", "negative"),
    ("At most 2.5 calls a day", "2.5 calls", "whole numbers"),
    ("at most 0,15 of requests", "0,15", "no number that can be read for certain"),
    ("at most 1.000.000 calls", "1.000.000", "no number that can be read for certain"),
    ("at most 9999999999999999 calls", "9999999999999999 calls", "too large"),
    ("10-20% of requests", "10-20% of requests", "range"),
    ("between 10% and 20% of requests", "between 10%", "range"),
    ("At least 10% of requests", "At least", "cannot promise a least amount"),
    ("More than 10 calls a day", "More than", "cannot promise a least amount"),
    ("Never less than 10 calls", "Never less than", "cannot promise a least amount"),
    ("at most 120% of tokens", "120% of tokens", "more than 100%"),
    ("At most 10% of the tokens a day", "At most 10% of the tokens a day", "at all times"),
    # contradictions
    (
        "Aim for 30% of requests, at most 20% of requests",
        "Aim for 30% of requests",
        "The target is above the cap: Aim for 30% of requests to the teacher; At most 20% of requests to the teacher.",
    ),
    ("At most 100 calls a day. Around 150 calls a day.", "Around 150 calls a day", "target is above the cap"),
    ("Around 150 calls an hour, at most 100 calls a day", "Around 150 calls an hour", "target is above the cap"),
    ("Around 150 calls a day per key, at most 100 calls a day", "Around 150 calls a day per key", "above the cap"),
    ("At most 5 calls a day. At most 10 calls a day.", "At most 10 calls a day", "Two limits for the same thing"),
    ("No limit. At most 5 calls a day.", "No limit", "contradicts the limits"),
    ("When exhausted return an error. When exhausted queue.", "When exhausted queue", "two fates"),
    ("At most 20% of requests or 5 calls a day", "5 calls a day", 'cannot choose with "or"'),
    # nothing said
    ("", "", "says nothing"),
    ("   ", "   ", "says nothing"),
    ("please", "please", "says nothing about the budget"),
    ("...", "...", "says nothing about the budget"),
    ("Hello, world!", "Hello", "says nothing about the budget"),
    # left over
    ("Keep the teacher around 20% of requests and paint the door green", "paint the door green", "says nothing"),
    ("Keep the teacher around 20% of requests, and please paint the door green.", "please paint the door green", ""),
    ("Paint the door green. At most 20% of requests.", "Paint the door green", "says nothing"),
    ("At most 20% of chocolate requests", "chocolate", "says nothing"),
    ("At most 20% of requests paint the door green", "paint the door green", "says nothing"),
    ("Always use it for legal questions and paint the door green", "paint the door green", "says nothing"),
    ("At most 5 calls a day and send me an email every day", "send me an email every day", "says nothing"),
    ("At most 20% of requests, and use the teacher", "use the teacher", "not what they say together"),
    # wishes
    ("Use the teacher sometimes", "sometimes", "wish without a number"),
    ("Ask the teacher a lot", "a lot", "wish without a number"),
    ("Use the teacher only when needed", "when needed", "wish without a number"),
    ("Not too often, at most 20%", "Not too often", "wish without a number"),
    ("a few calls per day", "a few", "wish without a number"),
    ("Keep costs low", "low", "wish without a number"),
    ("During office hours at most 5 calls", "During office hours", "names no hours"),
    ("Use the teacher for hard questions", "hard", "by what a request is known"),
    ("Long prompts go to the teacher", "Long", "by what a request is known"),
    # limits that are not whole
    ("At most a day", "At most a day", "needs a number"),
    ("At most 20", "20", "not said what is counted"),
    ("Users may make 5 calls a day", "Users may make 5 calls a day", "for each of them or for all together"),
    ("At most 5 calls per hour per day", "per day", "two windows"),
    ("At most 5 calls per user per key", "per key", "two scopes"),
    ("At most 5 calls a day 10% of requests", "10% of requests", "two amounts"),
    ("At most 5 calls per millisecond", "per millisecond", "no window"),
    ("At most 5 calls per 0 days", "per 0 days", "no window"),
    ("At most 5 calls per calendar hour", "per calendar hour", "always roll"),
    ("At most 20% of requests per request", "per request", "Only money and tokens"),
    ("At most 5 calls per day on average", "on average", "held on average"),
    ("At most 20% of requests to the student", "At most 20% of requests to the student", "limits the teacher"),
    ("p95", "p95", "needs a number"),
    ("Latency under 2 seconds", "2 seconds", "which share of the answers"),
    ("95% of requests within 2 seconds", "95% of requests within 2 seconds", "which share of the answers"),
    ("0% of answers within 2 seconds", "0% of answers", "between 0% and 100%"),
    ("p95 under 0 seconds", "0 seconds", "no time"),
    ("per key", "per key", "there is none"),
    ("20% of requests, per user, at most 3 calls a minute", "per user", "which of its neighbours"),
    # money, zones, times
    ("At most 300 euros a month", "300 euros", "no rate for EUR"),
    ("At most CHF 20 a day", "CHF 20", "no rate for CHF"),
    ("At most 5 calls a day in Asia/Tokio", "Asia/Tokio", "No time zone"),
    ("At most 5 calls a day in Gotham time", "Gotham time", "No time zone"),
    ("At most 20% of requests in Tokyo time", "in Tokyo time", "calendar of a time zone"),
    ("Between 25:00 and 26:00 at most 5 calls an hour", "25:00", "No clock shows"),
    ("Between 9 and 30 at most 5 calls an hour", "Between 9 and 30", "No clock shows"),
    ("From 9:75 to 18:00 at most 5 calls an hour", "9:75", "No clock shows"),
    ("From 9 to 9 at most 5 calls an hour", "From 9 to 9", "No clock shows"),
    ("From 9 to 5 at most 5 calls an hour", "From 9 to 5", "before or after noon"),
    ("At most 5 calls on Blursday", "Blursday", "says nothing"),
    ("Otherwise at most 10 calls an hour", "Otherwise", "rest of"),
    # rules
    ("At most 5 calls a day for legal questions", "At most 5 calls a day for legal questions", "narrowed"),
    ("Only use the teacher for legal questions", "Only use the teacher for legal questions", "all other requests"),
    ("Use it for legal questions on weekdays", "Use it for legal questions on weekdays", "at all times"),
    ("For legal questions.", "For legal questions", "which model"),
    ("Everything else goes to the student", "Everything else", "requests that it can name"),
    ("Do not always use it for code", "Do not always use it for code", "not what they say together"),
    # when it is exhausted
    ("When the budget is used up.", "When the budget is used up", "what happens then"),
    (
        "When the budget is used up the teacher answers.",
        "When the budget is used up the teacher answers",
        "cannot answer",
    ),
    ("When exhausted, wait for up to 3 days", "3 days", "A wait"),
    ("Try at random", "Try at random", "share of requests"),
    # Japanese
    ("リクエストの120%以下", "120%", "100%を超えられません"),
    ("1日-5回まで", "-5回", "負の数"),
    ("1日2.5回まで", "2.5回", "整数"),
    ("リクエストの20%以上", "以上", "最低量は約束できません"),
    ("リクエストの30%を目安に、20%以下", "リクエストの30%を目安に", "上回っています"),
    ("リクエストの20%以下、ドアを緑に塗る", "ドアを緑に塗る", "書かれていません"),
    ("ドアを緑に塗る。リクエストの20%以下。", "ドアを緑に塗る", "書かれていません"),
    ("たまに教師を使う", "たまに", "数のない願い"),
    ("必要に応じて教師を使う", "必要に応じて", "数のない願い"),
    ("難しい質問は教師に聞く", "難しい", "見分けるもの"),
    ("夜間は1時間5回まで", "夜間は", "時刻が書かれていません"),
    ("月に300ユーロまで", "300ユーロ", "EURの換算レート"),
    ("25時から26時まで1時間5回まで", "25時から26時まで", "時計にない時刻"),
    ("9時から5時まで1時間5回まで", "9時から5時まで", "午前か午後か"),
    ("1日5回または1時間2回まで", "1時間2回まで", "「または」"),
    ("法律の質問は1日5回まで", "法律の質問は1日5回まで", "絞ることはできません"),
    ("使い切ったら", "使い切ったら", "どうするのか"),
    ("教師は最大20まで", "20", "何を数えるのか"),
    ("無制限。1日5回まで。", "無制限", "矛盾"),
]


@pytest.mark.parametrize(("text", "phrase", "message"), ERRORS, ids=[case[0] for case in ERRORS])
def test_what_cannot_be_read_is_quoted(text: str, phrase: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(text)
    error = caught.value
    start = text.index(phrase)
    assert error.as_dict() == {
        "phrase": phrase,
        "at": [start, start + len(phrase)],
        "message": error.message,
        "hint": error.hint,
    }
    assert message in error.message


def test_a_text_that_is_too_long_is_refused_at_once() -> None:
    text = "At most 20% of requests. " * 100
    with pytest.raises(Unreadable, match="2500 characters") as caught:
        parse(text)
    assert caught.value.at == (2000, 2500)


def test_offsets_count_the_text_as_it_was_written() -> None:
    text = "  At  most ２０％ of\nrequests,  and  paint the door green"
    with pytest.raises(Unreadable) as caught:
        parse(text)
    assert caught.value.phrase == "paint the door green"
    assert text[slice(*caught.value.at)] == "paint the door green"


def test_rates_and_settings_are_taken() -> None:
    assert parse("At most 10 euros a day", rates={"EUR": 1.25}).budget.limits[0].at_most == 12.5
    assert parse("At most 5 calls a week", timezone="Asia/Tokyo", week_start=6).as_dict()["limits"][0]["per"] == {
        "n": 1,
        "unit": "week",
        "tz": "Asia/Tokyo",
        "week_start": 6,
    }


# The sentence that a hint proposes stands after its first colon.
_PROPOSED = {code: hint.split(": ", 1)[1] for code, (_, hint) in ENGLISH.items() if ": " in hint}
_PROPOSED_JA = {code: hint.split("例:", 1)[1] for code, (_, hint) in JAPANESE.items() if "例:" in hint}


@pytest.mark.parametrize("code", sorted(_PROPOSED))
def test_the_sentence_that_a_hint_proposes_can_be_read(code: str) -> None:
    assert parse(_PROPOSED[code])


@pytest.mark.parametrize("code", sorted(_PROPOSED_JA))
def test_the_sentence_that_a_japanese_hint_proposes_can_be_read(code: str) -> None:
    assert parse(_PROPOSED_JA[code])


def test_every_error_is_said_in_both_languages() -> None:
    assert set(ENGLISH) == set(JAPANESE)
    for code, (message, hint) in ENGLISH.items():
        fields = set(re.findall(r"{(\w+)}", message + hint))
        assert fields == set(re.findall(r"{(\w+)}", "".join(JAPANESE[code])))
