"""Who asks: what the endpoints off the hot path share."""

from typing import cast

from fastapi import Request

from server.auth import Key
from server.gateway import Gateway


def gateway_of(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


def user_key(request: Request) -> Key:
    """Raises Unauthenticated."""
    return gateway_of(request).keys.authenticate(request.headers.get("authorization"))


def admin_key(request: Request) -> Key:
    """Raises Unauthenticated or Forbidden."""
    return gateway_of(request).keys.authenticate_admin(request.headers.get("authorization"))
