"""Caps hold from outside: 64 clients, 4 workers, one SQLite ledger, and SIGKILL to all of it in the middle.

What the teacher received is counted at the teacher, and compared with what clients sent, with what the ledger says was
spent, and with the decision log.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.serving import DOUBTFUL, RunningGateway, draft, gateway
from tests.upstreams import Answer, FaultUpstream, scripted_pair

CLIENTS, WORKERS = 64, 4
DOUBTED = draft("I am not at all sure.", DOUBTFUL)


def doubted(body: Mapping[str, Any]) -> Answer:
    """What the student says to anything: so the teacher is wanted every time."""
    return DOUBTED


@dataclass
class Clients:
    """Traffic of many clients, and what they saw."""

    url: str
    sent: int = 0
    answered: dict[str, float] = field(default_factory=dict)
    """Decision id -> when the whole answer was here."""
    routes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    hung_up: int = 0
    many_answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when everybody has been answered about four times."""

    async def run(self, requests_each: int, *, hang_up: bool = False) -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(CLIENTS):
                tasks.create_task(self._one(http, number, requests_each, hang_up))

    async def _one(self, http: aiohttp.ClientSession, number: int, requests: int, hang_up: bool) -> None:
        chance = random.Random(number)
        for turn in range(requests):
            streamed = chance.random() < 0.5
            leaves = hang_up and streamed and chance.random() < 0.3
            try:
                await self._ask(http, f"client {number}, turn {turn}", streamed=streamed, leaves=leaves)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(0.05)

    async def _ask(self, http: aiohttp.ClientSession, prompt: str, *, streamed: bool, leaves: bool) -> None:
        self.sent += 1
        # Half of them insist on the teacher; the others leave it to a policy that doubts every draft.
        model = "teacher" if self.sent % 2 else "auto"
        body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": prompt}]}
        async with http.post(f"{self.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            if leaves:
                await response.content.readany()
                response.close()
                self.hung_up += 1
                return
            raw = await response.read()
            assert not streamed or raw.rstrip().endswith(b"data: [DONE]")
            self.routes[response.headers["x-tw-route"]] += 1
            self.answered[response.headers["x-tw-decision-id"]] = time.monotonic()
            if len(self.answered) >= 4 * CLIENTS:
                self.many_answered.set()


async def watch_balances(running: RunningGateway, seen: list[dict[str, Any]]) -> None:
    """Looks at every limit again and again while traffic runs."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            seen.extend(await running.balances())
        await asyncio.sleep(0.02)


async def test_no_cap_breaks_when_the_gateway_is_killed_under_traffic(tmp_path: Path) -> None:
    share, calls = 0.3, 300
    budget = f"At most 30% of requests, and never more than {calls} calls a day."
    async with (
        scripted_pair(student=doubted) as pair,
        gateway(tmp_path, pair.student.url, pair.teacher.url, budget=budget, workers=WORKERS) as running,
    ):
        clients = Clients(running.url)
        seen: list[dict[str, Any]] = []
        watcher = asyncio.create_task(watch_balances(running, seen))
        traffic = asyncio.create_task(clients.run(10))
        await clients.many_answered.wait()
        running.kill()
        await traffic
        await running.start()
        clients.errors.clear()
        await clients.run(12)
        watcher.cancel()

        received = len(pair.teacher.requests)
        (shares, days) = await running.balances()
        # Not one call above a cap, counted where it hurts.
        assert received <= calls
        assert received <= share * clients.sent
        assert [row for row in [*seen, shares, days] if row["spent"] > row["allowed"]] == []
        # Every call that the teacher saw was charged; besides those, only what was reserved when the kill came.
        assert shares["calls"] == days["calls"]
        assert received <= shares["calls"] <= received + CLIENTS
        assert shares["requests"] <= clients.sent
        # The budget was not hoarded either: what 300 calls and 30% allow was used, but for what the kill took.
        assert received >= 0.95 * min(calls, share * shares["requests"]) - CLIENTS
        # After the restart everybody was answered.
        assert clients.errors == Counter()

        records = running.decisions()
        ids = [record["id"] for record in records]
        assert len(ids) == len(set(ids))
        # The line is written before the last byte of the answer leaves: whoever has an answer finds its decision.
        assert set(clients.answered) - set(ids) == set()
        assert sum(record["teacher_calls"] for record in records) <= shares["calls"]
        torn = [path for path in (running.state / "decisions").glob("*.jsonl") if not path.read_bytes().endswith(b"\n")]
        assert len([path for path in torn if path.stat().st_size]) <= WORKERS


async def test_nothing_is_charged_twice_and_nothing_forgotten_when_clients_hang_up(tmp_path: Path) -> None:
    budget = "At most 50% of requests, and never more than 100,000 tokens a day."
    async with (
        scripted_pair(student=doubted) as pair,
        gateway(tmp_path, pair.student.url, pair.teacher.url, budget=budget, workers=WORKERS) as running,
    ):
        clients = Clients(running.url)
        await clients.run(8, hang_up=True)
        assert clients.errors == Counter()
        assert clients.hung_up > 0
        records = await all_records(running, clients.sent)
        await asyncio.sleep(0.5)  # requests that stayed with the student are counted within a tenth of a second
        shares, tokens = await running.balances()
        received = len(pair.teacher.requests)
        assert shares["calls"] == received == sum(record["teacher_calls"] for record in records)
        assert shares["requests"] == clients.sent
        assert received <= 0.5 * clients.sent
        # The ledger and the log agree on every token, whoever hung up.
        assert tokens["spent"] == sum(record["teacher_tokens"] for record in records)
        assert tokens["spent"] <= tokens["allowed"]


async def all_records(running: RunningGateway, count: int) -> list[dict[str, Any]]:
    """The decision log once it holds `count` records: those of clients that left are written a moment later."""
    for _ in range(200):
        records = running.decisions()
        if len(records) >= count:
            break
        await asyncio.sleep(0.05)
    assert len(records) == count
    return records


async def test_no_more_calls_run_at_a_time_than_the_budget_says(tmp_path: Path) -> None:
    most_seen = 0

    def counted(body: Mapping[str, Any]) -> str:
        nonlocal most_seen
        most_seen = max(most_seen, in_flight(teacher))
        return "It is four."

    async with scripted_pair(student=doubted, teacher=counted) as pair:
        teacher = pair.teacher
        # Long enough that on a busy machine, too, five calls are under way before the first one ends.
        teacher.mode, teacher.delay_s = "slow", 0.5
        budget = "At most 5 calls at a time."
        async with gateway(tmp_path, pair.student.url, teacher.url, budget=budget, workers=WORKERS) as running:
            clients = Clients(running.url)
            await clients.run(4)
            assert clients.errors == Counter()
            (balance,) = await running.balances()
            assert most_seen == 5
            assert balance["spent"] == 0
            assert clients.routes["teacher"] == len(teacher.requests)


def in_flight(upstream: FaultUpstream) -> int:
    return sum(not received.finished.is_set() for received in upstream.requests)


async def test_each_key_has_a_budget_of_its_own_whichever_worker_it_meets(tmp_path: Path) -> None:
    budget = "At most 3 calls a day per user."
    async with (
        scripted_pair(student=doubted) as pair,
        gateway(tmp_path, pair.student.url, pair.teacher.url, budget=budget, workers=WORKERS) as running,
    ):
        routes: Counter[tuple[str, str]] = Counter()

        async def ask(http: aiohttp.ClientSession, user: str) -> None:
            body = {"model": "teacher", "messages": [{"role": "user", "content": f"{user} asks"}]}
            headers = {"x-tw-user": user, "connection": "close"}
            async with http.post(f"{running.url}/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                routes[user, response.headers["x-tw-route"]] += 1

        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            for turn in range(80):
                tasks.create_task(ask(http, f"user {turn % 8}"))
        assert routes == Counter(
            {(f"user {n}", route): count for n in range(8) for route, count in (("teacher", 3), ("student", 7))}
        )
        assert len(pair.teacher.requests) == 24
