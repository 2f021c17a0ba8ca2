"""Sends questions to a gateway as a client would, several at a time, and keeps what came back."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client sees of one answer."""

    status: int
    text: str
    route: str
    """The header x-tw-route: student, teacher or mixed."""
    reason: str
    """The header x-tw-reason."""
    latency_ms: float


async def ask_all(
    url: str,
    prompts: Sequence[str],
    *,
    model: str,
    concurrency: int,
    max_tokens: int | None = None,
    answered: Callable[[], None] = lambda: None,
) -> list[Reply]:
    """POSTs each prompt to /v1/chat/completions; the replies stand in the order of the prompts.

    `answered` is called as each one arrives. Raises aiohttp.ClientError where the gateway cannot be reached; an error
    that the gateway answers with is a Reply like any other.
    """
    replies: list[Reply | None] = [None] * len(prompts)
    waiting = iter(range(len(prompts)))
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:

        async def one_client() -> None:
            for index in waiting:
                reply = await _ask(http, url, prompts[index], model, max_tokens)
                replies[index] = reply
                answered()

        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(one_client())
    return [reply for reply in replies if reply is not None]


async def _ask(http: aiohttp.ClientSession, url: str, prompt: str, model: str, max_tokens: int | None) -> Reply:
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    began = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        data = await response.json(content_type=None)
        latency_ms = (time.perf_counter() - began) * 1e3
        text = data["choices"][0]["message"]["content"] if response.status == 200 else str(data)
        return Reply(
            status=response.status,
            text=text or "",
            route=response.headers.get("x-tw-route", ""),
            reason=response.headers.get("x-tw-reason", ""),
            latency_ms=latency_ms,
        )
