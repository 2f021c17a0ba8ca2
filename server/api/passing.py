"""Endpoints that are not routed (yet): they go to the student as they are, if it has them."""

from fastapi import APIRouter, Request, Response

from server.api.access import gateway_of, user_key
from server.errors import UnknownThing
from server.generation_request import read_object
from server.relay import read_body

router = APIRouter()

# A list of what may pass, not of what may not: model servers have administrative endpoints, too.
PASSED = frozenset(
    ("embeddings", "responses", "messages", "tokenize", "detokenize", "rerank", "score", "pooling", "classify")
)


@router.post("/v1/{name}", summary="Passed on to the student.", include_in_schema=False)
async def passed(name: str, request: Request) -> Response:
    user_key(request)
    gateway = gateway_of(request)
    if name not in PASSED:
        raise UnknownThing(f"POST /v1/{name[:100]} does not exist here.")
    raw = await read_body(
        request.scope,
        request.receive,
        max_bytes=gateway.settings.max_body_bytes,
        timeout_s=gateway.settings.timeouts.upload_s,
    )
    body = read_object(raw)
    student = gateway.student
    headers = {"x-tw-route": "student", "x-tw-reason": "passed_through"}
    status, kind, content = await student.passed(name, body)
    return Response(content, status, headers, media_type=kind)
