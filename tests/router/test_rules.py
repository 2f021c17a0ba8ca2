import pytest

from router.budget import Rule, When
from router.rules import RequestFacts, contains_code, match, matches
from router.script import language_of

PYTHON = "Why does this fail?\n\ndef add(a, b):\n    return a + b\n\nprint(add(1))"


def test_the_first_rule_that_matches_wins() -> None:
    rules = (
        Rule("student", When(tag="batch")),
        Rule("teacher", When(topic="legal questions")),
        Rule("student", When(topic="legal questions")),
    )
    assert match(rules, RequestFacts("Can I sue my landlord?")) == rules[1]
    assert match(rules, RequestFacts("Can I sue my landlord?", tags=("batch",))) == rules[0]
    assert match(rules, RequestFacts("How do I bake bread?")) is None
    assert match((), RequestFacts("Can I sue my landlord?")) is None


@pytest.mark.parametrize(
    ("topic", "text", "expected"),
    [
        ("legal questions", "Is this clause of the contract enforceable?", True),
        ("legal questions", "My lawyer says the lawsuit is lost.", True),
        ("legal questions", "How do I mow a lawn?", False),
        ("legal questions", "この契約は有効ですか", True),
        ("法律", "この契約は有効ですか", True),
        ("法律", "Is this clause enforceable under the law?", True),
        ("法律", "パンの焼き方を教えて", False),
        ("medical questions", "What are the side effects of this drug?", True),
        ("medicine", "My blood pressure is 150 over 95", True),
        ("finance", "Should I buy this bond?", True),
        ("tax", "How much VAT do I pay?", True),
        ("tax", "Which taxi do I take?", False),
        ("maths", "Solve the equation x + 2 = 5", True),
        ("coding questions", "My python function has a bug", True),
        ("small talk", "Hello there!", True),
        ("small talk", "Prove that 7 is prime", False),
        ("cooking", "How long do I cook an egg?", True),
        ("gardening", "My garden is dry", True),
        ("French cooking", "How do the French cook an egg?", True),
        ("French cooking", "How do I cook an egg?", False),
        ("questions", "anything at all", False),
        ("園芸", "園芸を始めたい", True),
    ],
)
def test_a_topic_matches_by_words_that_show_it(topic: str, text: str, expected: bool) -> None:
    assert matches(When(topic=topic), RequestFacts(text)) is expected


def test_a_topic_matches_by_a_tag_of_its_name() -> None:
    for tag in ("legal", "Legal", "legal questions"):
        assert matches(When(topic="legal questions"), RequestFacts("hm", tags=(tag,)))
    assert matches(When(topic="small talk"), RequestFacts("hm", tags=("small-talk",)))
    assert not matches(When(topic="legal questions"), RequestFacts("hm", tags=("illegal",)))


@pytest.mark.parametrize(
    "text",
    [
        PYTHON,
        "```\nx\n```",
        "#include <stdio.h>\nint main() { return 0; }",
        "SELECT name FROM users WHERE id = 3",
        "function f(x) { return x; }",
        "const x = 1;\nfoo.bar(x);\n",
        "<div>\n<p>hi</p>\n</div>",
        'Traceback (most recent call last):\n  File "a.py"',
        "fn main() { println!(); }",
        "class Foo:\n    pass",
    ],
)
def test_code_is_known_by_its_structure(text: str) -> None:
    assert contains_code(text)
    assert matches(When(contains="code"), RequestFacts(text))


@pytest.mark.parametrize(
    "text",
    [
        "What is the difference between a class and a function?",
        "Please select a gift from the list for my wife.",
        "Dear Sir or Madam;\nI write to you about my order.\nYours",
        "2 + 2 = ?",
        "if I were you, I would return the shoes",
        "",
        "契約について教えてください。",
        "Is x = 3 a solution of x + 2 = 5?",
    ],
)
def test_prose_is_not_code(text: str) -> None:
    assert not contains_code(text)


def test_lengths_are_strict() -> None:
    assert matches(When(longer_than_tokens=10), RequestFacts("", tokens=11))
    assert not matches(When(longer_than_tokens=10), RequestFacts("", tokens=10))
    assert matches(When(shorter_than_tokens=10), RequestFacts("", tokens=9))
    assert not matches(When(shorter_than_tokens=10), RequestFacts("", tokens=10))


def test_tags_headers_and_key_groups_match_exactly() -> None:
    facts = RequestFacts("", tags=("vip",), headers={"x-plan": "gold"}, key_group="research")
    assert matches(When(tag="vip"), facts)
    assert not matches(When(tag="VIP"), facts)
    assert matches(When(header=("x-plan", "gold")), facts)
    assert not matches(When(header=("x-plan", "silver")), facts)
    assert not matches(When(header=("x-tier", "gold")), facts)
    assert matches(When(key_group="research"), facts)
    assert not matches(When(key_group="sales"), RequestFacts(""))
    assert not matches(When(), facts)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"),
        ("フランスの首都はどこですか", "ja"),
        ("東京タワーの高さを教えて。", "ja"),
        ("法国的首都是哪里", "zh"),
        ("프랑스의 수도는 어디인가요", "ko"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("Was ist die Hauptstadt von Frankreich?", "de"),
        ("¿Cuál es la capital de Francia y por qué?", "es"),
        ("Какой город столица Франции?", "ru"),
        ("Яке місто є столицею Франції?", "uk"),
        ("ما هي عاصمة فرنسا", "ar"),
        ("ποια είναι η πρωτεύουσα", "el"),
        ("Please explain the word 寿司 to me in simple terms and tell me how to make it", "en"),
        ("12345 !?", None),
        ("", None),
        ("xyzzy plugh", None),
    ],
)
def test_a_language_is_told_by_script_and_common_words(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_a_language_that_the_client_names_is_believed() -> None:
    assert matches(When(language="ja"), RequestFacts("hello, what is this?", language="ja"))
    assert matches(When(language="en"), RequestFacts("hello, what is this?"))


def test_long_prompts_are_read_at_both_ends() -> None:
    filler = "bread and butter " * 5000
    assert matches(When(topic="legal questions"), RequestFacts(filler + "Is this contract valid?"))
    assert matches(When(topic="legal questions"), RequestFacts("Is this contract valid? " + filler))
