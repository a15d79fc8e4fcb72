"""Who may ask: the Host it is asked under, the token, the size of the head."""

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.api.questions import CONTROL
from sidecar.errors import NotAllowed, Refused

HEAD = 16 << 10
"""Bytes that a request's head may have."""


def head_limit() -> Middleware:
    """Refuse a head that is too large in all; aiohttp bounds only each line and their number."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        size = len(request.raw_path) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if size > HEAD:
            raise Refused("head_too_large", f"the request's head has more than {HEAD} bytes", status=431)
        return await handler(request)

    return guard


class Gate:
    """Who may ask: callers under one of the names in ``allowed``, with what is the ``token`` just then, if there is one.

    A web page whose name was rebound to this address must get nothing, so other names are refused. ``X-Forwarded-Host``
    is never looked at: whoever can send it can send anything. A request without ``Host`` is not a browser's (RFC 9112
    §3.2 demands one from HTTP/1.1 on) and passes.

    The token may come as a bearer token (RFC 6750 §2.1), as the official Stripe SDKs send their key, or as the user name
    of basic authentication (RFC 7617), as ``curl -u key:`` does. It is compared in constant time.
    """

    def __init__(self, allowed: Iterable[str], token: Callable[[], str] | None = None) -> None:
        names = frozenset(name.lower() for name in allowed)
        self._names = None if "*" in names else names
        self._token = token

    def check(self, host: str | None, authorization: str) -> None:
        """Let a caller pass who sent these fields.

        :raises NotAllowed: when the caller may not.
        """
        if host is not None and self._names is not None and without_port(host.lower()) not in self._names:
            raise NotAllowed("host_not_allowed", f"Host {host[:80]!r} is not among allowed_hosts", status=421)
        if self._token is None:
            return
        if not hmac.compare_digest(credential(authorization), self._token().encode()):
            raise NotAllowed("unauthorized", "the token is missing or wrong (Authorization: Bearer …)", status=401)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer those who may ask."""
        self.check(request.headers.get("Host"), request.headers.get("Authorization", ""))
        return await handler(request)


def without_port(host: str) -> str:
    """Return a ``Host`` without its port; RFC 9110 §7.2."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host.removesuffix(":")


def read_token(text: str) -> str:
    """Return the token in a file's ``text``, blanks around it ignored.

    :raises ValueError: when there is none, or more than a header can hold.
    """
    token = text.strip()
    if not token:
        raise ValueError("is empty")
    if CONTROL.search(token):
        raise ValueError("has more than one line, or characters that no header can hold")
    return token


def credential(authorization: str) -> bytes:
    """Return what an ``Authorization`` field holds; nothing when that cannot be told."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode("utf-8", "surrogateescape")
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[0]
            except (binascii.Error, ValueError):
                return b""
        case _:
            return b""
