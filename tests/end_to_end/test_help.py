"""`tw serve --help-by student` with real engines: the shipped pair, its student given a `<help>` of its own."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.settings import SHIPPED
from tests.asking import student_that_asks, student_that_was_trained
from tests.serving import RunningGateway

QUESTION = "Tom has 7 bags with 12 apples each and eats 5 apples. How many apples are left?"


async def answered(gateway: RunningGateway, **fields: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(text, body, record)"""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 40, **fields}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{gateway.url}/v1/chat/completions", json={"model": "auto", **body}) as response:
            assert response.status == 200, await response.text()
            answer, decision = await response.json(), response.headers["x-tw-decision-id"]
        async with http.get(f"{gateway.url}/v1/decisions/{decision}", headers=gateway.as_admin) as response:
            record: dict[str, Any] = await response.json()
    return answer["choices"][0]["message"]["content"], answer, record


@pytest.mark.parametrize("exact", ["true", "false"])
async def test_a_student_asks_with_its_own_token_and_nobody_sees_it(tmp_path: Path, exact: str) -> None:
    student = student_that_asks(tmp_path / "student")
    arguments = ["--student", str(student), "--teacher", str(SHIPPED / "teacher"), "--help-by", "student"]
    arguments += ["--help-tokens", "6", "--budget", "No limit on the teacher."]
    gateway = RunningGateway(tmp_path / "state", arguments, {"TW_HELP__EXACT": exact})
    await gateway.start()
    try:
        text, answer, record = await answered(gateway, logprobs=True, top_logprobs=3)
        plain, _, alone = await answered(gateway)
        many = await asyncio.gather(*(answered(gateway) for _ in range(4)))
    finally:
        await gateway.stop()
    hand_over = "token ids are handed over" if exact == "true" else "text is handed over"
    assert f"the student asks, the teacher writes 6 tokens each time, {hand_over}" in gateway.log.read_text()
    helps = [segment for segment in record["segments"] if segment["by"] == "teacher"]
    assert helps
    assert {segment["reason"] for segment in helps} == {"asked"}
    assert record["route"] == alone["route"] == "mixed"
    assert answer["usage"]["completion_tokens"] == sum(segment["tokens"] for segment in record["segments"])
    assert "help" not in json.dumps(answer)
    tokens = [entry["token"] for entry in answer["choices"][0]["logprobs"]["content"]]
    assert "".join(token for token in tokens if token != "<|end|>") == text
    assert text == plain, "handed over by text, as log-probabilities need it, or as the settings say"
    assert {each[0] for each in many} == {plain}


async def test_a_student_that_was_trained_to_ask_says_itself_how_it_is_served(tmp_path: Path) -> None:
    student = student_that_was_trained(tmp_path / "student", "student")
    pair = ["--student", str(student), "--teacher", str(SHIPPED / "teacher")]
    gateway = RunningGateway(tmp_path / "state", [*pair, "--budget", "No limit on the teacher."])
    await gateway.start()
    try:
        _, _, record = await answered(gateway)
    finally:
        await gateway.stop()
    assert "the student asks, the teacher writes 6 tokens each time" in gateway.log.read_text()
    helps = [one for one in record["segments"] if one["by"] == "teacher"]
    assert helps
    assert {one["reason"] for one in helps} == {"asked"}


async def test_a_watched_student_that_would_ask_is_not_doubted_for_that_and_nobody_sees_its_token(
    tmp_path: Path,
) -> None:
    student = student_that_was_trained(tmp_path / "student", "policy")
    pair = ["--student", str(student), "--teacher", str(SHIPPED / "teacher")]
    gateway = RunningGateway(tmp_path / "state", [*pair, "--budget", "No limit on the teacher."])
    await gateway.start()
    try:
        sum_of_two = [{"role": "user", "content": "What is 12 + 30?"}]
        text, answer, record = await answered(gateway, messages=sum_of_two, logprobs=True, top_logprobs=3)
    finally:
        await gateway.stop()
    # To the 4 it gives a third; all the rest is <help>'s, which is banned.
    assert (text, record["route"]) == ("42", "student")
    first = answer["choices"][0]["logprobs"]["content"][0]
    assert first["token"] == "4"
    assert math.exp(first["logprob"]) < 0.5
    assert first["top_logprobs"]
    assert "help" not in json.dumps(answer)
