"""Asking one of the two models: a chat completion, or short samples of one, with retries and growing waits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from policies.features import entropy_of
from policies.samples import SampleWish, ask_for, texts_in

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that may go away by themselves."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the two models. Prices are USD per million tokens."""

    role: str
    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    price_in: float | None = None
    price_out: float | None = None
    label: str | None = None
    """What the table calls one of several teachers; None where there is one."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How the models are asked."""

    concurrency: int = 8
    attempts: int = 5
    first_wait_s: float = 1.0
    timeout_s: float = 300.0
    max_tokens: int | None = None
    temperature: float = 0.0
    top_logprobs: int = 5
    samples: SampleWish | None = None
    """Of the student, beside its answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    text: str | None
    logprobs: list[float] | None = None
    entropies: list[float] | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    model: str | None = None
    error: str | None = None


async def ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, messages: Sequence[dict[str, Any]], how: Asking
) -> Reply:
    """One chat completion, retried with doubling waits; an error in the reply where none came."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": list(messages),
        "temperature": how.temperature,
        "logprobs": True,
        "top_logprobs": how.top_logprobs,
    }
    if how.max_tokens is not None:
        body["max_tokens"] = how.max_tokens
    headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    error = "not asked"
    for attempt in range(how.attempts):
        if attempt:
            await asyncio.sleep(how.first_wait_s * 2 ** (attempt - 1))
        try:
            async with session.post(
                f"{endpoint.url.rstrip('/')}/chat/completions",
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=how.timeout_s),
            ) as response:
                raw = await response.read()
                if response.status == 200:
                    route = response.headers.get("x-tw-route")
                    reason = response.headers.get("x-tw-reason", "unknown reason")
                    named = endpoint.label is not None or endpoint.model in ("student", "teacher")
                    if route is not None and named and (route != endpoint.role or reason == "other_teacher"):
                        return Reply(None, error=f"the gateway answered by its {route}: {reason}")
                    return _reply(raw, endpoint)
                error = f"HTTP {response.status}: {_error_text(raw)}"
                if response.status == 400 and "logprobs" in body:
                    # Some APIs refuse log-probabilities; an answer without them is worth more than none.
                    body.pop("logprobs")
                    body.pop("top_logprobs")
                    continue
                if response.status not in RETRIED:
                    break
        except (aiohttp.ClientError, TimeoutError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as failure:
            error = f"not a chat completion: {type(failure).__name__}: {failure}"
            break
    return Reply(None, error=error)


def _error_text(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["error"]["message"])[:200]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace")


def _reply(raw: bytes, endpoint: Endpoint) -> Reply:
    answer = orjson.loads(raw)
    choice = answer["choices"][0]
    tokens = ((choice.get("logprobs") or {}).get("content")) or []
    usage = answer.get("usage") or {}
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cost = usage.get("cost")
    if cost is None and endpoint.price_in is not None and endpoint.price_out is not None and tokens_in is not None:
        cost = (tokens_in * endpoint.price_in + (tokens_out or 0) * endpoint.price_out) / 1e6
    spread = [entropy_of([top["logprob"] for top in token.get("top_logprobs") or []]) for token in tokens]
    return Reply(
        text=choice["message"].get("content") or "",
        logprobs=[float(token["logprob"]) for token in tokens] or None,
        entropies=spread if any(token.get("top_logprobs") for token in tokens) else None,
        finish_reason=choice.get("finish_reason"),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=cost,
        model=answer.get("model"),
    )


async def sample(
    session: aiohttp.ClientSession, student: Endpoint, messages: Sequence[dict[str, Any]], wish: SampleWish, how: Asking
) -> dict[str, Any]:
    """The columns of the student's samples; null where they did not all come. One request where it makes several."""
    body = {"model": student.model, "messages": list(messages)}
    texts: list[str] = []
    tokens = 0
    count = wish.count
    while len(texts) < wish.count:
        answer, refused = await _post(session, student, ask_for(body, wish, count), how)
        if refused and count > 1:
            count = 1
            continue
        found = [] if answer is None else texts_in(answer)
        if answer is None or not found:
            return {"student_samples": None, "student_sample_tokens": None}
        texts += found
        tokens += (answer.get("usage") or {}).get("completion_tokens") or 0
        count = 1 if len(found) < count else min(count, wish.count - len(texts))
    return {"student_samples": texts[: wish.count], "student_sample_tokens": tokens}


async def _post(
    session: aiohttp.ClientSession, endpoint: Endpoint, body: dict[str, Any], how: Asking
) -> tuple[dict[str, Any] | None, bool]:
    """(answer, None where none came; whether the server would not do such a thing)."""
    headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    for attempt in range(how.attempts):
        if attempt:
            await asyncio.sleep(how.first_wait_s * 2 ** (attempt - 1))
        try:
            async with session.post(
                f"{endpoint.url.rstrip('/')}/chat/completions",
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=how.timeout_s),
            ) as response:
                raw = await response.read()
                if response.status == 200:
                    answer = orjson.loads(raw)
                    return (answer, False) if isinstance(answer, dict) else (None, False)
                if response.status not in RETRIED:
                    return None, True
        except (aiohttp.ClientError, TimeoutError, ValueError):
            continue
    return None, False
