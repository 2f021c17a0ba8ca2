"""The official OpenAI SDK against a running gateway: what it sends is understood, what it gets it can read."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from server.auth import Keys
from tests.serving import DOUBTFUL, SURE, RunningGateway, draft, gateway
from tests.upstreams import Pair, scripted_pair

EASY, HARD = "What is 2 + 2?", "What is 17 * 23?"


# One gateway for all tests here: what they change, they change at the upstreams, and `pair` puts that right again.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstreams() -> AsyncIterator[Pair]:
    student = {EASY: draft("It is 4.", SURE), HARD: draft("It is perhaps 400.", DOUBTFUL)}
    async with scripted_pair(student=student, teacher={EASY: "Four.", HARD: "17 * 23 = 391."}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(upstreams: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    async with gateway(folder, upstreams.student.url, upstreams.teacher.url) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def pair(upstreams: Pair) -> Pair:
    """The upstreams, well again and with nothing received."""
    for upstream in (upstreams.student, upstreams.teacher):
        upstream.mode, upstream.faults_left = "ok", None
        upstream.requests.clear()
        await upstream.come_up()
    return upstreams


@pytest_asyncio.fixture(loop_scope="module")
async def client(running: RunningGateway, pair: Pair) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=20) as sdk:
        yield sdk


def ask(question: str) -> list[openai.types.chat.ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": question}]


async def test_a_draft_the_policy_trusts_is_the_answer(client: AsyncOpenAI, pair: Pair) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ask(EASY))
    completion = raw.parse()
    assert completion.choices[0].message.content == "It is 4."
    assert completion.choices[0].logprobs is None
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3
    assert (raw.headers["x-tw-route"], raw.headers["x-tw-reason"]) == ("student", "policy_keep")
    assert (len(pair.student.requests), len(pair.teacher.requests)) == (1, 0)


async def test_a_draft_the_policy_doubts_goes_to_the_teacher(client: AsyncOpenAI, pair: Pair) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ask(HARD))
    assert raw.parse().choices[0].message.content == "17 * 23 = 391."
    assert (raw.headers["x-tw-route"], raw.headers["x-tw-reason"]) == ("teacher", "policy_escalate")
    assert (len(pair.student.requests), len(pair.teacher.requests)) == (1, 1)


@pytest.mark.parametrize(("question", "answer"), [(EASY, "It is 4."), (HARD, "17 * 23 = 391.")])
async def test_a_streamed_answer_comes_from_one_model_and_whole(
    client: AsyncOpenAI, question: str, answer: str
) -> None:
    stream = await client.chat.completions.create(model="auto", messages=ask(question), stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert all(choice.logprobs is None for chunk in chunks for choice in chunk.choices)


async def test_a_stream_has_usage_for_those_who_ask(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="auto", messages=ask(EASY), stream=True, stream_options={"include_usage": True}
    )
    usages = [chunk.usage for chunk in [chunk async for chunk in stream] if chunk.usage is not None]
    assert [usage.completion_tokens for usage in usages] == [3]


async def test_log_probabilities_come_to_those_who_ask(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="auto", messages=ask(EASY), logprobs=True, top_logprobs=1)
    assert whole.choices[0].logprobs is not None
    assert [token.logprob for token in whole.choices[0].logprobs.content or []] == [SURE] * 3
    stream = await client.chat.completions.create(model="auto", messages=ask(EASY), logprobs=True, stream=True)
    seen = [
        token.logprob
        async for chunk in stream
        for choice in chunk.choices
        if choice.logprobs is not None
        for token in choice.logprobs.content or []
    ]
    assert seen == [SURE] * 3


async def test_the_helper_that_gathers_a_stream_works(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="auto", messages=ask(HARD)) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "17 * 23 = 391."


async def test_plain_completions_work_whole_and_streamed(client: AsyncOpenAI) -> None:
    whole = await client.completions.create(model="auto", prompt=EASY)
    assert (whole.choices[0].text, whole.choices[0].logprobs) == ("It is 4.", None)
    stream = await client.completions.create(model="auto", prompt=HARD, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == "17 * 23 = 391."


async def test_fields_the_gateway_does_not_know_reach_the_model(client: AsyncOpenAI, pair: Pair) -> None:
    await client.chat.completions.create(
        model="student",
        messages=ask(EASY),
        temperature=0.3,
        seed=7,
        tools=[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
        extra_body={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}},
    )
    body = pair.student.requests[0].body
    assert body is not None
    names = ("temperature", "seed", "top_k", "chat_template_kwargs", "tools")
    assert {name: body[name] for name in names} == {
        "temperature": 0.3,
        "seed": 7,
        "top_k": 5,
        "chat_template_kwargs": {"enable_thinking": False},
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
    }


@pytest.mark.parametrize(("model", "answer"), [("student", "It is perhaps 400."), ("teacher", "17 * 23 = 391.")])
async def test_a_side_can_be_named(client: AsyncOpenAI, model: str, answer: str) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=model, messages=ask(HARD))
    assert raw.parse().choices[0].message.content == answer
    assert (raw.headers["x-tw-route"], raw.headers["x-tw-reason"]) == (model, f"forced_{model}")


async def test_models_are_listed_and_found(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed[:3] == ["auto", "student", "teacher"]
    assert (await client.models.retrieve("auto")).id == "auto"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-9", messages=ask(EASY))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_wrong_request_is_a_bad_request_and_names_the_field(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="auto", messages=[])
    assert (caught.value.param, caught.value.type) == ("messages", "invalid_request_error")


async def test_what_the_model_itself_refuses_is_passed_on(client: AsyncOpenAI, pair: Pair) -> None:
    pair.student.mode = "400"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="student", messages=ask(EASY))
    assert caught.value.code == "context_length_exceeded"


async def test_a_model_that_is_down_is_an_internal_server_error(client: AsyncOpenAI, pair: Pair) -> None:
    await pair.student.go_down()
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="student", messages=ask(EASY))
    assert (caught.value.status_code, caught.value.code) == (503, "upstream_unreachable")


async def test_a_stream_that_breaks_off_raises_and_does_not_look_whole(client: AsyncOpenAI, pair: Pair) -> None:
    pair.student.mode = "cut"
    stream = await client.chat.completions.create(model="student", messages=ask(EASY), stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_the_sdk_tries_again_by_itself_and_succeeds(running: RunningGateway, pair: Pair) -> None:
    pair.student.mode, pair.student.faults_left = "503", 1
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=2) as patient:
        completion = await patient.chat.completions.create(model="student", messages=ask(EASY))
    assert completion.choices[0].message.content == "It is 4."
    assert len(pair.student.requests) == 2


async def test_a_budget_that_rejects_says_when_to_come_again(pair: Pair, tmp_path: Path) -> None:
    budget = "At most 1 call an hour. When the budget is exhausted, reject."
    async with (
        gateway(tmp_path, pair.student.url, pair.teacher.url, budget=budget) as running,
        AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        await client.chat.completions.create(model="teacher", messages=ask(HARD))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="teacher", messages=ask(HARD))
    assert caught.value.code == "teacher_budget_exhausted"
    # A rolling window moves on in steps, so the room may come a step later than the hour.
    assert 3500 < int(caught.value.response.headers["retry-after"]) <= 3660
    assert len(pair.teacher.requests) == 1


async def test_keys_are_asked_for_once_there_are_any(running: RunningGateway) -> None:
    keys = Keys(running.state / "keys.json", open_on_loopback=True)
    secret = keys.new("client")
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="tw-wrong", max_retries=0) as stranger:
        for _ in range(50):  # a running gateway takes new keys up within about a second
            if not await lets_in(stranger):
                break
            await asyncio.sleep(0.1)
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.chat.completions.create(model="auto", messages=ask(EASY))
    assert caught.value.code == "invalid_api_key"
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key=secret, max_retries=0) as known:
        assert await lets_in(known)
    assert keys.revoke(keys.all()[-1].id)


async def lets_in(client: AsyncOpenAI) -> bool:
    try:
        await client.models.retrieve("auto")
    except openai.AuthenticationError:
        return False
    return True
