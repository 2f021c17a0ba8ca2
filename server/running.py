"""Everything `tw serve` keeps running: the models it starts, the workers, and the order in which they come and go."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess

from policies.artifact import ArtifactError
from router.language import Parsed, Unreadable, parse
from server.auth import KeyFileError, Keys
from server.engines import EngineFailed, EngineSpec, ManagedEngine, choose_kind
from server.ledgers import LedgerUnavailable
from server.ledgers.sqlite import SqliteLedger
from server.policy_store import PolicyStore, PolicyStoreError
from server.protocol import GatewayProtocol
from server.served_models import ServedModels
from server.settings import SHIPPED, Settings, Upstream
from server.trained import trained_to_ask

# A model of several gigabytes takes its time to load, and a first start may download it.
_ENGINE_READY_S = 1800.0
_PREFIX_CACHE_MB = 64


class StartError(Exception):
    """The gateway cannot start; says why and what to do. Exit code 2 where the words or files given are at fault."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(settings: Settings, *, dry_run: bool = False) -> None:
    """Serves until SIGINT or SIGTERM. Raises StartError."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    parsed = read_budget(settings)
    _show(console, settings, parsed)
    if dry_run:
        console.print("Dry run: nothing was started.")
        return
    listening = _listen(settings)
    with contextlib.closing(listening):
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        _prepare(console, settings, parsed)
        with _engines(console, settings) as attached:
            _check_help(console, attached)
            _serve(console, attached, listening)


def read_budget(settings: Settings) -> Parsed:
    try:
        return parse(settings.budget, timezone=settings.timezone, rates=settings.rates)
    except Unreadable as error:
        raise StartError(f"the budget cannot be read: {error}", 2) from None


def _show(console: Console, settings: Settings, parsed: Parsed) -> None:
    changed = json.loads(settings.model_dump_json(exclude_defaults=True, exclude_none=True))
    if changed:
        console.print(f"Settings: {json.dumps(changed, ensure_ascii=False)}", markup=False)
    console.print(f"Budget:   {parsed.canonical}", markup=False)
    if settings.help.by == "off" and trained_to_ask(settings.student.model):
        console.print(
            "Warning:  the student was trained to ask for help and nobody will answer it: it may write nonsense where "
            "it asks. Name a teacher, or set help.by = policy",
            markup=False,
        )


def _listen(settings: Settings) -> socket.socket:
    """Takes the port before anything slow is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends without delay only where the socket names its protocol (uvloop always does).
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        # Already listening: two gateways must not both think that they have the port.
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise StartError(
            f"port {settings.port} on {settings.host} cannot be taken ({error.strerror}); "
            "stop what listens there, or choose another with --port"
        ) from None
    listening.set_inheritable(True)
    return listening


def _prepare(console: Console, settings: Settings, parsed: Parsed) -> None:
    """State that must be there before a worker starts: keys, the policy in service, the running budget."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartError(f"--state-dir {settings.state_dir} cannot be made: {error.strerror}") from None
    try:
        _prepare_keys(console, settings)
        _prepare_policy(console, settings)
        asyncio.run(_prepare_budget(settings, parsed))
    except (KeyFileError, PolicyStoreError, ArtifactError) as error:
        raise StartError(str(error)) from None
    except LedgerUnavailable as error:
        raise StartError(f"the ledger in {settings.state_dir} cannot be opened: {error}") from None


def _prepare_keys(console: Console, settings: Settings) -> None:
    keys = Keys(settings.state_dir / "keys.json", open_on_loopback=settings.loopback)
    if not settings.loopback and all(key.admin for key in keys.all()):
        raise StartError(
            f"{settings.host} can be reached from outside, and no API key exists. "
            f"Make one first: tw key new --name NAME --state-dir {settings.state_dir}"
        )
    if not any(key.admin for key in keys.all()):
        secret = keys.new("admin", admin=True)
        console.print(f"Admin key (shown this once, for /v1/budget): {secret}", markup=False)


def _prepare_policy(console: Console, settings: Settings) -> None:
    store = PolicyStore(settings.state_dir)
    now = time.time()
    serving = store.serving()
    if settings.policy is not None:
        serving = store.promote(store.add(settings.policy, now), now)
    elif serving is None:
        serving = store.promote(store.add(SHIPPED / "policy", now), now)
    store.load(serving.version)  # a damaged one is told of here, and not by each worker
    started = ServedModels(
        {
            role: [upstream.model]
            for role, upstream in (("student", settings.student), ("teacher", settings.teacher))
            if upstream is not None and upstream.model is not None
        },
        _teachers_named(settings),
    )
    started.write(settings.state_dir, managed=started)
    for warning in started.warnings(store.manifest(serving.version)):
        console.print(f"Warning:  {warning}", markup=False)


def _teachers_named(settings: Settings) -> dict[str, list[str]]:
    """Several teachers as far as the settings name them; one whose server is yet to be asked has no names."""
    if len(settings.teachers) < 2:
        return {}
    names = {each.label: [*filter(None, (each.name, each.model))] for each in settings.teachers}
    return {label: [label, *found] if found else [] for label, found in names.items()}


async def _prepare_budget(settings: Settings, parsed: Parsed) -> None:
    """The sentence of the settings becomes the running budget when it is new; otherwise a `PUT` since then stands."""
    ledger = SqliteLedger.open(settings.state_dir / "ledger.sqlite", deadline_s=5.0)
    try:
        seen = settings.state_dir / "budget-of-settings.txt"
        before = seen.read_text() if seen.is_file() else None
        if before != parsed.text:
            await ledger.set_budget(parsed.budget, parsed.text, "settings", time.time())
            seen.write_text(parsed.text)
    finally:
        await ledger.close()


@contextlib.contextmanager
def _engines(console: Console, settings: Settings) -> Iterator[Settings]:
    """Starts the models that are to be started, side by side; gives settings in which both are URLs."""
    engines = {
        role: ManagedEngine(_spec(role, upstream, settings.state_dir, helping=settings.help.by != "off"))
        for role, upstream in _roles(settings).items()
        if upstream.model is not None
    }
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for engine in engines.values():
            engine.start()
        for role, engine in engines.items():
            with console.status(f"Starting the {role} ({engine.spec.kind}: {engine.spec.model}) …"):
                engine.wait_ready(_ENGINE_READY_S)
        attached = dict(_roles(settings))
        for role, engine in engines.items():
            attached[role] = attached[role].model_copy(
                update={"model": None, "url": engine.url, "name": role, "usage_in_every_chunk": True}
            )
        yield settings.model_copy(update=_as_settings(attached))
    except EngineFailed as error:
        raise StartError(str(error)) from None
    except KeyboardInterrupt:
        console.print("Stopped.")
    finally:
        for engine in engines.values():
            engine.stop()
        signal.signal(signal.SIGTERM, before)


def _check_help(console: Console, settings: Settings) -> None:
    if settings.help.by == "off":
        return
    from server.help import start

    try:
        traits = asyncio.run(start.check(settings))
    except start.CannotHelp as error:
        raise StartError(str(error), 2) from None
    console.print(f"Help:     {start.words(traits, settings)}", markup=False)


def _roles(settings: Settings) -> dict[str, Upstream]:
    """The models by what their engines and logs are called: student, teacher; of several teacher-1, teacher-2, …"""
    roles = {"student": settings.student}
    if settings.teachers:
        return roles | {f"teacher-{place}": each for place, each in enumerate(settings.teachers, start=1)}
    return roles | ({} if settings.teacher is None else {"teacher": settings.teacher})


def _as_settings(attached: dict[str, Upstream]) -> dict[str, Any]:
    """The other way round: settings by name."""
    several = tuple(each for role, each in attached.items() if role.startswith("teacher-"))
    if not several:
        return dict(attached)
    first = Upstream(**several[0].model_dump(exclude={"label"}))
    return {"student": attached["student"], "teachers": several, "teacher": first}


def _interrupt(number: int, frame: object) -> None:
    """A plain kill while the models load must end them, too."""
    del number, frame
    raise KeyboardInterrupt


def _spec(role: str, upstream: Upstream, state_dir: Path, *, helping: bool = False) -> EngineSpec:
    assert upstream.model is not None
    kind = choose_kind(upstream.model) if upstream.engine == "auto" else upstream.engine
    # Helped answers come back to each model again and again; vLLM keeps prefixes anyway.
    kept = ("--prefix-cache-mb", str(_PREFIX_CACHE_MB)) if helping and kind == "embedded" else ()
    return EngineSpec(
        role=role,
        kind=kind,
        model=upstream.model,
        log_path=state_dir / "engines" / f"{role}.log",
        args=(*kept, *upstream.engine_args),
        python=upstream.python if kind == "vllm" else None,
    )


def _serve(console: Console, settings: Settings, listening: socket.socket) -> None:
    from server.app import SETTINGS_ENV

    handed = settings.state_dir / f"worker-settings-{os.getpid()}.json"
    handed.write_text(settings.model_dump_json())
    os.environ[SETTINGS_ENV] = str(handed)
    metrics = settings.state_dir / f"metrics-{os.getpid()}"
    if settings.workers > 1:
        metrics.mkdir(exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    config = uvicorn.Config(
        "server.app:worker_app",
        factory=True,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=GatewayProtocol,
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nothing here depends on who the client says it is
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.timeouts.shutdown_s),
        timeout_keep_alive=75,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    console.print(f"Gateway:  http://{host}:{settings.port}  (console of metrics: /metrics, API: /docs)", markup=False)
    try:
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets=[listening])
        else:
            Multiprocess(config, sockets=[listening]).run()
    finally:
        handed.unlink(missing_ok=True)
        shutil.rmtree(metrics, ignore_errors=True)
