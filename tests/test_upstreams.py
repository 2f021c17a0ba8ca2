"""The upstreams that other tests lean on do what their modes say."""

import asyncio
import json

import aiohttp
import pytest

from tests.upstreams import Answer, fault_upstream, scripted_pair

CHAT = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}


async def post(url: str, body: dict, path: str = "/chat/completions") -> tuple[int, str, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        return response.status, response.content_type, await response.read()


def events(raw: bytes) -> list:
    lines = [line[6:] for line in raw.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_scripted_pair_answers_with_logprobs_and_records_requests():
    async with scripted_pair(student={"2+2?": Answer(("4",), (-0.5,))}, teacher={"2+2?": "It is 4."}) as pair:
        _, _, small = await post(pair.student.url, {**CHAT, "logprobs": True})
        _, _, big = await post(pair.teacher.url, CHAT)
        choice = json.loads(small)["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": "4"}
        assert choice["logprobs"]["content"][0]["logprob"] == -0.5
        assert json.loads(big)["choices"][0]["message"]["content"] == "It is 4."
        assert pair.student.requests[0].body == {**CHAT, "logprobs": True}
        assert not pair.student.requests[0].disconnected


async def test_stream_ends_with_usage_and_done():
    async with fault_upstream(name="s", script={"2+2?": "a b"}) as up:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        _, kind, raw = await post(up.url, body)
        got = events(raw)
        assert kind == "text/event-stream"
        assert [e["choices"][0]["delta"].get("content") for e in got[:3]] == ["", "a", " b"]
        assert [e["usage"]["completion_tokens"] for e in got[:4]] == [0, 1, 2, 2]
        assert got[3]["choices"] == []
        assert got[4] == "[DONE]"


@pytest.mark.parametrize(
    ("mode", "status", "kind"),
    [
        ("html", 200, "text/html"),
        ("html_502", 502, "text/html"),
        ("not_json", 200, "application/json"),
        ("429", 429, "application/json"),
        ("500", 500, "application/json"),
    ],
)
async def test_bad_answers(mode, status, kind):
    async with fault_upstream(mode=mode) as up:
        assert (await post(up.url, CHAT))[:2] == (status, kind)


async def test_fault_that_heals():
    async with fault_upstream(mode="503", faults_left=1) as up:
        assert [(await post(up.url, CHAT))[0] for _ in range(2)] == [503, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_cut_resets_the_connection(stream):
    async with fault_upstream(mode="cut", script={"2+2?": "a b c d"}) as up:
        with pytest.raises(aiohttp.ClientError):
            await post(up.url, {**CHAT, "stream": stream})


async def test_down_refuses_and_comes_back_on_the_same_port():
    async with fault_upstream(mode="down") as up:
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(up.url, CHAT)
        up.mode = "ok"
        url = up.url
        await up.come_up()
        assert up.url == url
        assert (await post(url, CHAT))[0] == 200


@pytest.mark.parametrize("mode", ["hang", "hang_mid_stream"])
async def test_hang_notices_that_the_client_went_away(mode):
    async with fault_upstream(mode=mode, script={"2+2?": "a b c d"}) as up:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(post(up.url, {**CHAT, "stream": True}), 0.3)
        await asyncio.wait_for(up.requests[0].finished.wait(), 2)
        assert up.requests[0].disconnected
