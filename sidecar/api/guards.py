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


def host_guard(allowed: Iterable[str]) -> Middleware:
    """Refuse hosts that are not ``allowed``: a web page whose name was rebound to this address must get nothing.

    ``X-Forwarded-Host`` is never looked at: whoever can send it can send anything. A request without ``Host`` is not
    a browser's (RFC 9112 §3.2 demands one from HTTP/1.1 on) and passes.
    """
    names = frozenset(name.lower() for name in allowed)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")
        if host is not None and "*" not in names and without_port(host.lower()) not in names:
            raise NotAllowed("host_not_allowed", f"Host {host[:80]!r} is not among allowed_hosts", status=421)
        return await handler(request)

    return guard


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


def token_guard(token: Callable[[], str]) -> Middleware:
    """Refuse callers without what is the ``token`` just then, compared in constant time.

    It may come as a bearer token (RFC 6750 §2.1), as the official Stripe SDKs send their key, or as the user name of
    basic authentication (RFC 7617), as ``curl -u key:`` does.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not hmac.compare_digest(credential(request.headers.get("Authorization", "")), token().encode()):
            raise NotAllowed("unauthorized", "the token is missing or wrong (Authorization: Bearer …)", status=401)
        return await handler(request)

    return guard


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
