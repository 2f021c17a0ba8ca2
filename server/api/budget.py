"""The running budget: read it, change it, try a sentence on recent traffic. All with the admin key."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from router.language import Parsed, Unreadable, describe_limit, parse
from router.ledger import Ask, Balance, Subject
from server.api.access import admin_key, gateway_of
from server.errors import BadRequest, GatewayError
from server.gateway import Gateway
from server.ledgers import LedgerUnavailable
from server.ledgers.memory import MemoryLedger

router = APIRouter()

_REPLAYED = 2000


class BudgetText(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=4000)


class LedgerOut(GatewayError):
    status = 503
    type = "server_error"
    code = "ledger_unavailable"


@router.get("/v1/budget", summary="The running budget and what is left of it.")
async def show(request: Request) -> dict[str, Any]:
    admin_key(request)
    return await _state(gateway_of(request))


@router.put("/v1/budget", summary="Change the running budget, for all workers at once.")
async def change(body: BudgetText, request: Request) -> dict[str, Any]:
    key = admin_key(request)
    gateway = gateway_of(request)
    parsed = _parse(gateway, body.text)
    try:
        version = await gateway.ledger.set_budget(parsed.budget, parsed.text, key.id, gateway.clock())
    except ValueError as error:  # readable, and still nothing a ledger can hold
        raise BadRequest(f"This budget cannot be held: {error}", param="text", code="unreadable_budget") from None
    except LedgerUnavailable as error:
        raise LedgerOut(f"The budget was not changed: the ledger is unavailable ({error}).") from None
    gateway.take_budget(parsed.budget, parsed.text, version)
    return await _state(gateway)


@router.post("/v1/budget/preview", summary="What a budget would have done on recent traffic. Changes nothing.")
async def preview(body: BudgetText, request: Request) -> dict[str, Any]:
    admin_key(request)
    gateway = gateway_of(request)
    parsed = _parse(gateway, body.text)
    return {**parsed.as_dict(), "replayed": await _replay(gateway, parsed)}


def _parse(gateway: Gateway, text: str) -> Parsed:
    try:
        return parse(text, timezone=gateway.settings.timezone, rates=gateway.settings.rates)
    except Unreadable as error:
        raise BadRequest(str(error), param="text", code="unreadable_budget") from None


async def _state(gateway: Gateway) -> dict[str, Any]:
    await gateway.flush_counts()
    try:
        _, text, version = await gateway.ledger.budget()
        balances = await gateway.ledger.balances(Subject(), gateway.clock())
    except LedgerUnavailable as error:
        raise LedgerOut(f"The ledger is unavailable: {error}.") from None
    parsed = _parse(gateway, text)
    return {
        **parsed.as_dict(),
        "version": version,
        "balances": [_balance(balance) for balance in balances],
    }


def _balance(balance: Balance) -> dict[str, Any]:
    return {
        "limit": describe_limit(balance.limit),
        "spent": balance.spent,
        "allowed": balance.allowed,
        "requests": balance.requests,
        "calls": balance.calls,
        "resets_in_s": balance.resets_in_s,
    }


async def _replay(gateway: Gateway, parsed: Parsed) -> dict[str, Any]:
    """Sends this worker's recent decisions through an empty ledger under the new budget, each at its own time."""
    ledger = MemoryLedger()
    rows = sorted(gateway.log.recent(_REPLAYED), key=lambda row: float(row["at"]))
    wanted = granted = 0
    refused: dict[str, int] = {}
    start = float(rows[0]["at"]) if rows else gateway.clock()
    await ledger.set_budget(parsed.budget, parsed.text, "preview", start)
    for row in rows:
        wants = any(step["action"] in ("teacher", "escalate") for step in row["steps"]) or row["teacher_calls"] > 0
        admission = await ledger.admit(
            Ask(
                id=row["id"],
                subject=Subject(row["key_id"], row["user"], row["tenant"], row["model"]),
                counts_request=True,
                wants_teacher=wants,
                tokens=row["teacher_tokens"],
                usd=row["teacher_usd"],
                lease_s=row["latency_ms"] / 1000,
            ),
            float(row["at"]),
        )
        wanted += wants
        if wants and admission.granted:
            granted += 1
        elif wants and admission.refused_by is not None:
            words = describe_limit(admission.refused_by)
            refused[words] = refused.get(words, 0) + 1
    return {
        "requests": len(rows),
        "teacher_wanted": wanted,
        "teacher_granted": granted,
        "teacher_share": granted / len(rows) if rows else None,
        "refused_by": refused,
    }
