"""`create_app(settings)`: the one place where the parts of a worker are put together."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from policies.policy import Policy
from router.session import Role
from server.api import budget, decisions, operations, passing
from server.api.generation import generate
from server.auth import KeyFileError, Keys
from server.deciding import Decider
from server.decision_log import DecisionLog
from server.errors import BadRequest, GatewayError, UpstreamFault, error_object
from server.gateway import Gateway
from server.generation_request import PATHS
from server.ledgers.sqlite import SqliteLedger
from server.lifetime import die_with_parent
from server.policy_store import PolicyStore, PolicyStoreError
from server.relay import Receive, Scope, Send
from server.scoring.process import ProcessScorer
from server.scoring.scorer import InlineScorer, Scorer, ScoringFailed
from server.settings import Settings
from server.telemetry import Metrics
from server.upstream import Upstream

SETTINGS_ENV = "TW_WORKER_SETTINGS"
"""Path of the settings file that `tw serve` hands to its workers."""
_REFRESH_S = 1.0
_COUNT_S = 0.1


class App:
    """Sends generation straight to the hot path and everything else to FastAPI. Authorises on `scope["path"]` alone."""

    def __init__(self, fastapi: FastAPI) -> None:
        self.fastapi = fastapi

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.fastapi.state.gateway
        return gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = PATHS.get(scope["path"])
            if endpoint is not None:
                return await generate(self.gateway, endpoint, scope, receive, send)
        return await self.fastapi(scope, receive, send)


def create_app(settings: Settings, policy: Policy | None = None, registry: CollectorRegistry | None = None) -> App:
    """`policy` takes the place of the promoted one, `registry` of the process's own: for tests, and for programs that
    bring a policy of their own."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings, policy, registry) as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(title="Training Wheels", lifespan=lifespan, docs_url="/docs", redoc_url=None)
    for module in (operations, decisions, budget, passing):
        app.include_router(module.router)
    _shape_errors(app)
    return App(app)


def worker_app() -> App:
    """What uvicorn's worker processes call."""
    die_with_parent()
    path = Path(os.environ[SETTINGS_ENV])
    return create_app(Settings.model_validate_json(path.read_bytes()))


@contextlib.asynccontextmanager
async def open_gateway(
    settings: Settings, policy: Policy | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[Gateway]:
    """Opens everything a worker needs, keeps it fresh, and closes it."""
    metrics = Metrics(registry)
    store = PolicyStore(settings.state_dir)
    scorer = await _first_scorer(settings, store, policy)
    ledger = SqliteLedger.open(settings.state_dir / "ledger.sqlite", deadline_s=settings.timeouts.ledger_s)
    running, text, version = await ledger.budget()
    log = DecisionLog(
        settings.state_dir / "decisions",
        segment_bytes=settings.log_segment_mb * 1024 * 1024,
        segments=settings.log_segments,
    )
    # Kept-alive connections are dropped before servers usually do, so that no request is sent into a closing one.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        gateway = Gateway(
            settings=settings,
            ledger=ledger,
            keys=Keys(settings.state_dir / "keys.json", open_on_loopback=settings.loopback),
            log=log,
            student=_upstream("student", settings, http),
            teacher=None if settings.teacher is None else _upstream("teacher", settings, http),
            decider=Decider(scorer, metrics, explore=settings.explore, workers=settings.workers),
            metrics=metrics,
            budget=running,
            budget_text=text,
            budget_version=version,
        )
        await _look_at_upstreams(gateway)
        keeping = [asyncio.create_task(_keep_fresh(gateway, store)), asyncio.create_task(_keep_counting(gateway))]
        try:
            yield gateway
        finally:
            for task in keeping:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await gateway.drain()
            await gateway.decider.policy.close()
            await ledger.close()
            log.close()


async def _first_scorer(settings: Settings, store: PolicyStore, policy: Policy | None) -> Scorer:
    if policy is not None:
        return InlineScorer(policy)
    serving = store.serving()
    assert serving is not None, "tw serve promotes a policy before it starts workers"
    return await ProcessScorer.start(store.path(serving.version), deadline_s=settings.timeouts.policy_s)


def _upstream(role: str, settings: Settings, http: aiohttp.ClientSession) -> Upstream:
    spec = settings.student if role == "student" else settings.teacher
    assert spec is not None
    assert spec.url is not None, "tw serve turns models into URLs before it starts workers"
    return Upstream(role, spec, spec.url, http, settings.timeouts)


async def _keep_fresh(gateway: Gateway, store: PolicyStore) -> None:
    stamp = store.stamp()
    while True:
        await asyncio.sleep(_REFRESH_S)
        with contextlib.suppress(KeyFileError):  # half a file, or none to read: the keys known so far go on
            gateway.keys.refresh()
        await gateway.refresh_budget()
        await _look_at_upstreams(gateway)
        now = store.stamp()
        if now != stamp:
            stamp = now
            # On any failure the one in service goes on; `tw policy promote` has checked the new one.
            with contextlib.suppress(PolicyStoreError, ScoringFailed, OSError):
                await _change_policy(gateway, store)


async def _change_policy(gateway: Gateway, store: PolicyStore) -> None:
    serving = store.serving()
    if serving is None:
        return
    scorer = await ProcessScorer.start(store.path(serving.version), deadline_s=gateway.settings.timeouts.policy_s)
    before = gateway.decider.policy
    gateway.decider.take_policy(scorer)
    await before.close()


async def _keep_counting(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_COUNT_S)
        await gateway.flush_counts()


async def _look_at_upstreams(gateway: Gateway) -> None:
    """Learns who can be reached and under which names."""
    names: dict[str, Role] = {}
    roles: tuple[Role, ...] = ("student",) if gateway.teacher is None else ("student", "teacher")
    for role in roles:
        upstream = gateway.upstream(role)
        try:
            served = await upstream.models()
        except UpstreamFault as fault:
            # A server without a list of models still answers; whether it can generate is seen when it is asked to.
            gateway.reachable[role] = fault.status == 502
            continue
        gateway.reachable[role] = True
        if upstream.settings.name is None and served and upstream.name not in served:
            upstream.name = served[0]
        for name in served:
            names.setdefault(name, role)
    if names:
        gateway.upstream_names = names


def _shape_errors(app: FastAPI) -> None:
    """Every error body has the OpenAI shape."""

    def respond(error: GatewayError) -> Response:
        headers = {name.decode(): value.decode("latin-1") for name, value in error.headers()}
        return Response(error.body(), error.status, headers, media_type="application/json")

    @app.exception_handler(GatewayError)
    async def ours(_: Request, error: GatewayError) -> Response:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or None
        return respond(BadRequest(f"{where or 'body'}: {first['msg']}", param=where))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        method, path = request.scope["method"], request.scope["path"][:200]
        body = error_object(f"{method} {path}: {error.detail}", "invalid_request_error", None, None)
        return Response(orjson.dumps(body), error.status_code, error.headers, media_type="application/json")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        del error  # uvicorn logs it; a client must not see inside
        return respond(GatewayError("The gateway failed; its log says why."))
