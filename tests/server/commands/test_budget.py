"""`tw budget`: what it prints, where, and how it exits."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server.cli import main
from server.commands.budget import duration

TEXT = (
    "Keep the teacher around 20% of requests, never more than 200 calls a day per key. "
    "Always use it for legal questions."
)
CANONICAL = (
    "Aim for 20% of requests to the teacher. At most 200 teacher calls per API key per calendar day. Requests about "
    "legal questions always ask the teacher while the budget allows. When the budget is exhausted the student answers."
)
STATE: dict[str, Any] = {
    "text": "At most 200 calls a day.",
    "canonical": "At most 200 teacher calls per calendar day. When the budget is exhausted the student answers.",
    "language": "en",
    "limits": [],
    "rules": [],
    "when_exhausted": "student",
    "version": 3,
    "balances": [
        {
            "limit": "At most 200 teacher calls per calendar day",
            "spent": 12.0,
            "allowed": 200.0,
            "requests": 80,
            "calls": 12,
            "resets_in_s": 11123.0,
        }
    ],
}
PREVIEW = {
    **STATE,
    "replayed": {
        "requests": 100,
        "teacher_wanted": 30,
        "teacher_granted": 20,
        "teacher_share": 0.2,
        "refused_by": {"At most 20% of requests to the teacher": 10},
    },
}


@dataclass
class Gateway:
    """A gateway that answers what it is told and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    asked: list[tuple[str, str, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    state = Gateway()

    class Answering(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            state.asked.append((self.command, self.path, self.headers.get("authorization"), body))
            self.send_response(state.status)
            self.send_header("content-length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        do_GET = do_PUT = do_POST = _answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.delenv("TW_ADMIN_KEY", raising=False)
    monkeypatch.setenv("TW_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, ["budget", *arguments], env=env)

    return invoke


def test_parse_prints_exactly_the_promised_json(run: Any) -> None:
    result = run("parse", TEXT, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "text": TEXT,
        "language": "en",
        "limits": [
            {"kind": "target", "measure": "share", "at_most": 0.2, "per": None, "scope": "all", "during": None},
            {
                "kind": "cap",
                "measure": "calls",
                "at_most": 200,
                "per": {"n": 1, "unit": "day"},
                "scope": "key",
                "during": None,
            },
        ],
        "rules": [{"route": "teacher", "when": {"topic": "legal questions"}}],
        "when_exhausted": "student",
        "canonical": CANONICAL,
    }


def test_the_json_of_every_kind_of_statement(run: Any) -> None:
    text = (
        "On weekdays between 9 and 18 Tokyo time at most 50 calls per rolling day, otherwise 10. At most 500 calls a "
        "week starting Sunday in JST. p95 under 2 seconds. At most $0.003 per request on average. Code goes to "
        "the teacher. Requests with header x-plan: gold go to the student. When exhausted, queue for up to 10 seconds. "
        "Try 1% at random."
    )
    printed = json.loads(run("parse", text, "--json").stdout)
    during = {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "18:00", "tz": "Asia/Tokyo"}
    limit = {"kind": "cap", "measure": "calls", "per": {"n": 1, "unit": "day", "rolling": True}, "scope": "all"}
    del printed["text"], printed["canonical"]
    assert printed == {
        "language": "en",
        "limits": [
            {**limit, "at_most": 50, "during": during},
            {**limit, "at_most": 10, "during": {**during, "otherwise": True}},
            {
                **limit,
                "at_most": 500,
                "per": {"n": 1, "unit": "week", "tz": "Asia/Tokyo", "week_start": 6},
                "during": None,
            },
            {**limit, "measure": "latency_s", "at_most": 2, "per": None, "during": None, "quantile": 0.95},
            {**limit, "measure": "usd", "at_most": 0.003, "per": {"n": 1, "unit": "request"}, "during": None},
        ],
        "rules": [
            {"route": "teacher", "when": {"contains": "code"}},
            {"route": "student", "when": {"header": {"name": "x-plan", "value": "gold"}}},
        ],
        "when_exhausted": "queue",
        "queue_s": 10,
        "explore": 0.01,
    }


def test_parse_says_it_back_to_a_person(run: Any) -> None:
    result = run("parse", TEXT)
    assert result.exit_code == 0
    assert result.stdout.startswith("Aim for 20% of requests to the teacher.")
    assert "1 day" in result.stdout
    assert "key" in result.stdout


def test_what_cannot_be_read_is_underlined(run: Any) -> None:
    result = run("parse", "At most 20% of requests and paint the door green")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "  At most 20% of requests and paint the door green",
        "                              ^^^^^^^^^^^^^^^^^^^^",
        "This says nothing about the budget that can be read.",
        "Leave it out, or say it as a limit: At most 200 teacher calls per day.",
    ]


def test_wide_characters_are_underlined_in_full(run: Any) -> None:
    result = run("parse", "リクエストの20%以下、ドアを緑に塗る")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[:2] == [
        "  リクエストの20%以下、ドアを緑に塗る",
        "  " + " " * (6 * 2 + 3 + 3 * 2) + "^" * 14,
    ]


def test_what_cannot_be_read_is_an_error_object_in_json(run: Any) -> None:
    result = run("parse", "Use the teacher sometimes", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "error": {
            "phrase": "sometimes",
            "at": [16, 25],
            "message": "This is a wish without a number.",
            "hint": "Say how much: Aim for 20% of requests to the teacher.",
        }
    }


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_is_refused(run: Any, text: str) -> None:
    result = run("parse", text)
    assert result.exit_code == 2
    assert result.stderr.startswith("The text says nothing.")


def test_parse_takes_zone_and_rates_from_the_settings(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "tw.toml"
    config.write_text('timezone = "Asia/Tokyo"\n[rates]\nEUR = 1.25\n')
    result = run("parse", "At most 10 euros a day", "--json", "--config", str(config))
    assert json.loads(result.stdout)["limits"] == [
        {
            "kind": "cap",
            "measure": "usd",
            "at_most": 12.5,
            "per": {"n": 1, "unit": "day", "tz": "Asia/Tokyo"},
            "scope": "all",
            "during": None,
        }
    ]
    assert run("parse", "20%", "--config", str(tmp_path / "none.toml")).exit_code == 2


def test_show_prints_the_running_budget(run: Any, gateway: Gateway) -> None:
    gateway.body = json.dumps(STATE).encode()
    result = run("show", "--gateway", gateway.url, env={"TW_ADMIN_KEY": "secret-key"})
    assert result.exit_code == 0
    assert "At most 200 teacher calls per calendar day" in result.stdout
    assert "Version 3." in result.stdout
    assert "3 h 05 min" in result.stdout
    assert gateway.asked == [("GET", "/v1/budget", "Bearer secret-key", None)]


def test_show_as_json_is_the_answer_of_the_gateway(run: Any, gateway: Gateway) -> None:
    gateway.body = json.dumps(STATE).encode()
    result = run("show", "--gateway", gateway.url, "--json")
    assert json.loads(result.stdout) == STATE
    assert gateway.asked == [("GET", "/v1/budget", None, None)]


def test_set_puts_the_text(run: Any, gateway: Gateway, tmp_path: Path) -> None:
    gateway.body = json.dumps(STATE).encode()
    key_file = tmp_path / "admin.key"
    key_file.write_text("from-a-file\n")
    result = run("set", "At most 200 calls a day.", "--gateway", gateway.url, "--admin-key-file", str(key_file))
    assert result.exit_code == 0
    assert gateway.asked == [("PUT", "/v1/budget", "Bearer from-a-file", {"text": "At most 200 calls a day."})]


def test_a_dry_run_changes_nothing(run: Any, gateway: Gateway) -> None:
    gateway.body = json.dumps(PREVIEW).encode()
    result = run("set", "At most 20% of requests", "--dry-run", "--gateway", gateway.url)
    assert result.exit_code == 0
    assert "the teacher wanted 30 times, granted 20 times (20.0% of requests). Nothing was changed." in result.stdout
    assert "refused 10 times by: At most 20% of requests to the teacher" in result.stdout
    assert gateway.asked == [("POST", "/v1/budget/preview", None, {"text": "At most 20% of requests"})]


def test_a_text_that_the_gateway_cannot_read_exits_2(run: Any, gateway: Gateway) -> None:
    gateway.status, gateway.body = 400, json.dumps({"error": {"message": "This is a wish without a number."}}).encode()
    result = run("set", "sometimes", "--gateway", gateway.url)
    assert result.exit_code == 2
    assert result.stderr == "tw budget set: This is a wish without a number.\n"


def test_a_missing_key_is_said_with_its_cure(run: Any, gateway: Gateway) -> None:
    gateway.status, gateway.body = 401, json.dumps({"error": {"message": "No key."}}).encode()
    result = run("show", "--gateway", gateway.url, env={"TW_ADMIN_KEY": "wrong-secret"})
    assert result.exit_code == 1
    assert result.stderr == ("tw budget show: No key. Give the admin key in TW_ADMIN_KEY or with --admin-key-file.\n")
    assert "wrong-secret" not in result.output


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "is not a gateway: it sent no JSON object"),
        (200, b"[1]", "is not a gateway: it sent no JSON object"),
        (502, b"<html>", "answered 502 without a reason"),
        (500, b'{"error": "oops"}', "answered 500 without a reason"),
    ],
)
def test_something_else_that_answers_gets_one_line(
    run: Any, gateway: Gateway, status: int, body: bytes, message: str
) -> None:
    gateway.status, gateway.body = status, body
    result = run("show", "--gateway", gateway.url)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nobody_answers(run: Any) -> None:
    result = run("show", "--gateway", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("tw budget show: no gateway answers at http://127.0.0.1:9: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://me:secret@127.0.0.1:1"])
def test_what_is_no_url_of_a_gateway_is_wrong_use(run: Any, url: str) -> None:
    result = run("show", "--gateway", url)
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_a_key_file_that_cannot_be_read_is_wrong_use(run: Any, tmp_path: Path) -> None:
    assert run("show", "--admin-key-file", str(tmp_path / "none")).exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 s"), (65, "1 min 05 s"), (3 * 3600 + 300, "3 h 05 min"), (90000, "1 d 1 h")],
)
def test_a_duration_is_said_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


UNREADABLE = (
    "Don't let the teacher bill get out of hand: two hundred calls daily and not one more, please and thank you."
)


def reworded(gateway: Gateway, sentence: str, *, complete: bool = True, plain: bool = False) -> None:
    content = sentence if plain else json.dumps({"budget": sentence, "complete": complete})
    gateway.body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def test_a_model_may_say_what_the_grammar_cannot_read(gateway: Gateway, run: Any) -> None:
    reworded(gateway, "At most 200 calls a day.")
    result = run(
        "parse", UNREADABLE, "--json", "--ask", f"{gateway.url}/v1", "--ask-model", "big", "--yes",
        env={"TW_ASK_KEY": "sk-secret"},
    )  # fmt: skip
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["canonical"] == (
        "At most 200 teacher calls per calendar day. When the budget is exhausted the student answers."
    )
    ((method, path, authorization, body),) = gateway.asked
    assert (method, path, authorization) == ("POST", "/v1/chat/completions", "Bearer sk-secret")
    assert (body["model"], body["temperature"], body["response_format"]["type"]) == ("big", 0, "json_schema")
    assert UNREADABLE in body["messages"][-1]["content"]


def test_nothing_a_model_says_is_taken_without_a_yes(gateway: Gateway, run: Any) -> None:
    reworded(gateway, "At most 200 calls a day.")
    result = run("parse", UNREADABLE, "--ask", gateway.url)
    assert result.exit_code == 2
    assert "At most 200 teacher calls per calendar day." in result.stderr
    assert "repeat with --yes" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("answer", "taken"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_shown_what_was_understood(
    gateway: Gateway, run: Any, monkeypatch: pytest.MonkeyPatch, answer: str, taken: bool
) -> None:
    reworded(gateway, "At most 200 calls a day.", complete=False)
    monkeypatch.setattr("server.commands.budget.somebody_is_there", lambda: True)
    result = CliRunner().invoke(main, ["budget", "parse", UNREADABLE, "--ask", gateway.url], input=answer)
    assert (result.exit_code == 0) is taken
    assert "It may have left something out." in result.stderr
    assert ("At most 200 teacher calls per calendar day." in result.stdout) is taken


@pytest.mark.parametrize(
    ("sentence", "plain", "why"),
    [
        ("Never mind the cost.", False, "which cannot be read either"),
        ("I am sorry, I cannot do that.", True, "which cannot be read either"),
        ("", False, "found nothing in these words"),
    ],
)
def test_what_the_grammar_cannot_read_is_never_a_budget(
    gateway: Gateway, run: Any, sentence: str, plain: bool, why: str
) -> None:
    reworded(gateway, sentence, plain=plain)
    result = run("parse", UNREADABLE, "--ask", gateway.url, "--yes")
    assert result.exit_code == 2
    assert why in result.stderr


def test_a_model_that_cannot_be_asked_leaves_the_first_error(gateway: Gateway, run: Any) -> None:
    gateway.status, gateway.body = 503, b"{}"
    result = run("parse", UNREADABLE, "--ask", gateway.url, "--yes")
    assert result.exit_code == 2
    assert "^" in result.stderr
    assert "answered 503" in result.stderr
    assert run("parse", UNREADABLE, "--ask", "not a url", "--yes").exit_code == 2


def test_a_text_that_can_be_read_is_no_models_business(gateway: Gateway, run: Any) -> None:
    assert run("parse", "At most 200 calls a day.", "--ask", gateway.url).exit_code == 0
    assert gateway.asked == []


def test_set_sends_what_was_agreed_to(gateway: Gateway, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reworded(gateway, "At most 200 calls a day.")
    sent: list[Any] = []
    monkeypatch.setattr("server.commands.budget._ask", lambda *arguments: sent.append(arguments) or STATE)
    assert run("set", UNREADABLE, "--ask", gateway.url, "--yes").exit_code == 0
    assert sent == [("set", "http://127.0.0.1:8080", None, "PUT", "/v1/budget", {"text": "At most 200 calls a day."})]
