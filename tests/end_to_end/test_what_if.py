"""From served requests and their feedback to what another budget would have done."""

import asyncio
import json
from pathlib import Path

import aiohttp
from click.testing import CliRunner

from server.cli import main
from tests.serving import gateway
from tests.upstreams import scripted_pair

QUESTIONS = 60


async def test_a_log_of_the_running_gateway_can_be_asked(tmp_path: Path) -> None:
    budget = "At most 50% of requests. Try 50% at random."
    async with (
        scripted_pair() as pair,
        gateway(tmp_path, pair.student.url, pair.teacher.url, budget=budget) as running,
        aiohttp.ClientSession() as http,
    ):

        async def ask(number: int, model: str = "auto") -> None:
            body = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}]}
            async with http.post(f"{running.url}/v1/chat/completions", json=body, headers=running.as_admin) as answer:
                assert answer.status == 200
                told = {
                    "decision_id": answer.headers["x-tw-decision-id"],
                    "quality": 1.0 if answer.headers["x-tw-route"] == "teacher" else 0.5,
                }
            async with http.post(f"{running.url}/v1/feedback", json=told, headers=running.as_admin) as heard:
                assert heard.status == 200

        for number in range(QUESTIONS):
            await ask(number)
        await ask(QUESTIONS, model="student")
        state = running.state
    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["what-if", "--log", str(state), "--budget", "Aim for 30% of requests.", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"] == QUESTIONS + 1
    assert report["logged"]["routed"] == QUESTIONS
    assert report["logged"]["fixed"] == {"the client asked for the student by name": 1}
    assert report["logged"]["quality_known"] == 1.0
    assert report["unsupported"] == 0.0
    low, high = report["quality_ci95"]
    assert low <= 0.5 + 0.5 * report["share"] <= high
