"""A whole gateway inside the test's own loop, on a free port, with a policy that tests can read."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from prometheus_client import CollectorRegistry

from policies.action import Step
from policies.observation import Observation
from policies.policy import Policy, Scores
from router.language import parse
from server.app import App, create_app
from server.auth import Keys
from server.gateway import Gateway
from server.ledgers.sqlite import SqliteLedger
from server.protocol import GatewayProtocol
from server.settings import Settings, Upstream


@dataclass
class ScriptedPolicy:
    """Scores by a function; asks at the steps it is given."""

    scores: Callable[[Observation], float] = lambda observation: -1.0
    steps: tuple[Step, ...] = (Step.DEFER,)
    name: str = "scripted"
    version: str = "v1"
    seen: list[Observation] = field(default_factory=list)

    def score(self, observation: Observation) -> Scores:
        self.seen.append(observation)
        return Scores(self.scores(observation))


@dataclass(frozen=True)
class Running:
    url: str
    app: App
    http: aiohttp.ClientSession
    admin: dict[str, str]
    """Headers with the admin key."""
    state_dir: Path
    server: uvicorn.Server

    @property
    def gateway(self) -> Gateway:
        return self.app.gateway

    async def chat(self, text: str, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any, Any]:
        """(status, headers, JSON) of one chat request."""
        request = {"model": "auto", "messages": [{"role": "user", "content": text}], **body}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=request, headers=headers) as response:
            return response.status, response.headers, await response.json()

    async def stream(self, text: str, **body: Any) -> tuple[int, Any, bytes]:
        """(status, headers, raw bytes) of one streamed chat request."""
        request = {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": True, **body}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=request) as response:
            return response.status, response.headers, await response.read()

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.http.get(f"{self.url}{path}", headers=headers) as response:
            return response.status, await response.json()

    async def record(self, headers: Any) -> dict[str, Any]:
        """The decision record that the headers of an answer point at."""
        status, row = await self.get(f"/v1/decisions/{headers['x-tw-decision-id']}", self.admin)
        assert status == 200
        assert isinstance(row, dict)
        return row


@asynccontextmanager
async def running_gateway(
    state_dir: Path,
    student: str,
    teacher: str | None,
    *,
    budget: str = "At most 50% of requests.",
    policy: Policy | None = None,
    stored: bool = False,
    student_settings: dict[str, Any] | None = None,
    teacher_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """`stored`: with what `tw policy` keeps in `state_dir`, each in a process of its own, instead of `policy`."""
    # A busy machine must not make a test see the ledger as unavailable; those that want that take the file away.
    settings["timeouts"] = {"ledger_s": 5.0, **settings.get("timeouts", {})}
    given = Settings(
        state_dir=state_dir,
        student=Upstream(url=student, **(student_settings or {})),
        teacher=None if teacher is None else Upstream(url=teacher, **(teacher_settings or {})),
        budget=budget,
        **settings,
    )
    ledger = SqliteLedger.open(state_dir / "ledger.sqlite", deadline_s=5.0)
    await ledger.set_budget(parse(budget).budget, budget, "test", 0.0)
    await ledger.close()
    admin = Keys(state_dir / "keys.json", open_on_loopback=True).new("admin", admin=True)
    app = create_app(given, None if stored else policy or ScriptedPolicy(), registry=CollectorRegistry())
    # With the protocol named, asyncio sends without delay (it looks at it); else each answer would wait for 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
        if serving.done():
            serving.result()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with aiohttp.ClientSession() as http:
            yield Running(url, app, http, {"authorization": f"Bearer {admin}"}, state_dir, server)
    finally:
        server.should_exit = True
        await serving
