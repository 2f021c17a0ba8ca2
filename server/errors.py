"""What can go wrong with a request, whose fault it was, and the one place where that becomes HTTP.

GatewayError
├── ClientFault                 the request cannot be served as it is
│   ├── BadRequest              400  not JSON, wrong types, missing fields
│   ├── Unauthenticated         401  no key, or a wrong one
│   ├── Forbidden               403  a key without this right
│   ├── UnknownThing            404  model, decision, path
│   ├── BodyTooLarge            413
│   ├── UploadTooSlow           408
│   └── BudgetExhausted         429  the operator chose to reject when the budget is out
├── UpstreamFault               a model server failed us
│   ├── UpstreamUnreachable     503
│   ├── UpstreamTimeout         504
│   ├── UpstreamBadAnswer       502  HTML, malformed JSON or SSE, a cut stream
│   └── UpstreamStatus          the upstream's own error, passed on with its status and body
└── ClientGone                  nobody is left to answer
"""

from typing import Any

import orjson


class GatewayError(Exception):
    """`message` is shown to clients: it never holds a secret or a text of somebody's prompt."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def headers(self) -> list[tuple[bytes, bytes]]:
        return []

    def body(self) -> bytes:
        return orjson.dumps(error_object(self.message, self.type, self.param, self.code))


def error_object(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The OpenAI error shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class ClientFault(GatewayError):
    type = "invalid_request_error"


class BadRequest(ClientFault):
    status = 400
    code = None


class Unauthenticated(ClientFault):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"www-authenticate", b"Bearer")]


class Forbidden(ClientFault):
    status = 403
    type = "permission_error"
    code = "insufficient_permissions"


class UnknownThing(ClientFault):
    status = 404
    code = "not_found"


class BodyTooLarge(ClientFault):
    status = 413
    code = "request_too_large"


class UploadTooSlow(ClientFault):
    status = 408
    code = "request_timeout"


class BudgetExhausted(ClientFault):
    status = 429
    type = "insufficient_quota"
    code = "teacher_budget_exhausted"

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def headers(self) -> list[tuple[bytes, bytes]]:
        # Rounded up, so that a client that waits exactly this long finds room.
        return [(b"retry-after", str(max(1, int(-(-(self.retry_after_s or 1) // 1)))).encode())]


class UpstreamFault(GatewayError):
    type = "upstream_error"

    def __init__(self, role: str, message: str) -> None:
        super().__init__(message)
        self.role = role


class UpstreamUnreachable(UpstreamFault):
    status = 503
    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamFault):
    status = 504
    code = "upstream_timeout"


class UpstreamBadAnswer(UpstreamFault):
    status = 502
    code = "upstream_bad_answer"


class UpstreamStatus(UpstreamFault):
    """The upstream answered with an error of its own, already OpenAI-shaped where `payload` is not empty."""

    code = "upstream_status"

    def __init__(self, role: str, status: int, payload: bytes, retry_after: str | None) -> None:
        super().__init__(role, f"the {role} answered with status {status}")
        self.status = status
        self.payload = payload
        self.retry_after = retry_after

    @property
    def clients_fault(self) -> bool:
        """True where another try, or another server, would say the same."""
        return self.status in (400, 413, 414, 415, 422)

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"retry-after", self.retry_after.encode("latin-1"))] if self.retry_after else []

    def body(self) -> bytes:
        return self.payload or super().body()


class ClientGone(GatewayError):
    status = 499
    code = "client_closed_request"
