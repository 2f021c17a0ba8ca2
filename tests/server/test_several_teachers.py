"""A gateway with more than one teacher, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.action import Step
from policies.observation import Observation
from policies.policy import Policy, Scores, TeacherScore
from server.settings import Teacher
from tests.server.gateways import Running, ScriptedPolicy, running_gateway
from tests.upstreams import FaultUpstream, Mode, fault_upstream

CHEAP_USD, DEAR_USD = 0.0001, 0.001
"""Per token, in and out."""


@dataclass
class Chooser:
    """Scores each teacher by what is said of it in the prompt: `coder=3 scholar=-1`."""

    bills: tuple[float, float] | None = None
    steps: tuple[Step, ...] = (Step.ROUTE,)
    name: str = "chooser"
    version: str = "c1"
    teachers: tuple[str, ...] = ("coder", "scholar")
    seen: list[Observation] = field(default_factory=list)

    def score(self, observation: Observation) -> Scores:
        said = dict(each.split("=") for each in observation.prompt.last_user.split() if "=" in each)
        usd = dict(zip(self.teachers, self.bills or (None, None), strict=True))
        teachers = tuple(
            TeacherScore(name, float(said.get(name, -9)), float(said.get(name, -9)), usd[name], usd[name])
            for name in self.teachers
        )
        best = max(teachers, key=lambda each: each.score)
        details = {"expected_gain": best.gain}
        return Scores(best.score, details, teachers)


@dataclass(frozen=True)
class Served:
    running: Running
    student: FaultUpstream
    coder: FaultUpstream
    scholar: FaultUpstream

    async def ask(self, text: str, **body: Any) -> tuple[str, str, dict[str, Any]]:
        """(the answer's first word, reason, record)"""
        status, headers, answer = await self.running.chat(text, **body)
        assert status == 200, answer
        record = await self.running.record(headers)
        return answer["choices"][0]["message"]["content"].split()[0], headers["x-tw-reason"], record


@asynccontextmanager
async def served(
    tmp_path: Path,
    policy: Policy,
    budget: str = "At most 100% of requests.",
    *,
    prompts_cost: bool = True,
    stored: bool = False,
) -> AsyncIterator[Served]:
    async with (
        fault_upstream(name="student") as student,
        fault_upstream(name="code-7b") as coder,
        fault_upstream(name="scholar-70b") as scholar,
    ):
        teachers = tuple(
            Teacher(
                label=label,
                url=upstream.url,
                usd_per_million_prompt_tokens=usd * 1e6 if prompts_cost else 0.0,
                usd_per_million_completion_tokens=usd * 1e6,
                max_tokens=20,
            )
            for label, upstream, usd in (("coder", coder, CHEAP_USD), ("scholar", scholar, DEAR_USD))
        )
        async with running_gateway(
            tmp_path, student.url, None, budget=budget, policy=policy, stored=stored, teachers=teachers
        ) as running:
            yield Served(running, student, coder, scholar)


async def test_the_policy_chooses_and_the_record_names_whom_and_all_scores(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser((0.001, 0.01))) as here:
        word, reason, record = await here.ask("coder=3 scholar=1")
        assert (word, reason) == ("code-7b", "policy_teacher")
        assert (record["teacher"], record["teachers_tried"]) == ("coder", ["coder"])
        step = record["steps"][0]
        assert (step["teacher"], step["action"], step["propensity"], step["admitted"]) == (
            "coder",
            "teacher",
            1.0,
            True,
        )
        assert step["teachers"] == {
            "coder": {"score": 3.0, "gain": 3.0, "usd": 0.001, "propensity": 1.0},
            "scholar": {"score": 1.0, "gain": 1.0, "usd": 0.01, "propensity": 0.0},
        }
        word, _, record = await here.ask("coder=1 scholar=2")
        assert (word, record["teacher"]) == ("scholar-70b", "scholar")
        word, reason, record = await here.ask("coder=-1 scholar=-2")
        assert (word, reason, record["teacher"], record["teachers_tried"]) == ("student", "policy_student", None, [])
        assert record["steps"][0]["teacher"] is None


async def test_the_ledger_charges_the_prices_of_the_teacher_that_was_asked(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser(), "At most $5 a day.") as here:
        _, _, cheap = await here.ask("coder=3 scholar=1")
        _, _, dear = await here.ask("coder=1 scholar=3")
        assert cheap["teacher_usd"] == pytest.approx(cheap["teacher_tokens"] * CHEAP_USD)
        assert dear["teacher_usd"] == pytest.approx(dear["teacher_tokens"] * DEAR_USD)
        _, budget = await here.running.get("/v1/budget", here.running.admin)
        spent = cheap["teacher_usd"] + dear["teacher_usd"]
        assert spent > 0
        assert str(round(spent, 4)) in str(budget) or any(
            abs(limit.get("spent", 0) - spent) < 1e-9 for limit in budget["limits"]
        )


async def test_names_force_a_teacher_and_teacher_means_the_first(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        for model, word, label in (
            ("teacher", "code-7b", "coder"),
            ("coder", "code-7b", "coder"),
            ("scholar", "scholar-70b", "scholar"),
            ("scholar-70b", "scholar-70b", "scholar"),
        ):
            answered, reason, record = await here.ask("coder=-5 scholar=-5", model=model)
            assert (answered, reason, record["teacher"]) == (word, "forced_teacher", label)
        _, listed = await here.running.get("/v1/models")
        names = [row["id"] for row in listed["data"]]
        assert names[:5] == ["auto", "student", "teacher", "coder", "scholar"]
        assert {"code-7b", "scholar-70b"} <= set(names)
        assert len(set(names)) == len(names)
        status, _, answer = await here.running.chat("hello", model="nobody")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")


async def test_forced_names_stay_inside_the_budget(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser(), "At most 1 call a day.") as here:
        assert (await here.ask("?", model="scholar"))[:2] == ("scholar-70b", "forced_teacher")
        assert (await here.ask("?", model="coder"))[:2] == ("student", "budget_exhausted")


@pytest.mark.parametrize("mode", ["500", "html", "cut", "down"])
async def test_when_one_teacher_fails_the_next_one_answers(tmp_path: Path, mode: Mode) -> None:
    async with served(tmp_path, Chooser(), "At most $5 a day.") as here:
        if mode == "down":
            await here.scholar.go_down()
        here.scholar.mode = mode
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason) == ("code-7b", "other_teacher")
        assert (record["teacher"], record["teachers_tried"]) == ("coder", ["scholar", "coder"])
        # What the failed call may have billed stays charged: html and cut came after the model had worked.
        assert record["teacher_calls"] == (2 if mode in ("html", "cut") else 1)
        assert record["steps"][0]["teacher"] == "scholar"


async def test_when_all_teachers_fail_the_student_answers(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.coder.mode = here.scholar.mode = "500"
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason, record["teachers_tried"]) == ("student", "teacher_failed", ["scholar", "coder"])
        assert record["teacher_calls"] == 0


async def test_a_teacher_that_would_add_nothing_is_not_asked_in_anothers_place(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.scholar.mode = "500"
        word, reason, record = await here.ask("coder=-1 scholar=3")
        assert (word, reason, record["teachers_tried"]) == ("student", "teacher_failed", ["scholar"])


async def test_a_teacher_named_by_the_client_is_not_replaced(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.scholar.mode = "500"
        assert (await here.ask("?", model="scholar"))[:2] == ("student", "teacher_failed")
        here.scholar.mode, here.coder.mode = "ok", "500"
        assert (await here.ask("?", model="teacher"))[:2] == ("scholar-70b", "other_teacher")


async def test_a_request_that_is_at_fault_goes_to_no_other_teacher(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.scholar.mode = "400"
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason, record["teachers_tried"]) == ("student", "teacher_failed", ["scholar"])


async def test_a_dear_teacher_gives_way_to_one_that_money_is_left_for(tmp_path: Path) -> None:
    # A reservation of the scholar is some 0.03 USD (a token for each byte, and 20 more), the coder's a tenth of it.
    async with served(tmp_path, Chooser(), "At most $0.02 a day.") as here:
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason, record["teachers_tried"]) == ("code-7b", "other_teacher", ["scholar", "coder"])
        assert record["refused_by"] is None


async def test_a_teacher_that_keeps_failing_is_set_aside_and_tried_again(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.scholar.mode = "500"
        for _ in range(5):
            assert (await here.ask("coder=1 scholar=3"))[1] == "other_teacher"
        asked = len(here.scholar.requests)
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason, record["teachers_tried"]) == ("code-7b", "policy_teacher", ["coder"])
        assert record["steps"][0]["teachers"]["scholar"]["propensity"] is None
        assert len(here.scholar.requests) == asked
        _, ready = await here.running.get("/readyz")
        assert (ready["teacher coder"], ready["teacher scholar"]) == ("ok", "set aside")
        assert 'tw_teacher_set_aside{teacher="scholar"} 1.0' in await _metrics(here)
        here.scholar.mode = "ok"
        scholar = here.running.gateway.teachers.all[1]
        for _ in range(3):
            object.__setattr__(scholar.breaker, "probe_at", 0.0)  # the pause is over
            assert (await here.ask("coder=1 scholar=3"))[0] == "scholar-70b"
        assert scholar.breaker.aside is False
        assert 'tw_teacher_set_aside{teacher="scholar"} 0.0' in await _metrics(here)


async def _metrics(here: Served) -> str:
    async with here.running.http.get(f"{here.running.url}/metrics") as response:
        return await response.text()


async def test_metrics_tell_what_each_teacher_cost(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser(), "At most $5 a day.") as here:
        _, _, first = await here.ask("coder=3 scholar=1")
        _, _, second = await here.ask("coder=1 scholar=3")
        here.scholar.mode = "html"
        _, _, third = await here.ask("coder=1 scholar=3")
        page = await _metrics(here)
        assert 'tw_calls_by_teacher_total{teacher="coder"} 2.0' in page
        assert 'tw_calls_by_teacher_total{teacher="scholar"} 2.0' in page
        usd = sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("tw_usd_by_teacher_total{"))
        assert usd == pytest.approx(sum(record["teacher_usd"] for record in (first, second, third)))
        assert 'tw_upstream_errors_total{kind="upstream_bad_answer",role="teacher scholar"} 1.0' in page


async def test_drafts_are_escalated_to_the_teacher_that_is_chosen(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser(steps=(Step.DEFER,))) as here:
        word, reason, record = await here.ask("coder=1 scholar=3")
        assert (word, reason, record["teacher"]) == ("scholar-70b", "policy_escalate", "scholar")
        word, reason, _ = await here.ask("coder=-1 scholar=-3")
        assert (word, reason) == ("student", "policy_keep")


async def test_streams_are_handed_over_before_the_first_byte(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.scholar.mode = "500"
        status, headers, body = await here.running.stream("coder=1 scholar=3")
        assert (status, headers["x-tw-reason"]) == (200, "other_teacher")
        assert b"code-7b" in body
        assert body.endswith(b"data: [DONE]\n\n")


async def test_when_the_student_fails_a_teacher_answers(tmp_path: Path) -> None:
    async with served(tmp_path, Chooser()) as here:
        here.student.mode = "500"
        assert (await here.ask("coder=-1 scholar=-1"))[:2] == ("code-7b", "student_failed")
        here.coder.mode = "500"
        assert (await here.ask("coder=-1 scholar=-1"))[:2] == ("scholar-70b", "other_teacher")


async def test_a_policy_that_knows_one_teacher_asks_the_default_one_and_others_stand_in(tmp_path: Path) -> None:
    policy = ScriptedPolicy(scores=lambda _: 5.0, steps=(Step.ROUTE,))
    async with served(tmp_path, policy) as here:
        assert (await here.ask("hello"))[:2] == ("code-7b", "policy_teacher")
        here.coder.mode = "500"
        assert (await here.ask("hello"))[:2] == ("scholar-70b", "other_teacher")


async def test_a_limit_on_money_asks_the_dear_teacher_only_where_it_buys_more_than_anything_else(
    tmp_path: Path,
) -> None:
    # What the scholar adds to the coder is worth its price on every second request. Bills are of four tokens, and what
    # a call reserves is hardly more.
    policy, budget = Chooser((4 * CHEAP_USD, 4 * DEAR_USD)), "Around $0.0015 per request on average."
    async with served(tmp_path, policy, budget, prompts_cost=False) as here:
        words: dict[str, list[str]] = {"plain": [], "hard": []}
        for i in range(100):
            kind = ("plain", "hard")[i % 2]
            said = "coder=0.30 scholar=0.32" if kind == "plain" else "coder=0.05 scholar=0.90"
            words[kind].append((await here.ask(said, max_tokens=5))[0])
        late = {kind: found[15:] for kind, found in words.items()}
        assert late["plain"].count("code-7b") > 0.6 * len(late["plain"])
        assert late["hard"].count("code-7b") == 0
        assert late["hard"].count("scholar-70b") > 4 * late["plain"].count("scholar-70b")


async def test_a_gateway_with_one_teacher_keeps_its_records(tmp_path: Path) -> None:
    from tests.upstreams import scripted_pair

    async with scripted_pair() as pair:
        policy = ScriptedPolicy(scores=lambda _: 5.0, steps=(Step.ROUTE,))
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, budget="At most 100% of requests.", policy=policy
        ) as running:
            _, headers, _ = await running.chat("hello")
            record = await running.record(headers)
            assert not {"teacher", "teachers_tried"} & set(record)
            assert not {"teacher", "teachers"} & set(record["steps"][0])
            _, listed = await running.get("/v1/models")
            assert [row["id"] for row in listed["data"]] == ["auto", "student", "teacher"]
        # The same gateway with a policy that knows two: of these only the one that is served is asked.
        async with running_gateway(
            tmp_path / "two",
            pair.student.url,
            pair.teacher.url,
            budget="At most 100% of requests.",
            policy=Chooser(teachers=("other", "teacher")),
        ) as running:
            for text, route in (("other=9 teacher=-1", "student"), ("other=-9 teacher=1", "teacher")):
                _, headers, _ = await running.chat(text)
                assert headers["x-tw-route"] == route


async def test_a_trained_policy_chooses_from_a_process_of_its_own(tmp_path: Path) -> None:
    from dataclasses import replace

    from server.policy_store import PolicyStore
    from tests.training import several
    from tests.training.test_several_teachers import QUICK
    from training.train_policy import train_policy

    table = several.write(tmp_path / "table.jsonl", several.specialists(200, drafts=False))
    train_policy([table], tmp_path / "policy", replace(QUICK, steps=20), signals="prompt", created="2026-11-21")
    store = PolicyStore(tmp_path)
    store.promote(store.add(tmp_path / "policy", 0.0), 0.0)
    async with served(tmp_path, ScriptedPolicy(), stored=True) as here:
        kinds = {"code-7b": several.TOPICS["code"], "scholar-70b": several.TOPICS["history"]}
        for name, text in kinds.items():
            word, reason, record = await here.ask(text.format(i=77))
            assert (word, reason) == (name, "policy_teacher")
            assert set(record["steps"][0]["teachers"]) == {"coder", "scholar"}
            assert all(each["usd"] > 0 for each in record["steps"][0]["teachers"].values())
        assert not [warning for warning in here.running.gateway.warnings() if "teacher" in warning]
