"""Why a request went where it went, and how good the answer turned out to be."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from router.record import SENTENCES, Reason
from server.api.access import gateway_of, user_key
from server.auth import Key
from server.errors import UnknownThing
from server.gateway import Gateway

router = APIRouter()


class Feedback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decision_id: str = Field(max_length=128)
    quality: float = Field(ge=0, le=1, description="0 useless .. 1 perfect", allow_inf_nan=False)


@router.get("/v1/decisions/{decision_id}", summary="One decision, explained.")
async def decision(decision_id: str, request: Request) -> dict[str, Any]:
    row = await _find(gateway_of(request), decision_id, user_key(request))
    last = row["steps"][-1] if row["steps"] else None
    return {
        **row,
        "action": last["action"] if last else row["route"],
        "scores": {step["step"]: step["score"] for step in row["steps"]},
        "propensity": last["propensity"] if last else 1.0,
        "sentence": SENTENCES[Reason(row["reason"])],
    }


@router.post("/v1/feedback", summary="Tell how good an answer was.")
async def feedback(body: Feedback, request: Request) -> dict[str, Any]:
    gateway, key = gateway_of(request), user_key(request)
    row = await _find(gateway, body.decision_id, key)
    if "feedback" not in row:  # said again it is a correction, and says nothing new about the models
        gateway.note_quality(row, body.quality)
    gateway.log.append_feedback(body.decision_id, body.quality, gateway.clock(), key.id)
    return {"decision_id": body.decision_id, "quality": body.quality, "recorded": True}


async def _find(gateway: Gateway, decision_id: str, key: Key) -> dict[str, Any]:
    row = await run_in_threadpool(gateway.log.find, decision_id)
    # Somebody else's decision looks like none at all, so that ids cannot be tried out.
    if row is None or (gateway.keys.required and not key.admin and row["key_id"] != key.id):
        raise UnknownThing(f"No decision {decision_id[:100]!r} is known here.", param="decision_id")
    return row
