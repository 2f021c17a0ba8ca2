"""`POST /v1/chat/completions` and `/v1/completions`: the hot path."""

import asyncio
import hashlib

from router.ledger import Subject
from server.auth import Key
from server.errors import ClientGone, GatewayError
from server.exchange import Exchange
from server.gateway import Gateway, Request
from server.generation_request import Endpoint, GenerationRequest, read_request
from server.relay import Client, Headers

_MAX_HEADER = 256
"""Longest conversation, user or tag that is taken; what is longer is cut."""


async def generate(gateway: Gateway, endpoint: Endpoint, client: Client) -> None:
    """Answers one request; every error has the OpenAI shape."""
    at = gateway.clock()
    settings = gateway.settings
    try:
        headers = _our_headers(client.headers, every=gateway.reads_headers)
        key = gateway.keys.authenticate(headers.get("authorization"))
        raw = await client.read_body(max_bytes=settings.max_body_bytes, timeout_s=settings.timeouts.upload_s)
        request = read_request(endpoint, raw)
        gateway.side_of(request.model)  # an unknown model is the client's fault, before anything is decided
    except ClientGone:
        return
    except GatewayError as error:
        await client.send_answer(error.status, error.body(), [*error.headers(), *_close_if_unread(error)])
        return
    exchange = Exchange(gateway, request, _about(gateway, at, key, headers, request), client)
    await _run_while_connected(exchange, client)


async def _run_while_connected(exchange: Exchange, client: Client) -> None:
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def hang_up() -> None:
        nonlocal gone
        if not client.ended:
            gone = True
            task.cancel()

    client.watch(hang_up)
    try:
        await exchange.run()
    except GatewayError as error:
        await client.send_answer(error.status, error.body(), [*error.headers(), *exchange.headers])
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
    finally:
        client.unwatch()


def _close_if_unread(error: GatewayError) -> Headers:
    """A body that was not read to its end would otherwise be taken for the next request."""
    return [(b"connection", b"close")] if error.status in (408, 413) else []


def _our_headers(headers: Headers, *, every: bool) -> dict[str, str]:
    """The headers that mean something here; client-sent `x-tw-*` of other names are dropped by not being read."""
    found: dict[str, str] = {}
    for name, value in headers:
        if every or name == b"authorization" or name.startswith(b"x-tw-"):
            found[name.decode("latin-1")] = value.decode("latin-1")
    return found


def _about(gateway: Gateway, at: float, key: Key, headers: dict[str, str], request: GenerationRequest) -> Request:
    headers.pop("authorization", None)
    headers.pop("cookie", None)
    settings = gateway.settings
    user = headers.get("x-tw-user", "")[:_MAX_HEADER] if settings.trust_user_header else ""
    if not user and settings.trust_user_header and isinstance(request.body.get("user"), str):
        user = request.body["user"][:_MAX_HEADER]
    conversation = headers.get("x-tw-conversation", "")[:_MAX_HEADER]
    prompt = request.prompt
    if not conversation and request.endpoint == "chat":
        conversation = _same_beginning(key, request)
    if prompt.turn > 1 and conversation:
        prompt = gateway.conversations.told(conversation, request)
    tags = headers.get("x-tw-tags")
    return Request(
        at=at,
        subject=Subject(key=key.id, user=user, tenant=key.tenant, model=request.model),
        prompt=prompt,
        conversation=conversation,
        tags=tuple(tag.strip()[:_MAX_HEADER] for tag in tags.split(",") if tag.strip())[:32] if tags else (),
        headers=headers,
    )


def _same_beginning(key: Key, request: GenerationRequest) -> str:
    """Turns of one conversation share what comes up to the first user message: enough to remember who answered
    last, and about how much of it each model has read."""
    parts = []
    for message in request.body["messages"]:
        content = message.get("content")
        parts.append(content if isinstance(content, str) else repr(content))
        if message["role"] == "user":
            break
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return "auto-" + hashlib.blake2b(text, key=key.id.encode()[:64], digest_size=12).hexdigest()
