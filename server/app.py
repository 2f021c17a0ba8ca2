"""`create_app(settings)`: the one place where the parts of a worker are put together."""

import asyncio
import contextlib
import gc
import logging
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
from server.generation_request import PATHS, Endpoint
from server.help.worker import HelpWorker
from server.in_service import InService
from server.ledgers.process import ProcessLedger
from server.lifetime import die_with_parent
from server.policy_store import PolicyStore
from server.policy_watch import PolicyWatch, Start
from server.relay import AsgiClient, Client, Receive, Scope, Send
from server.scoring.process import ProcessScorer
from server.scoring.scorer import InlineScorer, Scorer
from server.served_models import ServedModels
from server.settings import Settings
from server.settings import Upstream as UpstreamSettings
from server.teachers import Teacher, Teachers
from server.telemetry import Metrics
from server.upstream import Upstream

log = logging.getLogger(__name__)

SETTINGS_ENV = "TW_WORKER_SETTINGS"
"""Path of the settings file that `tw serve` hands to its workers."""
_REFRESH_S = 1.0
_COUNT_S = 0.1
_SHADOW_NICENESS = 10
_COLLECT_AFTER = 5000
"""Objects that may be part of a cycle: some hundred requests' worth, about a megabyte."""


class App:
    """Sends generation straight to the hot path and everything else to FastAPI. Authorises on `scope["path"]` alone."""

    def __init__(self, fastapi: FastAPI) -> None:
        self.fastapi = fastapi
        self._gateway: Gateway | None = None

    @property
    def gateway(self) -> Gateway:
        if self._gateway is None:
            self._gateway = self.fastapi.state.gateway
        return self._gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = PATHS.get(scope["path"])
            if endpoint is not None:
                return await generate(self.gateway, endpoint, AsgiClient(scope, receive, send))
        return await self.fastapi(scope, receive, send)

    async def answer(self, endpoint: Endpoint, client: Client) -> None:
        """The same without ASGI: for `server.protocol`."""
        await generate(self.gateway, endpoint, client)


def create_app(
    settings: Settings,
    policy: Policy | None = None,
    registry: CollectorRegistry | None = None,
    *,
    owns_process: bool = False,
) -> App:
    """`policy` takes the place of the promoted one, `registry` of the process's own: for tests, and for programs that
    bring a policy of their own. `owns_process`: nothing else runs here, so that the garbage collector may be set."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings, policy, registry) as gateway:
            app.state.gateway = gateway
            if owns_process:
                _spare_collector()
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
    return create_app(Settings.model_validate_json(path.read_bytes()), owns_process=True)


def _spare_collector() -> None:
    """What is loaded by now stays for good, and hardly anything that a request makes is part of a cycle. Looking at all
    of it again and again took 60 us a request where answers carry log-probabilities, and stopped the loop for 80 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


@contextlib.asynccontextmanager
async def open_gateway(
    settings: Settings, policy: Policy | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[Gateway]:
    """Opens everything a worker needs, keeps it fresh, and closes it."""
    metrics = Metrics(registry)
    store = PolicyStore(settings.state_dir)
    decider = await _first_decider(settings, store, policy, metrics)
    ledger = await ProcessLedger.start(settings.state_dir / "ledger.sqlite", deadline_s=settings.timeouts.ledger_s)
    running, text, version = await ledger.budget()
    log = DecisionLog(
        settings.state_dir / "decisions",
        segment_bytes=settings.log_segment_mb * 1024 * 1024,
        segments=settings.log_segments,
    )
    # Kept-alive connections are dropped before servers usually do, so that no request is sent into a closing one.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        teachers = _teachers(settings, http, metrics)
        gateway = Gateway(
            settings=settings,
            ledger=ledger,
            keys=Keys(settings.state_dir / "keys.json", open_on_loopback=settings.loopback),
            log=log,
            student=_upstream("student", settings.student, settings, http),
            teacher=teachers.all[0].upstream if len(teachers) else None,
            teachers=teachers,
            decider=decider,
            metrics=metrics,
            budget=running,
            budget_text=text,
            budget_version=version,
        )
        watch = gateway.watch = PolicyWatch(store, decider, _starting(settings, store), gateway.alarms)
        if policy is None:
            await watch.look()
        else:
            watch.seen()
        gateway.managed = ServedModels.read(settings.state_dir, managed=True)
        if settings.help.by != "off":
            gateway.help = HelpWorker(settings.help, gateway.promise)
        await _look_at_upstreams(gateway)
        _say_warnings(gateway)
        keeping = [asyncio.create_task(_keep_fresh(gateway, watch)), asyncio.create_task(_keep_counting(gateway))]
        try:
            yield gateway
        finally:
            for task in keeping:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await gateway.drain()
            gateway.student.close()
            for each in teachers.all:
                each.upstream.close()
            await watch.close()
            await ledger.close()
            log.close()


async def _first_decider(settings: Settings, store: PolicyStore, policy: Policy | None, metrics: Metrics) -> Decider:
    if policy is not None:
        scorer: Scorer = InlineScorer(policy)
    else:
        serving = store.serving()
        assert serving is not None, "tw serve promotes a policy before it starts workers"
        scorer = await _starting(settings, store)(serving.version, True)
    return Decider(
        InService(scorer),
        metrics,
        explore=settings.explore,
        fallback=settings.fallback_policy,
        workers=settings.workers,
    )


def _starting(settings: Settings, store: PolicyStore) -> Start:
    async def start(version: str, acts: bool) -> Scorer:
        return await ProcessScorer.start(
            store.path(version), deadline_s=settings.timeouts.policy_s, niceness=0 if acts else _SHADOW_NICENESS
        )

    return start


def _teachers(settings: Settings, http: aiohttp.ClientSession, metrics: Metrics) -> Teachers:
    if len(settings.teachers) > 1:
        several = [
            Teacher(spec.label, _upstream(f"teacher {spec.label}", spec, settings, http)) for spec in settings.teachers
        ]
        metrics.with_teachers([each.label for each in several])
        return Teachers(several, tell=lambda each: metrics.teacher_aside(each.label, aside=each.breaker.aside))
    if settings.teacher is None:
        return Teachers(())
    label = settings.teachers[0].label if settings.teachers else "teacher"
    return Teachers([Teacher(label, _upstream("teacher", settings.teacher, settings, http))])


def _upstream(role: str, spec: UpstreamSettings, settings: Settings, http: aiohttp.ClientSession) -> Upstream:
    assert spec.url is not None, "tw serve turns models into URLs before it starts workers"
    return Upstream(role, spec, spec.url, http, settings.timeouts)


async def _keep_fresh(gateway: Gateway, watch: PolicyWatch) -> None:
    while True:
        await asyncio.sleep(_REFRESH_S)
        with contextlib.suppress(KeyFileError):  # half a file, or none to read: the keys known so far go on
            gateway.keys.refresh()
        await gateway.refresh_budget()
        await _look_at_upstreams(gateway)
        await watch.look()
        _say_warnings(gateway)


async def _keep_counting(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_COUNT_S)
        await gateway.flush_counts()
        gateway.metrics.flush()


def _say_warnings(gateway: Gateway) -> None:
    """Each once, when it is first true."""
    for warning in gateway.warnings():
        if warning not in gateway.said:
            gateway.said.add(warning)
            log.warning("%s", warning)


async def _look_at_upstreams(gateway: Gateway) -> None:
    """Learns who can be reached and under which names."""
    names: dict[str, Role] = {}
    known: dict[str, tuple[str, ...]] = {}
    roles: tuple[Role, ...] = ("student", "teacher")
    if gateway.teacher is None or gateway.several_teachers:
        roles = ("student",)
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
        known[role] = gateway.managed.names[role] or tuple(filter(None, (upstream.name, *served)))
    if gateway.several_teachers:
        await _look_at_teachers(gateway)
        known["teacher"] = gateway.teachers.all[0].names
    elif len(gateway.teachers):
        only = gateway.teachers.all[0]
        if only.served != known.get("teacher", only.served):
            only.served = known["teacher"]
            gateway.teachers.forget_names()
    if names:
        gateway.upstream_names = names
    if gateway.help is not None and gateway.teacher is not None:
        await gateway.help.learn_traits(gateway.student, gateway.teacher)
    labels = {each.label: each.names for each in gateway.teachers.all} if gateway.several_teachers else {}
    found = ServedModels({**gateway.served.names, **known}, labels)
    if (found.names, found.teachers) != (gateway.served.names, gateway.served.teachers):
        gateway.served = found
        with contextlib.suppress(OSError):  # only `tw policy promote` would miss it
            found.write(gateway.settings.state_dir, managed=gateway.managed)


async def _look_at_teachers(gateway: Gateway) -> None:
    """The same of every one of several teachers; any that can be reached will do."""
    for each in gateway.teachers.all:
        try:
            served = tuple(await each.upstream.models())
        except UpstreamFault as fault:
            each.reachable = fault.status == 502
            continue
        each.reachable = True
        if each.upstream.settings.name is None and served and each.upstream.name not in served:
            each.upstream.name = served[0]
        if each.served != served:
            each.served = served
            gateway.teachers.forget_names()
    gateway.reachable["teacher"] = any(each.reachable for each in gateway.teachers.all)


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
