"""How a verb talks to a running gateway: one JSON request, one JSON answer, one clear line when it fails."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

DEFAULT_GATEWAY = "http://127.0.0.1:8080"
_TIMEOUT_S = 30.0


class NoGatewayUrl(ValueError):
    """What was given is no URL that a gateway can have."""


class GatewayUnreachable(Exception):
    """No answer that can be used came from this URL."""


class GatewayRefused(Exception):
    """The gateway answered with an error; its own words are the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GatewayClient:
    """Speaks to one gateway with one key. The key is never part of a message. Raises NoGatewayUrl.

    `what` names in messages what is at the URL, where it is something else that speaks JSON.
    """

    def __init__(self, url: str, key: str | None, *, what: str = "gateway") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NoGatewayUrl(f"{url} is no URL of a {what}; it looks like {DEFAULT_GATEWAY}")
        if parts.username or parts.password:
            raise NoGatewayUrl("the URL holds a user name or password; put the key into the environment instead")
        self._what = what
        self._url = url.rstrip("/")
        self._key = key
        # A proxy for the outside world cannot reach this machine's own loopback address.
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*handlers)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that the gateway answers. Raises GatewayRefused and GatewayUnreachable."""
        headers = {"Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                return self._object(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise GatewayRefused(error.code, self._said(error.code, error.read())) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise GatewayUnreachable(f"no {self._what} answers at {self._url}: {reason}") from None

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise GatewayUnreachable(f"what answers at {self._url} is not a {self._what}: it sent no JSON object")
        return answer

    def _said(self, status: int, content: bytes) -> str:
        """The message of an error of the promised shape, or what can be said without one."""
        try:
            message = json.loads(content)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            return f"{self._url} answered {status} without a reason"
        if status in (401, 403) and self._what == "gateway":
            return f"{message} Give the admin key in TW_ADMIN_KEY or with --admin-key-file."
        return str(message)
