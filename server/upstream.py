"""The one outbound seam: every call to a model server goes through here; third-party errors are mapped here alone."""

import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import orjson

from policies.values import quickly_made
from server import sse
from server.errors import UpstreamBadAnswer, UpstreamFault, UpstreamStatus, UpstreamTimeout, UpstreamUnreachable
from server.plain_http import BrokenOff, CannotConnect, NotHttp, PlainHttp, PlainHttpError, Reply, Silent
from server.settings import Timeouts
from server.settings import Upstream as UpstreamSettings

_MAX_ERROR_BYTES = 64 * 1024


@quickly_made
@dataclass(frozen=True)
class Answer:
    """A whole answer with status 200: its bytes as they came, and what they say."""

    raw: bytes
    data: dict[str, Any]


class EventStream:
    """A streamed answer: batches of whole, checked events, as they arrive."""

    def __init__(self, role: str, response: aiohttp.ClientResponse) -> None:
        self._role = role
        self._response = response
        self._splitter = sse.EventSplitter()
        self.done = False
        """`[DONE]` has been seen."""

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Raises UpstreamFault when the stream is cut, stalls or is malformed."""
        try:
            async for chunk in self._response.content.iter_any():
                events = self._splitter.feed(chunk)
                for event in events:
                    if sse.payload(event) == sse.DONE:
                        self.done = True
                if events:
                    yield events
        except sse.MalformedStream as error:
            raise self.malformed(str(error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self._role, error) from None
        if not self.done:
            raise UpstreamBadAnswer(self._role, f"the {self._role} cut its stream short")

    def malformed(self, what: str) -> UpstreamFault:
        return UpstreamBadAnswer(self._role, f"the {self._role} sent a malformed stream: {what}")

    def reported(self, data: bytes) -> UpstreamFault:
        """An error that the upstream sent as an event; `data` is its OpenAI-shaped object."""
        return UpstreamStatus(self._role, 502, data, None)

    def close(self) -> None:
        """Drops the connection unless the answer was read to its end: the upstream then stops generating."""
        self._response.close()


class Upstream:
    """One model server. Raises UpstreamFault and nothing else."""

    def __init__(
        self, role: str, settings: UpstreamSettings, url: str, http: aiohttp.ClientSession, timeouts: Timeouts
    ) -> None:
        self.role = role
        self.settings = settings
        self.name = settings.name or role
        """The model name the upstream knows."""
        self.takes_several = True
        """Whether one request may ask it for several choices, as far as is known."""
        self._url = url
        self._http = http
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect_s, connect=timeouts.connect_s * 2, sock_read=timeouts.silence_s
        )
        self._headers = {"content-type": "application/json"}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if key:
                self._headers["authorization"] = f"Bearer {key}"
        self._plain = PlainHttp.to(
            url, self._headers, connect_s=timeouts.connect_s, silence_s=timeouts.silence_s
        )  # fmt: skip
        """For whole answers; None where they take TLS, say: then aiohttp reads them, too."""

    def close(self) -> None:
        """Drops connections that wait for another request."""
        if self._plain is not None:
            self._plain.close()

    async def answer(self, path: str, body: bytes) -> Answer:
        status, headers, raw = await self._whole(path, body)
        if status != 200:
            raise self._refused(status, raw[:_MAX_ERROR_BYTES], headers.get("retry-after"))
        try:
            data = orjson.loads(raw)
        except orjson.JSONDecodeError:
            data = None
        if not isinstance(data, dict):
            kind = headers.get("content-type", "no content type").partition(";")[0]
            raise UpstreamBadAnswer(self.role, f"the {self.role} answered with {kind}, not with a JSON object")
        if not isinstance(data.get("choices"), list):
            raise UpstreamBadAnswer(self.role, f"the {self.role} answered with JSON that holds no `choices`")
        return Answer(raw, data)

    async def stream(self, path: str, body: bytes) -> EventStream:
        response = await self._open(path, body)
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        if kind != "text/event-stream":
            response.close()
            raise UpstreamBadAnswer(self.role, f"the {self.role} answered a streamed request with {kind}")
        return EventStream(self.role, response)

    async def passed(self, name: str, body: dict[str, Any]) -> tuple[int, str, bytes]:
        """A request of an endpoint that is not routed: (status, content type, body), whatever they are."""
        try:
            raw = orjson.dumps({**body, "model": self.name})
            async with self._http.post(
                f"{self._url}/{name}", data=raw, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self.role, error) from None
        if response.status in (401, 403):
            raise self._refused(response.status, b"", None)
        return response.status, response.headers.get("content-type", "application/json"), content

    async def models(self) -> list[str]:
        """The names the upstream serves."""
        try:
            async with self._http.get(
                f"{self._url}/models", headers=self._headers, timeout=aiohttp.ClientTimeout(total=5)
            ) as response:
                data = await response.json(content_type=None)
                return [str(row["id"]) for row in data["data"]]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self.role, error) from None
        except (ValueError, KeyError, TypeError):
            raise UpstreamBadAnswer(self.role, f"the {self.role} has no list of models") from None

    async def tokenize(self, body: dict[str, Any]) -> list[int] | Literal[False] | None:
        """What vLLM's `/tokenize` says of a prompt or messages: token ids. False where it refuses them, None where the
        server has no such thing. Raises UpstreamFault where it cannot be reached."""
        url = self._url.removesuffix("/v1") + "/tokenize"
        try:
            async with self._http.post(
                url,
                json={**body, "model": self.name},
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=5),
                allow_redirects=False,
            ) as response:
                if response.status == 400:
                    return False
                data = await response.json(content_type=None) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self.role, error) from None
        except ValueError:
            return None
        ids = data.get("tokens") if isinstance(data, dict) else None
        return ids if isinstance(ids, list) and all(isinstance(token, int) for token in ids) else None

    async def _whole(self, path: str, body: bytes) -> Reply:
        """An answer read to its end, whatever its status."""
        try:
            if self._plain is not None:
                return await self._plain.post(path, body)
            async with self._http.post(
                self._url + path, data=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                return Reply(response.status, response.headers, await response.read())
        except (PlainHttpError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self.role, error) from None

    async def _open(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        try:
            response = await self._http.post(
                self._url + path, data=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            )
            if response.status == 200:
                return response
            raw = await response.content.read(_MAX_ERROR_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _mapped(self.role, error) from None
        retry_after = response.headers.get("retry-after")
        response.close()
        raise self._refused(response.status, raw, retry_after)

    def _refused(self, status: int, raw: bytes, retry_after: str | None) -> UpstreamFault:
        if status in (401, 403):
            # Their message may quote our key, and their status would tell the client that its own key is wrong.
            where = self.settings.api_key_env
            hint = f"check the key in ${where}" if where else "it wants a key: set api_key_env"
            return UpstreamBadAnswer(self.role, f"the {self.role} refused the gateway's own credentials; {hint}")
        if status < 400:
            return UpstreamBadAnswer(self.role, f"the {self.role} answered with status {status}; is its URL right?")
        try:
            data = orjson.loads(raw)
        except orjson.JSONDecodeError:
            data = None
        payload = raw if isinstance(data, dict) and isinstance(data.get("error"), dict) else b""
        if retry_after is not None and not re.fullmatch(r"[\w ,:.-]{1,40}", retry_after):
            retry_after = None
        return UpstreamStatus(self.role, status, payload, retry_after)


def _mapped(role: str, error: Exception) -> UpstreamFault:
    match error:
        case CannotConnect():
            return UpstreamUnreachable(role, f"the {role} cannot be reached")
        case Silent():
            return UpstreamTimeout(role, f"the {role} did not answer in time")
        case BrokenOff():
            return UpstreamBadAnswer(role, f"the {role} broke off its answer")
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return UpstreamUnreachable(role, f"the {role} cannot be reached")
        case TimeoutError():
            return UpstreamTimeout(role, f"the {role} did not answer in time")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | ConnectionError():
            return UpstreamBadAnswer(role, f"the {role} broke off its answer")
        case aiohttp.ClientConnectionError():
            return UpstreamUnreachable(role, f"the {role} cannot be reached")
        case _:
            what = error if isinstance(error, NotHttp) else type(error).__name__
            return UpstreamBadAnswer(role, f"the {role} did not answer in HTTP ({what})")
