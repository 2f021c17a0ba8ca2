"""Health, readiness, metrics and the list of models."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from server.api.access import gateway_of, user_key
from server.errors import GatewayError
from server.gateway import Gateway

router = APIRouter()


@router.get("/healthz", summary="Is the process alive? Never depends on an upstream.")
async def healthz(request: Request) -> dict[str, Any]:
    """Beside that, for people: the policies at work, what has moved, what should be looked at. Of this worker."""
    gateway = gateway_of(request)
    return {
        "status": "ok",
        "policies": _policies(gateway),
        "alarms": gateway.alarms.standing(with_tags=_may_see(request)),
        "warnings": gateway.warnings() if _may_see(request) else [],
    }


def _policies(gateway: Gateway) -> dict[str, Any]:
    decider = gateway.decider
    found: dict[str, Any] = {"fallback": decider.fallback.name}
    for role, policy in (("serving", decider.serving), ("canary", decider.canary), ("shadow", decider.shadow)):
        if policy is not None:
            found[role] = {"version": policy.version, "name": policy.name, "state": policy.state}
    if decider.canary is not None:
        found["canary"]["share"] = decider.canary_share
    return found


def _may_see(request: Request) -> bool:
    """Tags are clients' words, and warnings name models: not for whoever can reach the port."""
    try:
        user_key(request)
    except GatewayError:
        return False
    return True


@router.get("/readyz", summary="Can requests be answered now?")
async def readyz(request: Request) -> JSONResponse:
    gateway = gateway_of(request)
    await gateway.refresh_budget()
    student = gateway.reachable.get("student", False)
    teacher = None if gateway.teacher is None else gateway.reachable.get("teacher", False)
    parts = {
        "student": "ok" if student else "unreachable",
        "teacher": "none" if teacher is None else "ok" if teacher else "unreachable",
        "ledger": "ok" if gateway.ledger_ok else "unavailable",
        "policy": gateway.decider.serving.state,
    }
    decider = gateway.decider
    for role, policy in (("canary", decider.canary), ("shadow", decider.shadow)):
        if policy is not None:
            parts[role] = policy.state
    if gateway.several_teachers:
        parts |= {each.upstream.role: each.state for each in gateway.teachers.all}
    # Without the teacher or the ledger the student still answers: degraded, and still worth sending traffic to.
    well = student and teacher is not False and gateway.ledger_ok and gateway.decider.healthy
    status = "ready" if well else "degraded" if student else "not ready"
    return JSONResponse({"status": status, **parts}, 200 if student else 503)


@router.get("/metrics", summary="Prometheus metrics.")
async def metrics(request: Request) -> Response:
    gateway = gateway_of(request)
    await gateway.flush_counts()
    gateway.metrics.log_lines_lost.set(gateway.log.lost)
    return Response(gateway.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", summary="The names that can be asked for.")
async def models(request: Request) -> dict[str, Any]:
    user_key(request)
    gateway = gateway_of(request)
    names = ["auto", *gateway.settings.aliases, "student"]
    if gateway.teacher is not None:
        names.append("teacher")
        if gateway.several_teachers:
            names += [each.label for each in gateway.teachers.all]
            names += [name for each in gateway.teachers.all for name in each.names if name not in names]
    names += [name for name in gateway.upstream_names if name not in names]
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/v1/models/{model:path}", summary="One name.")
async def model(model: str, request: Request) -> dict[str, Any]:
    user_key(request)
    gateway_of(request).side_of(model)
    return _model(model)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "training-wheels"}
