"""The whole gateway over HTTP, before upstreams that answer by script."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from policies.action import Step
from policies.observation import Observation
from tests.server.gateways import ScriptedPolicy, running_gateway
from tests.upstreams import answer, scripted_pair

QUESTION = "What is 17 + 26?"
STUDENT = {QUESTION: answer("The answer is 42.", logprob=-1.5)}
TEACHER = {QUESTION: answer("17 + 26 = 43. The answer is 43.")}


def doubts(observation: Observation) -> float:
    """Speaks for the teacher when the draft's log-probabilities are low."""
    assert observation.draft is not None
    return -sum(observation.draft.logprobs) - 1.0


def content(data: dict[str, Any]) -> str:
    text = data["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def streamed(raw: bytes) -> tuple[str, list[dict[str, Any]]]:
    """(text, chunks) of an SSE body; checks its form."""
    events = raw.decode().split("\n\n")
    assert events[-1] == ""
    assert events[-2] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    return "".join(deltas), chunks


async def test_a_sure_draft_is_kept_and_the_teacher_never_hears_of_it(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy()
        async with running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=policy) as gateway:
            status, headers, data = await gateway.chat(QUESTION)
            record = await gateway.record(headers)
    assert (status, content(data)) == (200, "The answer is 42.")
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("student", "policy_keep")
    assert pair.teacher.requests == []
    assert data["choices"][0]["logprobs"] is None, "only the gateway asked for log-probabilities"
    assert policy.seen[0].draft is not None
    assert policy.seen[0].draft.logprobs == (-1.5,) * 4
    assert (record["teacher_calls"], record["student_tokens"], record["status"]) == (0, 4, 200)
    assert [step["action"] for step in record["steps"]] == ["keep"]


async def test_a_doubted_draft_is_replaced_by_the_teachers_answer(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(doubts)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100% of requests."
        ) as gateway:
            status, headers, data = await gateway.chat(QUESTION)
            record = await gateway.record(headers)
            text, _ = streamed((await gateway.stream(QUESTION))[2])
    assert (status, content(data)) == (200, "17 + 26 = 43. The answer is 43.")
    assert text == "17 + 26 = 43. The answer is 43."
    assert (headers["x-tw-route"], headers["x-tw-reason"]) == ("teacher", "policy_escalate")
    assert record["teacher_calls"] == 1
    assert record["teacher_tokens"] == 5 + 9
    assert record["sentence"].startswith("The policy read the student's draft")


async def test_a_share_cap_holds_at_every_single_admission(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 100.0)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 20% of requests."
        ) as gateway:
            routes = [(await gateway.chat(QUESTION))[1]["x-tw-route"] for _ in range(60)]
    calls = 0
    for requests, route in enumerate(routes, start=1):
        calls += route == "teacher"
        assert 5 * calls <= requests
    assert calls >= 8
    assert len(pair.teacher.requests) == calls


async def test_kept_streams_arrive_whole_without_what_the_client_did_not_ask_for(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        _, headers, raw = await gateway.stream(QUESTION)
        asked = await gateway.stream(QUESTION, stream_options={"include_usage": True}, logprobs=True, top_logprobs=1)
    text, chunks = streamed(raw)
    assert text == "The answer is 42."
    assert headers["content-type"].startswith("text/event-stream")
    assert all(chunk["choices"] for chunk in chunks), "no usage chunk unless asked for"
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)
    text, chunks = streamed(asked[2])
    assert text == "The answer is 42."
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert any(chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"])


async def test_a_long_streamed_draft_is_judged_by_its_beginning(tmp_path: Path) -> None:
    long = answer(" ".join(["word"] * 40), logprob=-2.0)
    async with scripted_pair({QUESTION: long}, TEACHER) as pair:
        policy = ScriptedPolicy()
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, held_tokens=10
        ) as gateway:
            text, _ = streamed((await gateway.stream(QUESTION))[2])
    assert text == long.text
    draft = policy.seen[0].draft
    assert draft is not None
    assert not draft.complete
    assert 10 <= len(draft.logprobs) < 40


async def test_models_can_be_forced_by_name(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, budget="At most 1 teacher call.", aliases=("smart",)
        ) as gateway,
    ):
        forced = [
            (await gateway.chat(QUESTION, model=name))[1]["x-tw-reason"]
            for name in ("student", "teacher", "teacher", "smart")
        ]
        status, _, error = await gateway.chat(QUESTION, model="gpt-9")
        _, models = await gateway.get("/v1/models")
    assert forced == ["forced_student", "forced_teacher", "budget_exhausted", "policy_keep"]
    assert status == 404
    assert (error["error"]["code"], error["error"]["param"]) == ("model_not_found", "model")
    assert [row["id"] for row in models["data"]] == ["auto", "smart", "student", "teacher"]


async def test_requests_that_stayed_with_the_student_earn_their_share_at_once(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, budget="At most 50% of requests.") as gateway,
    ):
        reasons = [
            (await gateway.chat(QUESTION, model=name))[1]["x-tw-reason"]
            for name in ("student", "teacher", "teacher", "auto", "teacher")
        ]
    assert reasons == ["forced_student", "forced_teacher", "budget_exhausted", "policy_keep", "forced_teacher"]


async def test_completions_are_routed_too(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(doubts)
        async with (
            running_gateway(
                tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100% of requests."
            ) as gateway,
            gateway.http.post(
                f"{gateway.url}/v1/completions", json={"model": "auto", "prompt": QUESTION, "max_tokens": 20}
            ) as response,
        ):
            data = await response.json()
            assert response.headers["x-tw-reason"] == "policy_escalate"
    assert data["choices"][0]["text"] == "17 + 26 = 43. The answer is 43."
    assert policy.seen[0].draft is not None
    assert policy.seen[0].draft.logprobs == (-1.5,) * 4


async def test_a_policy_that_asks_before_the_draft_saves_the_draft(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 1.0, steps=(Step.ROUTE,))
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100% of requests."
        ) as gateway:
            _, headers, _ = await gateway.chat(QUESTION)
    assert headers["x-tw-reason"] == "policy_teacher"
    assert pair.student.requests == []


@pytest.mark.parametrize("score", [float("nan"), "raise"])
async def test_a_failing_policy_costs_nobody_an_answer(tmp_path: Path, score: Any) -> None:
    def fail(observation: Observation) -> float:
        if score == "raise":
            raise RuntimeError("broken weights")
        return float(score)

    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url, policy=ScriptedPolicy(fail)) as gateway,
    ):
        status, headers, data = await gateway.chat(QUESTION)
        _, ready = await gateway.get("/readyz")
    assert (status, headers["x-tw-reason"]) == (200, "policy_failed")
    assert content(data) == "The answer is 42."
    assert (ready["status"], ready["policy"]) == ("degraded", "failing")


async def test_the_budget_can_be_read_changed_and_tried(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 1.0)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 5 teacher calls."
        ) as gateway:
            url, admin = f"{gateway.url}/v1/budget", gateway.admin
            for _ in range(10):
                await gateway.chat(QUESTION)
            _, before = await gateway.get("/v1/budget", admin)
            async with gateway.http.post(
                f"{url}/preview", json={"text": "At most 2 teacher calls."}, headers=admin
            ) as response:
                preview = await response.json()
            async with gateway.http.put(url, json={"text": "At most 2 teacher calls."}, headers=admin) as response:
                after = await response.json()
            routes = [(await gateway.chat(QUESTION))[1]["x-tw-route"] for _ in range(10)]
            async with gateway.http.put(url, json={"text": "sometimes"}, headers=admin) as response:
                assert response.status == 400
                unreadable = await response.json()
            async with gateway.http.put(url, json={"text": "At most 1% of requests."}) as response:
                assert response.status == 401
    assert before["balances"][0]["spent"] == 5
    assert preview["replayed"]["teacher_granted"] == 2
    assert preview["replayed"]["requests"] == 10
    assert after["version"] > before["version"]
    assert routes == ["student"] * 10, "what was spent stays spent"
    assert unreadable["error"]["code"] == "unreadable_budget"


async def test_feedback_joins_its_decision(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        _, headers, _ = await gateway.chat(QUESTION)
        feedback = {"decision_id": headers["x-tw-decision-id"], "quality": 0.25}
        async with gateway.http.post(f"{gateway.url}/v1/feedback", json=feedback) as response:
            assert response.status == 200
        for wrong in ({**feedback, "quality": 1.5}, {**feedback, "decision_id": "dec_x_1_y"}, {"quality": 1}):
            async with gateway.http.post(f"{gateway.url}/v1/feedback", json=wrong) as response:
                assert response.status in (400, 404)
                assert "error" in await response.json()
        record = await gateway.record(headers)
    assert [row["quality"] for row in record["feedback"]] == [0.25]


async def test_metrics_and_health_are_there(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        await gateway.chat(QUESTION)
        status, health = await gateway.get("/healthz")
        assert (status, health["status"], health["alarms"]) == (200, "ok", [])
        assert health["policies"]["serving"] == {"version": "v1", "name": "scripted", "state": "ok"}
        status, ready = await gateway.get("/readyz")
        async with gateway.http.get(f"{gateway.url}/metrics") as response:
            page = await response.text()
    assert (status, ready["status"]) == (200, "ready")
    assert 'tw_requests_total{endpoint="chat",reason="policy_keep",route="student",status="200"} 1.0' in page
    assert 'tw_budget_share_asked{kind="cap",scope="all"} 0.5' in page


async def test_keys_are_needed_once_there_are_any(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        amy, bob = gateway.gateway.keys.new("amy"), gateway.gateway.keys.new("bob")
        status, _, error = await gateway.chat(QUESTION)
        wrong, _, _ = await gateway.chat(QUESTION, {"authorization": "Bearer tw-wrong"})
        good, headers, _ = await gateway.chat(QUESTION, {"authorization": f"Bearer {amy}"})
        decision = f"/v1/decisions/{headers['x-tw-decision-id']}"
        hers, _ = await gateway.get(decision, {"authorization": f"Bearer {amy}"})
        his, _ = await gateway.get(decision, {"authorization": f"Bearer {bob}"})
        log = b"".join(path.read_bytes() for path in (tmp_path / "decisions").iterdir())
    assert (status, wrong, good, hers, his) == (401, 401, 200, 200, 404)
    assert error["error"]["type"] == "authentication_error"
    assert amy.encode() not in log
    assert all(amy not in str(request.headers) for request in pair.student.requests)


async def test_what_the_client_sent_reaches_the_upstream_and_nothing_else(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, student_settings={"api_key_env": "TW_TEST_NO_SUCH_KEY"}
        ) as gateway,
    ):
        extra = {"temperature": 0.3, "top_k": 5, "chat_template_kwargs": {"x": 1}, "unknown_field": [1, None]}
        await gateway.chat(
            QUESTION, {"authorization": "Bearer secret", "x-tw-route": "teacher", "cookie": "a=b"}, **extra
        )
    received = pair.student.requests[0]
    assert received.body is not None
    assert {name: received.body[name] for name in extra} == extra
    assert received.body["model"] == "student"
    assert "authorization" not in received.headers
    assert "cookie" not in received.headers
    assert not any(name.startswith("x-tw-") for name in received.headers)


async def test_a_conversation_remembers_who_answered_last(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 1.0)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 100% of requests."
        ) as gateway:
            first = [{"role": "user", "content": QUESTION}]
            await gateway.chat("", messages=first)
            reply = {"role": "assistant", "content": "43"}
            await gateway.chat("", messages=[*first, reply, {"role": "user", "content": "Sure?"}])
    assert policy.seen[0].prompt.last_route is None
    assert (policy.seen[1].prompt.last_route, policy.seen[1].prompt.turn) == ("teacher", 2)


async def test_a_queued_request_waits_for_room(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 100.0)
        budget = "At most 50% of requests. When the budget is exhausted, queue for up to 5 seconds."
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget=budget
        ) as gateway:
            waiting = asyncio.create_task(gateway.chat(QUESTION, model="teacher"))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await gateway.chat(QUESTION, model="student")  # another request makes room
            _, headers, _ = await waiting
    assert headers["x-tw-reason"] == "forced_teacher"


async def test_a_rejecting_budget_answers_429_with_retry_after(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 100.0)
        budget = "At most 1 teacher call per day. When the budget is exhausted, return an error."
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget=budget
        ) as gateway:
            assert (await gateway.chat(QUESTION))[0] == 200
            status, headers, error = await gateway.chat(QUESTION)
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert error["error"]["type"] == "insufficient_quota"
    assert error["error"]["code"] == "teacher_budget_exhausted"
    assert headers["x-tw-reason"] == "budget_exhausted"


async def test_embeddings_pass_to_the_student_and_administration_does_not(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
    ):
        body = {"model": "auto", "input": "hello"}
        async with gateway.http.post(f"{gateway.url}/v1/embeddings", json=body) as response:
            assert (response.status, response.headers["x-tw-reason"]) == (200, "passed_through")
        async with gateway.http.post(f"{gateway.url}/v1/load_lora_adapter", json=body) as response:
            assert response.status == 404
            assert "error" in await response.json()
    assert [request.path for request in pair.student.requests] == ["/v1/embeddings"]


async def test_a_hundred_requests_at_once_are_all_answered_and_logged(tmp_path: Path) -> None:
    async with scripted_pair(STUDENT, TEACHER) as pair:
        policy = ScriptedPolicy(lambda observation: 100.0)
        async with running_gateway(
            tmp_path, pair.student.url, pair.teacher.url, policy=policy, budget="At most 30% of requests."
        ) as gateway:
            answers = await asyncio.gather(*(gateway.chat(QUESTION) for _ in range(100)))
    rows = [json.loads(line) for path in (tmp_path / "decisions").iterdir() for line in path.read_text().splitlines()]
    assert len(rows) == 100
    assert {row["id"] for row in rows} == {headers["x-tw-decision-id"] for _, headers, _ in answers}
    assert sum(row["teacher_calls"] for row in rows) == len(pair.teacher.requests) <= 30


async def test_connections_stay_open_between_requests(tmp_path: Path) -> None:
    async with (
        scripted_pair(STUDENT, TEACHER) as pair,
        running_gateway(tmp_path, pair.student.url, pair.teacher.url) as gateway,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http,
    ):
        for _ in range(5):
            body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
            async with http.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                await response.read()
