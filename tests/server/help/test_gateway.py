"""Help over HTTP: headers, streams, records, ledger and promise on tokens, before upstreams that answer by script."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.help.probe import CannotHelp, Traits, look
from server.settings import Help, Upstream
from tests.server.gateways import Running, running_gateway
from tests.server.test_gateway import content, streamed
from tests.serving import TW
from tests.upstreams import Answer, Pair, scripted_pair

TEXT = "The answer is forty-two and nothing else."
WORDS = tuple(word if i == 0 else f" {word}" for i, word in enumerate(TEXT.split(" ")))
HELP_ID = 7
QUESTION = "What is it?"


def so_far(body: Mapping[str, Any]) -> int:
    """Words of the answer that a request was handed."""
    last = body["messages"][-1]
    text = last["content"] if last["role"] == "assistant" else ""
    assert TEXT.startswith(text)
    return len(text.split())


def student(body: Mapping[str, Any]) -> Answer:
    """Asks before its third word, unless it must not."""
    at = so_far(body)
    biases = body.get("logit_bias") or {}
    banned = isinstance(biases, dict) and biases.get(str(HELP_ID)) == -100
    if at < 2 and not banned and body.get("stop_token_ids"):
        return Answer((*WORDS[at:2], ""), finish_reason="stop", stop_reason=HELP_ID)
    return limited(body, at)


def teacher(body: Mapping[str, Any]) -> Answer:
    return limited(body, so_far(body))


def limited(body: Mapping[str, Any], at: int) -> Answer:
    words = WORDS[at : at + body.get("max_tokens", 99)]
    return Answer(words, finish_reason="stop" if at + len(words) == len(WORDS) else "length")


@asynccontextmanager
async def helping(
    folder: Path, budget: str = "No limit on the teacher.", **settings: Any
) -> AsyncIterator[tuple[Running, Pair]]:
    given = {"by": "student", "token_id": HELP_ID, "tokens": 2, **settings}
    async with scripted_pair() as pair:
        pair.student.script, pair.teacher.script = student, teacher
        async with running_gateway(
            folder, pair.student.url, pair.teacher.url, budget=budget, help=Help(**given)
        ) as gateway:
            yield gateway, pair


def told(record: dict[str, Any]) -> list[tuple[str, int, str, str]]:
    return [(each["by"], each["tokens"], each["reason"], each["ended"]) for each in record["segments"]]


HELPED = [
    ("student", 2, "begin", "help"),
    ("teacher", 2, "asked", "length"),
    ("student", 3, "handed_back", "stop"),
]


async def test_a_helped_answer_is_one_answer_whole_and_streamed(tmp_path: Path) -> None:
    async with helping(tmp_path) as (gateway, pair):
        gateway.gateway.settings = gateway.gateway.settings.model_copy(update={"log_text": True})
        status, headers, data = await gateway.chat(QUESTION)
        record = await gateway.record(headers)
        _, stream_headers, raw = await gateway.stream(QUESTION, stream_options={"include_usage": True})
        stream_record = await gateway.record(stream_headers)
    assert (status, content(data)) == (200, TEXT)
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("mixed", "helped")
    assert data["choices"][0]["finish_reason"] == "stop"
    assert data["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert told(record) == told(stream_record) == HELPED
    assert (record["teacher_calls"], record["teacher_tokens"], record["student_tokens"]) == (1, 5 + 2, 5)
    assert (record["mixed_response"], record["student_response"], record["teacher_response"]) == (TEXT, None, None)
    # A stream's headers go out before anybody knows whether it will be helped.
    assert (stream_headers["x-tw-route"], stream_headers["x-tw-reason"]) == ("mixed", "help_on")
    assert (stream_record["route"], stream_record["reason"]) == ("mixed", "helped")
    text, chunks = streamed(raw)
    assert text == TEXT
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 7
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert {chunk["model"] for chunk in chunks} == {"student"}
    assert pair.teacher.requests[0].body is not None
    assert pair.teacher.requests[0].body["messages"][-1] == {"role": "assistant", "content": "The answer"}


async def test_each_help_is_a_call_that_the_ledger_admits(tmp_path: Path) -> None:
    async with helping(tmp_path, "At most 1 call a day.") as (gateway, pair):
        first = await gateway.record((await gateway.chat(QUESTION))[1])
        _, headers, data = await gateway.chat(QUESTION)
        second = await gateway.record(headers)
        _, budget = await gateway.get("/v1/budget", gateway.admin)
        metrics = await (await gateway.http.get(f"{gateway.url}/metrics")).text()
    assert told(first) == HELPED
    assert content(data) == TEXT
    assert (headers["x-tw-route"], second["refused_by"]) == ("student", "At most 1 teacher call per calendar day")
    assert told(second) == [
        ("student", 2, "begin", "help"),
        ("teacher", 0, "asked", "refused"),
        ("student", 5, "handed_back", "stop"),
    ]
    assert [(each["spent"], each["calls"], each["requests"]) for each in budget["balances"]] == [(1.0, 1, 2)]
    assert len(pair.teacher.requests) == 1
    assert 'tw_help_segments_total{outcome="refused"} 1.0' in metrics
    assert 'tw_help_segments_total{outcome="written"} 1.0' in metrics
    assert "tw_help_tokens_total 2.0" in metrics


async def test_the_share_of_tokens_is_never_above_the_promise(tmp_path: Path) -> None:
    teacher_tokens = tokens = 0
    async with helping(tmp_path, "At most 20% of the tokens.") as (gateway, _):
        for _ in range(30):
            record = await gateway.record((await gateway.chat(QUESTION))[1])
            teacher_tokens += sum(each["tokens"] for each in record["segments"] if each["by"] == "teacher")
            tokens += sum(each["tokens"] for each in record["segments"])
            assert teacher_tokens <= 0.2 * tokens
        assert gateway.gateway.promise.account.teacher == teacher_tokens
        # A whole answer of the teacher is all its own, and there is no room for one.
        _, headers, _ = await gateway.chat(QUESTION, model="teacher")
        forced = await gateway.record(headers)
    assert (tokens, teacher_tokens) == (30 * 7, 40)
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("student", "budget_exhausted")
    assert forced["refused_by"] == "At most 20% of the tokens from the teacher"


async def test_what_cannot_be_helped_is_answered_as_ever_and_says_why(tmp_path: Path) -> None:
    async with helping(tmp_path) as (gateway, pair):
        _, headers, data = await gateway.chat(QUESTION, n=1, tools=[{"type": "function", "function": {"name": "f"}}])
        tools = await gateway.record(headers)
        forced = await gateway.record((await gateway.chat(QUESTION, model="student"))[1])
        metrics = await (await gateway.http.get(f"{gateway.url}/metrics")).text()
    assert content(data) == TEXT
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("student", "policy_keep")
    assert (tools["help_off"], tools["segments"]) == ("tools", [])
    assert (forced["reason"], forced["segments"], forced["help_off"]) == ("forced_student", [], None)
    assert 'tw_help_off_total{reason="tools"} 1.0' in metrics
    assert pair.teacher.requests == []
    assert all(request.body and "stop_token_ids" not in request.body for request in pair.student.requests)
    # Nobody would answer it if it asked.
    assert [(request.body or {})["logit_bias"] for request in pair.student.requests] == [{str(HELP_ID): -100}] * 2


async def test_a_client_s_own_biases_stay_where_the_student_must_not_ask(tmp_path: Path) -> None:
    async with helping(tmp_path) as (gateway, pair):
        await gateway.chat(QUESTION, model="student", logit_bias={"3": 1, str(HELP_ID): 50})
        await gateway.chat(QUESTION, model="teacher", logit_bias={"3": 1})
        # Not ours to judge: it goes on as it came.
        await gateway.chat(QUESTION, model="student", logit_bias=[3])
    assert (pair.student.requests[1].body or {})["logit_bias"] == [3]
    assert (pair.student.requests[0].body or {})["logit_bias"] == {"3": 1, str(HELP_ID): -100}
    assert (pair.teacher.requests[0].body or {})["logit_bias"] == {"3": 1}


@pytest.mark.parametrize("settings", [{"offset": 1.0}, {"by": "policy"}], ids=["asks", "watched"])
async def test_biases_that_are_no_object_go_on_as_they_came(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with helping(tmp_path, **settings) as (gateway, pair):
        status, _, _ = await gateway.chat(QUESTION, logit_bias=[3])
    assert status == 200
    assert (pair.student.requests[0].body or {})["logit_bias"] == [3]


@pytest.mark.parametrize("mode", ["503", "hang_mid_stream", "cut", "html"])
async def test_a_teacher_that_fails_costs_nobody_an_answer(tmp_path: Path, mode: Any) -> None:
    async with scripted_pair() as pair:
        pair.student.script, pair.teacher.script = student, teacher
        pair.teacher.mode, pair.teacher.cut_after = mode, 1
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, budget="At most 9 calls a day.",
            help=Help(by="student", token_id=HELP_ID, tokens=4), timeouts={"silence_s": 0.5},
        ) as gateway:  # fmt: skip
            _, headers, raw = await gateway.stream(QUESTION)
            record = await gateway.record(headers)
            _, budget = await gateway.get("/v1/budget", gateway.admin)
    assert streamed(raw)[0] == TEXT
    written = {"503": 0, "html": 0}.get(mode, 1)
    assert told(record)[1] == ("teacher", written, "asked", "failed")
    # Only a call that certainly billed nothing is given back.
    assert budget["balances"][0]["spent"] == (0.0 if mode == "503" else 1.0)
    assert record["teacher_calls"] == (0 if mode == "503" else 1)


async def test_a_teacher_that_is_down_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async with helping(tmp_path) as (gateway, pair):
        pair.teacher.mode = "503"
        records = [await gateway.record((await gateway.chat(QUESTION))[1]) for _ in range(5)]
    assert [record["help_off"] for record in records] == [None, None, None, "teacher_fails", "teacher_fails"]


async def test_a_client_that_leaves_during_a_help_frees_the_teacher_and_is_billed(tmp_path: Path) -> None:
    async with helping(tmp_path, "At most 9 calls a day.", tokens=5) as (gateway, pair):
        pair.teacher.token_delay_s = 0.3
        request = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
        response = await gateway.http.post(f"{gateway.url}/v1/chat/completions", json=request)
        headers = response.headers
        async with asyncio.timeout(5):
            while not pair.teacher.requests or not pair.teacher.requests[0].tokens_sent:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            response.close()
            await pair.teacher.requests[0].finished.wait()
            decision = f"/v1/decisions/{headers['x-tw-decision-id']}"
            while (await gateway.get(decision, gateway.admin))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        record = await gateway.record(headers)
        _, budget = await gateway.get("/v1/budget", gateway.admin)
    assert pair.teacher.requests[0].disconnected
    assert record["disconnected"]
    assert told(record)[-1][0::3] == ("teacher", "left")
    assert record["teacher_calls"] == 1
    assert budget["balances"][0]["spent"] == 1.0


async def test_a_student_that_breaks_off_after_a_help_says_so_in_the_stream(tmp_path: Path) -> None:
    def breaks(body: Mapping[str, Any]) -> Answer:
        pair.student.mode, pair.student.cut_after = "cut", 1  # from its next answer on
        return student(body)

    async with helping(tmp_path) as (gateway, pair):
        pair.student.script = breaks
        _, headers, raw = await gateway.stream(QUESTION)
        record = await gateway.record(headers)
    assert b"[DONE]" not in raw
    assert json.loads(raw.strip().split(b"\n\n")[-1][6:])["error"]["code"] == "upstream_bad_answer"
    assert (record["error"], record["teacher_calls"]) == ("upstream_bad_answer", 1)


async def test_the_restriction_is_put_to_the_student_in_words_and_not_to_the_teacher(tmp_path: Path) -> None:
    template = "Ask for at most {percent}% of the tokens. {prompt}"
    async with helping(tmp_path, "At most 25% of the tokens.", restriction=template, levels=(5, 20, 50)) as (
        gateway,
        pair,
    ):
        for _ in range(3):
            await gateway.chat(QUESTION)
    bodies = [request.body or {} for request in pair.student.requests]
    assert {body["messages"][0]["content"] for body in bodies} == {f"Ask for at most 20% of the tokens. {QUESTION}"}
    assert [(request.body or {})["messages"][0]["content"] for request in pair.teacher.requests] == [QUESTION] * 2


async def test_a_watched_student_is_helped_where_its_probabilities_are_low(tmp_path: Path) -> None:
    def doubtful(body: Mapping[str, Any]) -> Answer:
        whole = limited(body, so_far(body))
        return Answer(
            whole.tokens, tuple(-3.0 if w == " forty-two" else -0.01 for w in whole.tokens), whole.finish_reason
        )

    async with helping(tmp_path, by="policy", token_id=None, tokens=1) as (gateway, pair):
        pair.student.script = doubtful
        _, headers, data = await gateway.chat(QUESTION)
        record = await gateway.record(headers)
    assert (content(data), data["choices"][0]["logprobs"]) == (TEXT, None)
    assert told(record) == [
        ("student", 3, "begin", "help"),
        ("teacher", 1, "doubted", "length"),
        ("student", 3, "handed_back", "stop"),
    ]


async def test_a_student_that_would_ask_by_itself_is_kept_from_it_where_it_is_watched(tmp_path: Path) -> None:
    async with helping(tmp_path, by="policy", restriction="{percent}% {prompt}") as (gateway, pair):
        _, _, data = await gateway.chat(QUESTION)
        await gateway.chat(QUESTION, model="student", logit_bias={"3": 1})
    assert content(data) == TEXT
    # Nor is it told how often it may.
    assert (pair.student.requests[0].body or {})["messages"][0]["content"] == QUESTION
    watched, forced = ((request.body or {})["logit_bias"] for request in pair.student.requests)
    assert watched == {str(HELP_ID): -100}
    assert forced == {"3": 1, str(HELP_ID): -100}


class Tells:
    """An upstream that has, or has not, a `/tokenize`."""

    def __init__(self, ids: dict[str, list[int]] | None, *, continues: bool = True, trims: bool = False) -> None:
        self.ids, self.continues, self.trims = ids, continues, trims
        self.name = "model"
        self.settings = Upstream()

    async def tokenize(self, body: dict[str, Any]) -> Any:
        if self.ids is None:
            return None
        if "messages" in body:
            text = body["messages"][-1]["content"]
            return list((text.rstrip() if self.trims else text).encode()) if self.continues else False
        return self.ids.get(body["prompt"], list(body["prompt"].encode()))


async def test_what_the_models_can_do_is_asked_of_them() -> None:
    asks = Help(by="student")
    able: Any = Tells({"<help>": [300]})
    plain: Any = Tells({})
    assert await look(able, plain, asks) == Traits(300, running_usage=(True, True), one_tokenizer=True)
    other: Any = Tells({"é": [1]}, continues=False, trims=True)
    assert await look(able, other, asks) == Traits(300, chat_continues=False, running_usage=(True, True))
    mute: Any = Tells(None)
    assert await look(mute, mute, Help(by="policy")) == Traits()
    watched = Help(by="policy")
    assert (await look(able, plain, watched)) == Traits(None, 300, running_usage=(True, True), one_tokenizer=True)
    assert (await look(plain, plain, watched)).silenced_id is None
    # All that it has not seen is one token to some.
    unknowing: Any = Tells({"<help>": [3], "<help>x": [3]})
    assert (await look(unknowing, plain, watched)).silenced_id is None
    assert (await look(mute, mute, Help(by="policy", token_id=5))).silenced_id == 5
    with pytest.raises(CannotHelp, match="has no token <help>"):
        await look(plain, plain, asks)
    with pytest.raises(CannotHelp, match=r"set help\.token_id"):
        await look(mute, plain, asks)


def test_a_student_without_the_token_is_refused_at_the_start(tmp_path: Path) -> None:
    command = [TW, "serve", "--help-by", "student", "--port", "0", "--state-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the student (student) has no token <help>, so it cannot ask for help" in done.stderr
    done = subprocess.run(
        [*command, "--student-url", "http://127.0.0.1:1/v1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no teacher to help" in done.stderr
