"""Help inside answers before two real vLLM servers with the shipped pair: seams by token ids and by text."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from server.settings import SHIPPED
from tests.asking import student_that_was_trained
from tests.serving import RunningGateway

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]
PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
QUESTIONS = ["What is 12 + 30?", "Tom has 7 bags with 12 apples each and eats 5 apples. How many apples are left?"]
START_S = 600.0


async def served(
    folder: Path, engine: str = "vllm", student: Path | None = None, **settings: str
) -> AsyncIterator[RunningGateway]:
    """Without limits, so that who is doubted does not depend on what came before. `student` before the shipped teacher,
    or the shipped pair."""
    assert PYTHON.exists(), f"{PYTHON} is missing: run deploy/vllm-cpu-env.sh, or make test-vllm"
    arguments = ["--engine", engine, "--vllm-python", str(PYTHON), "--budget", "No limit on the teacher."]
    if student is not None:
        arguments += ["--student", str(student), "--teacher", str(SHIPPED / "teacher")]
    env = {f"TW_HELP__{name.upper()}": value for name, value in settings.items()}
    started = RunningGateway(folder / "state", arguments, env)
    try:
        await started.start(START_S)
        yield started
    finally:
        if started.process is not None and started.process.poll() is None:
            await started.stop(60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async for gateway in served(tmp_path_factory.mktemp("watched"), by="policy", tokens="5", doubt="0.95"):
        yield gateway


async def answered(gateway: RunningGateway, question: str, **fields: Any) -> tuple[str, Any, dict[str, Any]]:
    """(text, usage, record) of one greedy answer, streamed and whole alike."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        body: dict[str, Any] = {
            "model": "auto", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 64,
            **fields,
        }  # fmt: skip
        raw = await client.chat.completions.with_raw_response.create(**body)
        whole = raw.parse()
        text, usage = "", None
        async for chunk in await client.chat.completions.create(
            **body, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text == whole.choices[0].message.content
    assert usage == whole.usage
    async with aiohttp.ClientSession() as http:
        url = f"{gateway.url}/v1/decisions/{raw.headers['x-tw-decision-id']}"
        async with http.get(url, headers=gateway.as_admin) as response:
            record: dict[str, Any] = await response.json()
    return text, whole.usage, record


async def test_the_teacher_writes_inside_answers_and_the_counts_are_right(watched: RunningGateway) -> None:
    for question in QUESTIONS:
        _, usage, record = await answered(watched, question)
        told = {who: sum(s["tokens"] for s in record["segments"] if s["by"] == who) for who in ("student", "teacher")}
        assert usage.completion_tokens == sum(told.values())
        route = "mixed" if told["teacher"] else "student"
        assert (record["route"], record["student_tokens"]) == (route, told["student"])
        helps = [segment for segment in record["segments"] if segment["by"] == "teacher"]
        assert record["teacher_calls"] == len(helps)
        assert record["teacher_tokens"] == sum(segment["billed_tokens"] for segment in helps)
        assert record["teacher_tokens"] >= told["teacher"]
    assert route == "mixed", "the second question is one that the student is not sure about"


async def test_vllm_and_the_embedded_engine_write_the_same_helped_answer(
    watched: RunningGateway, tmp_path: Path
) -> None:
    on_vllm = [(await answered(watched, question))[0] for question in QUESTIONS]
    async for gateway in served(tmp_path, "embedded", by="policy", tokens="5", doubt="0.95"):
        assert [(await answered(gateway, question))[0] for question in QUESTIONS] == on_vllm


async def test_text_with_characters_of_many_bytes_comes_through_whole(watched: RunningGateway) -> None:
    text, _, record = await answered(watched, "Größe 日本 🙂 12 + 30?")
    assert record["error"] is None
    assert text


async def test_a_client_that_leaves_during_helps_is_billed_for_what_there_was(watched: RunningGateway) -> None:
    async with AsyncOpenAI(base_url=f"{watched.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTIONS[1]}], max_tokens=500, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        seen = aiter(stream)
        for _ in range(8):
            await anext(seen)
        await stream.close()
    async with asyncio.timeout(20):
        while not (left := [record for record in watched.decisions() if record["disconnected"]]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert left[0]["segments"][-1]["ended"] in ("left", "help")
    assert left[0]["teacher_calls"] == sum(segment["billed_tokens"] > 0 for segment in left[0]["segments"])


async def test_a_student_that_asks_with_a_token_of_its_own_is_helped_by_text_too(tmp_path: Path) -> None:
    """The shipped student was not trained to ask: a digit stands in for its `<help>`."""
    async for gateway in served(tmp_path, by="student", token="4", tokens="6", exact="false", max_segments="2"):
        text, _, record = await answered(gateway, QUESTIONS[0])
        assert record["segments"][0]["ended"] == "help"
        helps = [segment for segment in record["segments"] if segment["by"] == "teacher"]
        assert 1 <= len(helps) <= 2
        assert helps[0]["tokens"] > 0
        assert text


@pytest.mark.parametrize("by", ["student", "policy"])
async def test_a_student_that_was_trained_to_ask_is_served_as_it_says_itself(tmp_path: Path, by: str) -> None:
    """Asking by itself, or watched and kept from its token, it writes what it writes on the embedded engine."""
    student = student_that_was_trained(tmp_path / "student", by)
    reasons, texts = [], []
    for engine in ("vllm", "embedded"):
        async for gateway in served(tmp_path / engine, engine, student):
            told = [await answered(gateway, question) for question in QUESTIONS]
            texts.append([text for text, _, _ in told])
            helps = [one for _, _, record in told for one in record["segments"] if one["by"] == "teacher"]
            reasons.append({one["reason"] for one in helps})
    assert texts[0] == texts[1]
    assert not any("help" in text for text in texts[0])
    assert reasons[0] == reasons[1] == ({"asked"} if by == "student" else {"doubted"})
