"""aiohttp's protocol as we use it: its limits, and refusals of what is not HTTP."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, InvalidURLError, LineTooLong

from sidecar.api.problems import problem

log = logging.getLogger(__name__)

LIMITS: dict[str, Any] = {
    "max_line_size": 16 << 10,
    "max_field_size": 16 << 10,
    "max_headers": 64,
    "lingering_time": 2.0,
    "auto_decompress": False,  # a small body must not become a large one
    "access_log": None,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer is waited for, in seconds.

    ``head``: for a complete head, counted from the connection's opening or from the head's first byte. ``idle``: for
    the next request; longer than common clients' pools keep a connection, so that they close it, not we. ``stalled``:
    for any byte of an answer to be taken.
    """

    head: float = 10.0
    idle: float = 75.0
    stalled: float = 30.0


NEVER = 365 * 86_400.0
"""Seconds after which aiohttp may close an idle connection; we do it earlier, and know of requests that it never saw."""


class Handler(web.RequestHandler):
    """aiohttp's protocol, within limits; what cannot be parsed is refused with a problem document that echoes nothing."""

    __slots__ = ()

    def __init__(self, server: web.Server, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, keepalive_timeout=NEVER, **LIMITS)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; before aiohttp's task has begun to wait, whether none has come."""
        waiter = self._waiter
        return not self._request_count if waiter is None else not waiter.done()

    @property
    def idle_since(self) -> float:
        """When it had done its last request, or was made; loop time."""
        return self._next_keepalive_close_time - NEVER

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to what is not a request."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        log.debug("refused what is not HTTP: %s", type(exc).__name__)
        match exc:
            case LineTooLong():
                response = problem(431, "head_too_large", "a line of the request's head is longer than 16384 bytes")
            case BadHttpMessage() if "Too many headers" in exc.message:
                response = problem(
                    431, "head_too_large", f"the request has more than {LIMITS['max_headers']} header fields"
                )
            case InvalidURLError():
                response = problem(
                    400, "malformed_request", "the path may have ASCII characters only; percent-encode others"
                )
            case _:
                response = problem(400, "malformed_request", "this is not a request of HTTP/1.1")
        response.force_close()
        return response


def unasked(status: int, code: str, detail: str) -> bytes:
    """Return an answer as bytes, for a connection that is closed before it has a request."""
    response = problem(status, code, detail)
    body = response.body
    if not isinstance(body, bytes):
        raise TypeError("a problem's body is bytes")
    fields = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {response.reason}\r\n{head}\r\n".encode() + body


TOO_MANY = unasked(503, "too_many_connections", "there are max_connections already, and all of them are busy")
HEAD_TOO_SLOW = unasked(408, "head_too_slow", "the request's head did not arrive in time")
