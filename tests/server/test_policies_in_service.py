"""Shadow, canary, safe policies, and changes of policy under load, through the whole gateway."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import server.app
from policies.action import Step
from policies.artifact import Manifest, save_artifact
from policies.baselines import Levels, Threshold
from policies.observation import Observation
from policies.policy import Scores
from policies.safe import SafeName
from server.in_service import InService
from server.policy_store import PolicyStore
from server.scoring.process import ProcessScorer
from server.settings import Settings
from tests.server.gateways import Running, ScriptedPolicy, running_gateway
from tests.upstreams import answer, fault_upstream, scripted_pair

QUESTION = "What is 17 + 26?"
STUDENT = {QUESTION: answer("The answer is 42.", logprob=-1.5)}
ALWAYS = "At most 100% of requests."
DECIDED = {"policy_keep", "policy_escalate"}


@dataclass
class Scored:
    """A scorer that tests can make slow, or make fail; waits without holding the loop, as a process would be."""

    score_of: Callable[[Observation], float] = lambda observation: -1.0
    version: str = "v2"
    steps: tuple[Step, ...] = (Step.DEFER,)
    delay_s: float = 0.0
    name: str = "scored"
    asked: list[Observation] = field(default_factory=list)
    closed: bool = False
    samples: None = None

    async def score(self, observation: Observation) -> Scores:
        assert not self.closed
        self.asked.append(observation)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return Scores(self.score_of(observation))

    async def close(self) -> None:
        self.closed = True


def fails(observation: Observation) -> float:
    raise KeyError("a word it does not know")


def put_beside(
    gateway: Running, *, shadow: Scored | None = None, canary: Scored | None = None, share: float = 0.5
) -> None:
    gateway.gateway.decider.take_policies(
        gateway.gateway.decider.serving,
        None if canary is None else InService(canary),
        share,
        None if shadow is None else InService(shadow),
    )


async def eventually(look: Callable[[], Any], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


# Shadow


async def test_a_shadow_is_asked_the_same_and_logged_and_does_not_act(tmp_path: Path) -> None:
    shadow = Scored(lambda observation: 50.0)
    serving = ScriptedPolicy()
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=serving) as gateway,
    ):
        put_beside(gateway, shadow=shadow)
        _, headers, _ = await gateway.chat(QUESTION)
        record = await gateway.record(headers)
        _, metrics, _ = await text_of(gateway, "/metrics")
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("student", "policy_keep")
    assert pair.teacher.requests == []
    assert shadow.asked == serving.seen
    assert (record["policy_version"], record["policy_role"]) == ("v1", "serving")
    assert (record["shadow"]["policy_version"], record["shadow"]["error"]) == ("v2", None)
    (step,) = record["shadow"]["steps"]
    assert (step["step"], step["action"], step["score"]) == ("defer", "escalate", 50.0)
    assert 0 < step["propensity"] <= 1
    assert 'tw_policy_teacher_calls_total{role="shadow",version="v2"} 1.0' in metrics
    assert 'tw_policy_decisions_total{role="serving",version="v1"} 1.0' in metrics


async def test_a_slow_shadow_costs_no_latency_and_is_logged_on_a_line_of_its_own(tmp_path: Path) -> None:
    shadow = Scored(delay_s=0.5)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        put_beside(gateway, shadow=shadow)
        await gateway.chat(QUESTION)
        began = time.monotonic()
        _, headers, _ = await gateway.chat(QUESTION)
        took = time.monotonic() - began
        early = await gateway.record(headers)
        found = gateway.gateway.log.find
        await eventually(lambda: (found(headers["x-tw-decision-id"]) or {}).get("shadow"))
        late = await gateway.record(headers)
        gateway.gateway.log._recent.clear()  # as after a restart: from the segments
        read = await gateway.record(headers)
    assert took < 0.4
    assert early["shadow"] is None
    assert [step["score"] for step in late["shadow"]["steps"]] == [-1.0]
    assert read == late
    lines = [line for path in (tmp_path / "decisions").iterdir() for line in path.read_text().splitlines()]
    assert sum('"shadow_on"' in line for line in lines) == 2


async def test_a_failing_shadow_touches_no_answer_and_is_set_aside(tmp_path: Path) -> None:
    shadow = Scored(fails)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        put_beside(gateway, shadow=shadow)
        answers = [await gateway.chat(QUESTION) for _ in range(12)]
        first = await gateway.record(answers[0][1])
        _, health = await gateway.get("/healthz")
        _, ready = await gateway.get("/readyz")
    assert {status for status, _, _ in answers} == {200}
    assert {headers["x-tw-reason"] for _, headers, _ in answers} <= DECIDED
    assert first["shadow"]["error"] == "KeyError: 'a word it does not know'"
    assert len(shadow.asked) < 12
    assert health["policies"]["shadow"] == {"version": "v2", "name": "scored", "state": "set aside"}
    assert (ready["status"], ready["policy"], ready["shadow"]) == ("ready", "ok", "set aside")


async def test_a_shadow_that_decides_before_generation_is_asked_beside_one_that_reads_drafts(tmp_path: Path) -> None:
    shadow = Scored(steps=(Step.ROUTE, Step.DEFER))
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        put_beside(gateway, shadow=shadow)
        _, headers, _ = await gateway.chat(QUESTION)
        await asyncio.sleep(0.05)
        record = await gateway.record(headers)
    assert [step["step"] for step in record["shadow"]["steps"]] == ["route", "defer"]


# Canary


async def test_a_canary_decides_its_share_and_always_the_same_conversations(tmp_path: Path) -> None:
    canary = Scored(lambda observation: 50.0, steps=(Step.ROUTE,))
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, budget=ALWAYS) as gateway,
    ):
        put_beside(gateway, canary=canary, share=0.3)
        by_conversation: dict[str, set[str]] = {}
        for _ in range(2):
            conversations = [{"x-tw-conversation": f"c{number}"} for number in range(80)]
            await asyncio.gather(*(gateway.chat(QUESTION, headers=each) for each in conversations))
        for record in gateway.gateway.log.recent(160):
            by_conversation.setdefault(record["conversation"], set()).add(record["policy_version"])
            assert record["policy_role"] == ("canary" if record["policy_version"] == "v2" else "serving")
            assert (record["steps"][0]["score"] == 50.0) == (record["policy_version"] == "v2")
        _, metrics, _ = await text_of(gateway, "/metrics")
        decider = gateway.gateway.decider
        pacers = (len(decider.serving.pacer.recent), decider.canary and len(decider.canary.pacer.recent))
    assert all(len(versions) == 1 for versions in by_conversation.values())
    share = sum(versions == {"v2"} for versions in by_conversation.values()) / 80
    assert 0.15 <= share <= 0.45
    calls = round(share * 160)
    assert f'tw_policy_teacher_calls_total{{role="canary",version="v2"}} {calls}.0' in metrics
    assert f'tw_policy_decisions_total{{role="serving",version="v1"}} {160 - calls}.0' in metrics
    assert pacers == (160 - calls, calls), "each paces by its own scores"


async def test_a_canary_that_is_set_aside_leaves_its_share_to_the_policy_that_serves(tmp_path: Path) -> None:
    canary = Scored(fails)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        put_beside(gateway, canary=canary, share=0.999)
        reasons = [(await gateway.chat(QUESTION))[1]["x-tw-reason"] for _ in range(12)]
        canary.score_of = lambda observation: -1.0
        decider = gateway.gateway.decider
        assert decider.canary is not None
        await eventually_asked(gateway, lambda: decider.canary is not None and not decider.canary.breaker.aside)
        _, headers, _ = await gateway.chat(QUESTION)
        record = await gateway.record(headers)
    assert reasons[:5] == ["policy_failed"] * 5
    assert set(reasons[5:]) <= DECIDED
    assert (record["policy_role"], record["policy_version"]) == ("canary", "v2")


# Failures


def test_every_safe_policy_can_be_set_and_no_other() -> None:
    assert get_args(Settings.model_fields["fallback_policy"].annotation) == get_args(SafeName)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
@pytest.mark.parametrize(
    ("fallback", "step", "action"),
    [("student", Step.ROUTE, "student"), ("length", Step.ROUTE, "teacher"), ("random", Step.DEFER, "escalate")],
)
async def test_a_policy_that_fails_is_replaced_by_the_named_safe_one(
    tmp_path: Path, score: float | None, fallback: str, step: Step, action: str
) -> None:
    policy = ScriptedPolicy(fails if score is None else lambda observation: score, steps=(step,))
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget=ALWAYS, fallback_policy=fallback
        ) as gateway,
    ):
        # Under 100% a safe policy is free, and asks where its score is above zero: for a long prompt, say.
        _, headers, _ = await gateway.chat(QUESTION * 1000)
        record = await gateway.record(headers)
        _, ready = await gateway.get("/readyz")
    assert headers["x-tw-reason"] == "policy_failed"
    assert (record["policy"], record["policy_role"], record["failed_policy"]) == (fallback, "fallback", "v1")
    assert [each["action"] for each in record["steps"]] == [action]
    assert record["teacher_calls"] == (action != "student")
    assert (ready["status"], ready["policy"]) == ("degraded", "failing")


async def test_a_safe_policy_that_reads_drafts_gets_one(tmp_path: Path) -> None:
    policy = ScriptedPolicy(fails, steps=(Step.ROUTE,))
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget=ALWAYS, fallback_policy="logprob"
        ) as gateway,
    ):
        _, headers, _ = await gateway.chat(QUESTION)
        record = await gateway.record(headers)
    assert [(each["step"], each["action"]) for each in record["steps"]] == [("route", "student"), ("defer", "escalate")]
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("teacher", "policy_failed")
    assert record["policy"] == "logprob"


async def test_a_policy_that_keeps_failing_is_set_aside_until_it_is_well_again(tmp_path: Path) -> None:
    policy = ScriptedPolicy(fails)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=policy) as gateway,
    ):
        reasons = {(await gateway.chat(QUESTION))[1]["x-tw-reason"] for _ in range(8)}
        _, sick = await gateway.get("/healthz")
        asked = len(policy.seen)
        _, metrics, _ = await text_of(gateway, "/metrics")
        policy.scores = lambda observation: -1.0
        await eventually_asked(gateway, lambda: gateway.gateway.decider.healthy)
        _, headers, _ = await gateway.chat(QUESTION)
        _, well = await gateway.get("/healthz")
    assert reasons == {"policy_failed"}
    assert asked == 5, "the others were not even asked"
    assert 'tw_policy_failures_total{version="v1"} 5.0' in metrics
    assert (sick["status"], sick["policies"]["serving"]["state"]) == ("ok", "set aside")
    assert sick["policies"]["fallback"] == "student"
    assert headers["x-tw-reason"] in DECIDED
    assert well["policies"]["serving"]["state"] == "ok"


async def test_a_policy_that_hangs_in_its_process_is_replaced_in_time_and_comes_back(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "state")
    store.promote(store.add(constant(tmp_path, "always-student")), 0.0)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(
            tmp_path / "state", pair.student.url, pair.teacher.url, budget=ALWAYS, stored=True,
            fallback_policy="length", timeouts={"policy_s": 0.3},
        ) as gateway,
    ):  # fmt: skip
        scorer = gateway.gateway.decider.serving.scorer
        assert isinstance(scorer, ProcessScorer)
        assert scorer.pid is not None
        os.kill(scorer.pid, signal.SIGSTOP)
        began = time.monotonic()
        answers = await asyncio.gather(*(gateway.chat(QUESTION * 1000) for _ in range(20)))
        took = time.monotonic() - began
        sick = gateway.gateway.decider.serving.state
        await eventually_asked(gateway, lambda: gateway.gateway.decider.healthy)
        _, headers, _ = await gateway.chat(QUESTION)
    assert {(status, each["x-tw-route"], each["x-tw-reason"]) for status, each, _ in answers} == {
        (200, "teacher", "policy_failed")
    }
    assert took < 3.0
    assert sick == "set aside"
    assert headers["x-tw-reason"] == "policy_student"


# Changes under load


def constant(folder: Path, kind: str) -> Path:
    save_artifact(folder / kind, Manifest(kind, kind, "prompt"), {})
    return folder / kind


def on_drafts(folder: Path, name: str, level: float) -> Path:
    policy = Threshold("logprob_mean", -1.0, Levels(np.linspace(level + 1.0, level, 201)))
    save_artifact(folder / name, Manifest(policy.kind, name, "draft"), policy.arrays())
    return folder / name


async def test_no_request_fails_while_policies_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.app, "_REFRESH_S", 0.05)
    closed: set[ProcessScorer] = set()
    late: list[str] = []
    close, score = ProcessScorer.close, ProcessScorer.score

    async def closing(scorer: ProcessScorer) -> None:
        closed.add(scorer)
        await close(scorer)

    async def scoring(scorer: ProcessScorer, observation: Observation) -> Scores:
        if scorer in closed:
            late.append(scorer.version)
        return await score(scorer, observation)

    monkeypatch.setattr(ProcessScorer, "close", closing)
    monkeypatch.setattr(ProcessScorer, "score", scoring)
    store = PolicyStore(tmp_path / "state")
    student, teacher = (store.add(constant(tmp_path, kind)) for kind in ("always-student", "always-teacher"))
    store.promote(student, 0.0)
    sign = {student: -20.0, teacher: 20.0}
    seen: list[dict[str, Any]] = []
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(
            tmp_path / "state", pair.student.url, pair.teacher.url, budget=ALWAYS, stored=True,
            timeouts={"policy_s": 10.0},
        ) as gateway,
    ):  # fmt: skip
        ended = False

        async def client(number: int) -> None:
            while not ended:
                status, headers, _ = await gateway.chat(QUESTION, headers={"x-tw-conversation": f"c{number}"})
                assert status == 200
                seen.append(await gateway.record(headers))

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        watch = gateway.gateway.watch
        decider = gateway.gateway.decider
        assert watch is not None

        async def taken_up(look: Callable[[], bool]) -> None:
            await eventually(look, 20.0)
            await asyncio.sleep(0.1)

        for _ in range(2):
            store.set_canary(teacher, 0.5, 1.0)
            await taken_up(lambda: decider.canary is not None)
            store.promote(teacher, 2.0)
            await taken_up(lambda: decider.serving.version == teacher and decider.canary is None)
            store.set_shadow(student, 3.0)
            await taken_up(lambda: decider.shadow is not None)
            store.rollback(4.0)
            await taken_up(lambda: decider.serving.version == student and decider.shadow is None)
        ended = True
        await asyncio.gather(*clients)
        await eventually(lambda: not watch._retiring)
        assert watch.problem is None
    assert late == []
    assert len(closed) >= 4
    assert {record["reason"] for record in seen} <= {"policy_student", "policy_teacher"}
    assert {record["policy_version"] for record in seen} == {student, teacher}
    assert {record["policy_role"] for record in seen} == {"serving", "canary"}
    for record in seen:
        assert record["steps"][0]["score"] == sign[record["policy_version"]], "scored by the one that the record names"


async def test_a_request_stays_with_the_policy_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.app, "_REFRESH_S", 0.05)
    store = PolicyStore(tmp_path / "state")
    first, second = (store.add(on_drafts(tmp_path, name, level)) for name, level in (("first", 1.0), ("second", 9.0)))
    store.promote(first, 0.0)
    async with (
        fault_upstream("slow", script=STUDENT, delay_s=2.5, name="student") as slow,
        fault_upstream(script=STUDENT, name="teacher") as teacher,
        running_gateway(
            tmp_path / "state", slow.url, teacher.url, budget=ALWAYS, stored=True, timeouts={"policy_s": 10.0}
        ) as gateway,
    ):
        decider = gateway.gateway.decider
        scorer = decider.serving.scorer
        assert isinstance(scorer, ProcessScorer)
        pid = scorer.pid
        assert pid is not None
        asking = asyncio.create_task(gateway.chat(QUESTION))
        await eventually(lambda: slow.requests)
        store.promote(second, 1.0)
        await eventually(lambda: decider.serving.version == second)
        assert not asking.done()
        _, headers, _ = await asking
        record = await gateway.record(headers)
        await eventually(lambda: not exists(pid))
    assert record["policy_version"] == first
    assert record["steps"][0]["score"] > 0, "the other one would have kept this draft"
    assert headers["x-tw-reason"] == "policy_escalate"


async def test_a_policy_that_cannot_be_loaded_leaves_the_one_in_service_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.app, "_REFRESH_S", 0.05)
    store = PolicyStore(tmp_path / "state")
    first, second = (store.add(constant(tmp_path, kind)) for kind in ("always-student", "always-teacher"))
    store.promote(first, 0.0)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path / "state", pair.student.url, pair.teacher.url, stored=True) as gateway,
    ):
        store.promote(second, 1.0)
        (tmp_path / "state" / "policies" / second / "weights.npz").write_bytes(b"damaged")
        watch = gateway.gateway.watch
        assert watch is not None
        await eventually(lambda: watch.problem)
        _, headers, _ = await gateway.chat(QUESTION)
        _, health = await gateway.get("/healthz")
    assert headers["x-tw-reason"] == "policy_student"
    assert health["policies"]["serving"]["version"] == first
    (warning,) = health["warnings"]
    assert "SHA-256" in warning


# Models and alarms


async def test_a_policy_trained_for_other_models_is_warned_about(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "state")
    manifest = Manifest("always-student", "a", "prompt", student_model="Qwen/Qwen3-0.6B", teacher_model="teacher")
    save_artifact(tmp_path / "a", manifest, {})
    store.promote(store.add(tmp_path / "a"), 0.0)
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path / "state", pair.student.url, pair.teacher.url, stored=True) as gateway,
    ):
        _, health = await gateway.get("/healthz")
    (warning,) = health["warnings"]
    assert "was trained for the student Qwen/Qwen3-0.6B, and student is served" in warning


async def test_a_student_that_gets_worse_is_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        scripted_pair(STUDENT, {}) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        _, headers, _ = await gateway.chat(QUESTION)
        row = gateway.gateway.log.find(headers["x-tw-decision-id"])
        assert row is not None
        for number in range(400):
            gateway.gateway.note_quality(row, float(number % 10 != 0) if number < 250 else float(number % 3 == 0))
        body = {"decision_id": headers["x-tw-decision-id"], "quality": 1.0}
        for _ in range(2):
            async with gateway.http.post(f"{gateway.url}/v1/feedback", json=body) as response:
                assert response.status == 200
        _, health = await gateway.get("/healthz")
        _, metrics, _ = await text_of(gateway, "/metrics")
    (alarm,) = health["alarms"]
    assert alarm["kind"] == "student_quality_moved"
    assert (alarm["was"], alarm["is"]) == (0.9, pytest.approx(0.35, abs=0.1))
    assert 'tw_alarm{kind="student_quality_moved"} 1.0' in metrics
    assert 'tw_alarm{kind="teacher_quality_moved"} 0.0' in metrics
    assert 'tw_policy_feedback_total{role="serving",version="v1"} 401.0' in metrics, "a correction is no news"
    assert "alarm student_quality_moved: the student's quality was 0.900" in caplog.text


async def text_of(gateway: Running, path: str) -> tuple[int, str, Any]:
    async with gateway.http.get(f"{gateway.url}{path}") as response:
        return response.status, await response.text(), response.headers


async def eventually_asked(gateway: Running, look: Callable[[], bool]) -> None:
    """Sends requests, on which what is set aside is tried, until it is back."""
    deadline = time.monotonic() + 20.0
    while not look():
        assert time.monotonic() < deadline, "it was not let back in"
        assert (await gateway.chat(QUESTION))[0] == 200
        await asyncio.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
