"""Budgets in USD through the whole gateway: calls go where a dollar buys most, and the ceiling always holds."""

import random
from dataclasses import dataclass
from pathlib import Path

from policies.action import Step
from policies.observation import Observation
from policies.policy import Scores
from tests.server.gateways import running_gateway
from tests.upstreams import answer, scripted_pair

USD_PER_TOKEN = 1e-4
PRICES = {"usd_per_million_prompt_tokens": 0.0, "usd_per_million_completion_tokens": 1e6 * USD_PER_TOKEN}
SHORT, LONG = 4, 40
"""Words of the teacher's answers."""


@dataclass
class Bills:
    """Expects a little more of long answers, and knows that they cost ten times as much."""

    name: str = "bills"
    version: str = "v1"
    steps: tuple[Step, ...] = (Step.ROUTE,)
    typical: tuple[tuple[float, float], ...] = ((0.2, SHORT * USD_PER_TOKEN), (0.3, LONG * USD_PER_TOKEN)) * 20
    knows: bool = True

    def score(self, observation: Observation) -> Scores:
        long = observation.prompt.text.startswith("long")
        gain, words = (0.3, LONG) if long else (0.2, SHORT)
        details = {"expected_gain": gain}
        if self.knows:
            details["expected_teacher_usd"] = words * USD_PER_TOKEN
        return Scores(gain - 0.25, details)


async def calls(tmp_path: Path, policy: Bills, requests: int) -> tuple[int, int, float]:
    """(short, long, highest mean spent per request so far over the ceiling) under a ceiling on the mean."""
    ceiling = 1.2 * SHORT * USD_PER_TOKEN
    prompts = [f"{'long' if i % 2 else 'short'} question {i}" for i in range(requests)]
    random.Random(0).shuffle(prompts)
    student = {prompt: answer("no") for prompt in prompts}
    teacher = {
        prompt: answer(" ".join(["word"] * (LONG if prompt.startswith("long") else SHORT))) for prompt in prompts
    }
    counts, spent, highest = {"short": 0, "long": 0}, 0.0, 0.0
    async with (
        scripted_pair(student, teacher) as pair,
        running_gateway(
            tmp_path,
            pair.student.url,
            pair.teacher.url,
            budget=f"At most ${ceiling:.6f} per request on average.",
            policy=policy,
            teacher_settings={**PRICES, "max_tokens": LONG},
        ) as gateway,
    ):
        for number, prompt in enumerate(prompts, start=1):
            status, headers, _ = await gateway.chat(prompt)
            assert status == 200
            if headers["x-tw-route"] == "teacher":
                kind = prompt.split(" ")[0]
                counts[kind] += 1
                spent += (LONG if kind == "long" else SHORT) * USD_PER_TOKEN
            highest = max(highest, spent / number / ceiling)
    return counts["short"], counts["long"], highest


async def test_a_dollar_goes_where_it_buys_most_and_the_ceiling_always_holds(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    short, long, highest = await calls(tmp_path / "with", Bills(), 200)
    short_by_gain, long_by_gain, highest_by_gain = await calls(
        tmp_path / "without", Bills(knows=False, typical=()), 200
    )
    assert 0.2 * short + 0.3 * long > 1.7 * (0.2 * short_by_gain + 0.3 * long_by_gain)
    assert long_by_gain > short_by_gain, "long answers look better, whatever they cost"
    assert max(highest, highest_by_gain) <= 1.0 + 1e-9
