"""A listener's connections: how slow they may be, how many there may be, and refusals of what is not HTTP."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, InvalidURLError, LineTooLong

from sidecar.api.problems import problem
from sidecar.kit.door import Door

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


class Connection(web.RequestHandler):
    """aiohttp's protocol, within limits; what cannot be parsed is refused with a problem document that echoes nothing.

    aiohttp bounds neither the time that a head takes nor that of an answer nobody reads. One timer looks after both. It
    is set again when it fires, when a head came in pieces and when an answer had to wait: not once in a request that
    is as it should be.
    """

    __slots__ = ("_door", "_head_began", "_moved_at", "_patience", "_timer", "_unsent", "_wire")

    def __init__(self, server: web.Server, door: Door, patience: Patience, *, loop: asyncio.AbstractEventLoop) -> None:
        # Later than ours, which counts: a head that begins in the last moment of an idle connection has its time too.
        super().__init__(server, loop=loop, keepalive_timeout=patience.idle + patience.head, **LIMITS)
        self._door = door
        self._patience = patience
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_began: float | None = None
        self._unsent = 0
        self._moved_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._wire = cast("asyncio.Transport", transport)
        if not self._door.admit(self):
            self.force_close()  # whatever comes is not read
            self._wire.write(TOO_MANY)
            self._wire.close()
            self._wire = None
            return
        super().connection_made(transport)
        self._timer = self._loop.call_later(self._patience.head, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End; nothing of it stays."""
        if self._timer is not None:
            self._timer.cancel()
        self._wire = None
        self._door.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and note when a head has begun that is not there as a whole."""
        super().data_received(data)
        if self._awaits_head():
            if self._head_began is None:
                self._head_began = self._loop.time() if self._request_count else self._began()
                self._look()
        elif self._head_began is not None:
            self._head_began = None

    def pause_writing(self) -> None:
        """Begin to watch whether the peer reads."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Note that it does."""
        super().resume_writing()
        self._unsent = 0

    def idle_since(self) -> float | None:
        """Return when the last answer, or before the first the connection, began to be all there is; loop time."""
        if self._wire is None or self._wire.get_write_buffer_size() or not self._awaits_head():
            return None
        return self._began()

    def leave(self, why: str) -> None:
        """Close at once, without regard for what was not sent; who sent half a head is told what was wrong."""
        if self._wire is None:
            return
        if why == "slow_head" and self._head_began is not None:
            self._wire.write(HEAD_TOO_SLOW)
            self._wire.close()
        else:
            self._wire.abort()

    def _began(self) -> float:
        return self._next_keepalive_close_time - self.keepalive_timeout

    def _awaits_head(self) -> bool:
        """Tell whether no request is under way; before aiohttp's task has begun to wait, whether none has come."""
        waiter = self._waiter
        return not self._request_count if waiter is None else not waiter.done()

    def _look(self) -> None:
        """Close the connection if it is overdue, else look again when it may be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is None:
            return
        now = self._loop.time()
        why, due = self._due(self._wire, now)
        if now < due:
            soon = now + self._patience.stalled / 3
            self._timer = self._loop.call_at(min(due, soon) if why == "stalled" else due, self._look)
            return
        self._timer = self._loop.call_later(self._patience.stalled, self._look)  # even a farewell may not be read
        self._door.show_out(self, why)

    def _due(self, wire: asyncio.Transport, now: float) -> tuple[str, float]:
        """Return what this connection could be closed for next, and when at the earliest."""
        unsent, patience = wire.get_write_buffer_size(), self._patience
        if not self._unsent or unsent < self._unsent:
            self._moved_at = now
        self._unsent = unsent
        if unsent or not self._awaits_head():  # in a request: look again, for little that is unread is not announced
            return "stalled", self._moved_at + patience.stalled
        if self._head_began is not None:
            return "slow_head", self._head_began + patience.head
        if not self._request_count:
            return "slow_head", self._began() + patience.head
        return "idle", self._began() + patience.idle

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
