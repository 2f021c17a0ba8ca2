"""Upstreams that fail and clients that leave: one clear answer, nothing lost, nothing charged that was not billed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from policies.action import Step
from tests.server.gateways import Running, ScriptedPolicy, running_gateway
from tests.upstreams import answer, fault_upstream, scripted_pair

QUESTION = "What is 17 + 26?"
SCRIPT = {QUESTION: answer("one two three four five six")}
ALWAYS = "At most 100% of requests."
FAULTS = {
    "down": (503, "upstream_unreachable"),
    "slow": (504, "upstream_timeout"),
    "html": (502, "upstream_bad_answer"),
    "html_502": (502, "upstream_status"),
    "redirect": (502, "upstream_bad_answer"),
    "401": (502, "upstream_bad_answer"),
    "400": (400, "context_length_exceeded"),
    "429_retry_after": (429, "rate_limit_exceeded"),
    "500": (500, None),
}
WHOLE_FAULTS = dict.fromkeys(("not_json", "wrong_shape", "empty", "cut"), (502, "upstream_bad_answer"))
CASES = [(mode, stream, *expected) for mode, expected in FAULTS.items() for stream in (False, True)] + [
    (mode, False, *expected) for mode, expected in WHOLE_FAULTS.items()
]


def eager() -> ScriptedPolicy:
    return ScriptedPolicy(lambda observation: 1.0, steps=(Step.ROUTE,))


def remove_ledger(state_dir: Path) -> None:
    for path in state_dir.glob("ledger.sqlite*"):
        path.unlink()


async def read_for(seconds: float, url: str, body: dict[str, Any]) -> bytes:
    """What a client gets that hangs up after a while."""
    raw = b""
    try:
        async with (
            aiohttp.ClientSession() as http,
            asyncio.timeout(seconds),
            http.post(f"{url}/v1/chat/completions", json=body) as response,
        ):
            async for chunk in response.content.iter_any():
                raw += chunk
    except TimeoutError:
        return raw
    raise AssertionError("the answer came to its end")


async def spent(gateway: Running) -> float:
    _, state = await gateway.get("/v1/budget", gateway.admin)
    return float(state["balances"][0]["spent"])


@pytest.mark.parametrize(("mode", "stream", "status", "code"), CASES)
async def test_a_failing_student_without_a_teacher_is_one_clear_error(
    tmp_path: Path, mode: Any, stream: bool, status: int, code: str | None
) -> None:
    async with (
        fault_upstream(mode, script=SCRIPT, delay_s=1.0, name="student") as student,
        running_gateway(tmp_path, student.url, None, timeouts={"silence_s": 0.3}) as gateway,
    ):
        got, headers, error = await gateway.chat(QUESTION, stream=stream)
        record = await gateway.record(headers)
    assert got == status
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert error["error"]["code"] == code
    assert "Incorrect API key" not in error["error"]["message"]
    assert headers["x-tw-reason"] == "no_teacher"
    assert headers.get("retry-after") == ("7" if mode == "429_retry_after" else None)
    assert record["status"] == status


@pytest.mark.parametrize(("mode", "stream", "status", "code"), CASES)
async def test_the_student_answers_when_the_teacher_fails(
    tmp_path: Path, mode: Any, stream: bool, status: int, code: str | None
) -> None:
    async with (
        fault_upstream(script=SCRIPT, name="student") as student,
        fault_upstream(mode, script=SCRIPT, delay_s=1.0, name="teacher") as teacher,
        running_gateway(
            tmp_path, student.url, teacher.url, policy=eager(), budget=ALWAYS, timeouts={"silence_s": 0.3}
        ) as gateway,
    ):
        if stream:
            got, headers, raw = await gateway.stream(QUESTION)
            assert b" six" in raw
        else:
            got, headers, data = await gateway.chat(QUESTION)
            assert data["choices"][0]["message"]["content"] == "one two three four five six"
        charged = await spent(gateway)
    assert (got, headers["x-tw-route"], headers["x-tw-reason"]) == (200, "student", "teacher_failed")
    surely_unbilled = mode in ("down", "html_502", "400", "429_retry_after", "500")
    assert charged == (0 if surely_unbilled else 1)


@pytest.mark.parametrize("mode", ["cut", "no_done", "malformed_sse", "error_mid_stream"])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_teacher_that_breaks_before_its_first_good_event_is_replaced(
    tmp_path: Path, mode: Any, after: int
) -> None:
    async with (
        fault_upstream(script=SCRIPT, name="student") as student,
        fault_upstream(mode, script=SCRIPT, cut_after=after, name="teacher", token_delay_s=0.01) as teacher,
        running_gateway(tmp_path, student.url, teacher.url, policy=eager(), budget=ALWAYS) as gateway,
    ):
        _, headers, raw = await gateway.stream(QUESTION)
    if headers["x-tw-reason"] == "teacher_failed":
        assert raw.count(b"data: [DONE]") == 1
        assert b" six" in raw
    else:  # its opening event was out already: then the stream says that it broke
        assert b'"error"' in raw
        assert b"[DONE]" not in raw


@pytest.mark.parametrize("mode", ["cut", "no_done", "malformed_sse", "error_mid_stream"])
async def test_a_stream_that_breaks_in_the_middle_says_so_and_does_not_pretend_to_be_whole(
    tmp_path: Path, mode: Any
) -> None:
    async with (
        fault_upstream(script=SCRIPT, name="student") as student,
        fault_upstream(mode, script=SCRIPT, cut_after=3, name="teacher", token_delay_s=0.03) as teacher,
        running_gateway(tmp_path, student.url, teacher.url, policy=eager(), budget=ALWAYS) as gateway,
    ):
        status, headers, raw = await gateway.stream(QUESTION)
        record = await gateway.record(headers)
        charged = await spent(gateway)
    assert (status, headers["x-tw-reason"]) == (200, "policy_teacher")
    events = [event for event in raw.decode().split("\n\n") if event]
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert b"[DONE]" not in raw
    assert record["error"] is not None
    assert charged == 1


async def test_a_draft_that_breaks_is_rescued_by_the_teacher_inside_the_budget(tmp_path: Path) -> None:
    async with (
        fault_upstream("cut", script=SCRIPT, cut_after=3, name="student") as student,
        fault_upstream(script=SCRIPT, name="teacher") as teacher,
        running_gateway(tmp_path, student.url, teacher.url, budget="At most 50% of requests.") as gateway,
    ):
        first, _, error = await gateway.chat(QUESTION)
        second, headers, raw = await gateway.stream(QUESTION)
    assert (first, error["error"]["code"]) == (502, "upstream_bad_answer"), "one of one would be over half"
    assert (second, headers["x-tw-reason"], headers["x-tw-route"]) == (200, "student_failed", "teacher")
    assert b" six" in raw


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_upstream_call_and_is_charged_for_it(tmp_path: Path, stream: bool) -> None:
    mode: Any = "hang_mid_stream" if stream else "hang"
    async with (
        fault_upstream(script=SCRIPT, name="student") as student,
        fault_upstream(mode, script=SCRIPT, cut_after=3, name="teacher") as teacher,
        running_gateway(tmp_path, student.url, teacher.url, policy=eager(), budget=ALWAYS) as gateway,
    ):
        body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": stream}
        await read_for(0.5, gateway.url, body)
        await asyncio.wait_for(teacher.requests[0].finished.wait(), 5)
        await asyncio.sleep(0.1)
        charged = await spent(gateway)
        rows = gateway.gateway.log.recent(10)
    assert teacher.requests[0].disconnected
    assert charged == 1
    assert [(row["disconnected"], row["status"], row["teacher_calls"]) for row in rows] == [(True, 499, 1)]


async def test_tokens_of_a_cut_stream_are_charged_as_far_as_they_came(tmp_path: Path) -> None:
    async with (
        fault_upstream(script=SCRIPT, name="student") as student,
        fault_upstream("hang_mid_stream", script=SCRIPT, cut_after=3, name="teacher") as teacher,
        running_gateway(
            tmp_path,
            student.url,
            teacher.url,
            policy=eager(),
            budget="At most 100000 teacher tokens.",
            teacher_settings={"usage_in_every_chunk": True},
        ) as gateway,
    ):
        body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
        raw = await read_for(0.5, gateway.url, body)
        await asyncio.sleep(0.2)
        charged = await spent(gateway)
    assert b'"usage"' not in raw, "usage in every chunk is the gateway's wish, not the client's"
    assert charged == 5 + 3


async def test_a_ledger_that_is_gone_means_the_student_and_degraded_readiness(tmp_path: Path) -> None:
    async with (
        scripted_pair(SCRIPT, SCRIPT) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=eager(), budget=ALWAYS) as gateway,
    ):
        remove_ledger(tmp_path)
        status, headers, _ = await gateway.chat(QUESTION)
        ready_status, ready = await gateway.get("/readyz")
        healthy, _ = await gateway.get("/healthz")
    assert (status, headers["x-tw-reason"]) == (200, "ledger_unavailable")
    assert (ready_status, ready["status"], ready["ledger"], healthy) == (200, "degraded", "unavailable", 200)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"messages": []}', 400, "model"),
        (b'{"model": 3}', 400, "model"),
        (b'{"model": "auto"}', 400, "messages"),
        (b'{"model": "auto", "messages": []}', 400, "messages"),
        (b'{"model": "auto", "messages": ["hi"]}', 400, "messages[0]"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": 3}]}', 400, "messages[0]"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}', 400, "stream"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', 400, "max_tokens"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "n": true}', 400, "n"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": "\xff"}]}', 400, None),
        (b'{"model": "nope", "messages": [{"role": "user", "content": "x"}]}', 404, "model"),
        (b" " * 2000, 413, None),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(tmp_path: Path, body: bytes, status: int, param: str | None) -> None:
    async with (
        scripted_pair(SCRIPT, SCRIPT) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, max_body_bytes=1024) as gateway,
        gateway.http.post(f"{gateway.url}/v1/chat/completions", data=body) as response,
    ):
        data = await response.json()
        assert response.status == status
    assert data["error"]["param"] == param
    assert pair.student.requests == []


async def test_a_body_that_comes_in_drops_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with (
        scripted_pair(SCRIPT, SCRIPT) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, timeouts={"upload_s": 0.2}) as gateway,
    ):
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()
    assert b"408" in status


async def test_a_restarted_upstream_is_used_again(tmp_path: Path) -> None:
    async with (
        scripted_pair(SCRIPT, SCRIPT) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=eager(), budget=ALWAYS) as gateway,
    ):
        reasons = []
        for step in ("up", "down", "up"):
            if step == "down":
                await pair.teacher.go_down()
            else:
                await pair.teacher.come_up()
            reasons.append((await gateway.chat(QUESTION))[1]["x-tw-reason"])
    assert reasons == ["policy_teacher", "teacher_failed", "policy_teacher"]
