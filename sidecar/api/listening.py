"""Sockets, bound early and served late; refusals of what is not HTTP."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, InvalidURLError, LineTooLong

from sidecar.api.problems import problem
from sidecar.errors import BadSettings
from sidecar.kit.address import Address

log = logging.getLogger(__name__)

BACKLOG = 1024

LIMITS: dict[str, Any] = {
    "keepalive_timeout": 75.0,  # longer than common clients' pools keep a connection, so that they close it, not we
    "max_line_size": 16 << 10,
    "max_field_size": 16 << 10,
    "max_headers": 64,
    "lingering_time": 2.0,
    "auto_decompress": False,  # a small body must not become a large one
    "access_log": None,
}


class Protocol(web.RequestHandler):
    """aiohttp's protocol, but what cannot be parsed is refused with a problem document that echoes nothing."""

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


def bind(address: Address) -> socket.socket:
    """Return a socket that listens on ``address``; who connects before it is served waits.

    :raises BadSettings: when it cannot be listened on.
    """
    try:
        if address.path is not None:
            make_room(Path(address.path))
            return listen(socket.AF_UNIX, address.path)
        family, _, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return listen(family, place)
    except OSError as error:
        raise BadSettings([f"{address} cannot be listened on: {error.strerror or error}"]) from None


def listen(family: int, place: Any) -> socket.socket:
    """Return a listening socket. It listens at once: two processes can bind one port as long as neither does."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def make_room(path: Path) -> None:
    """Remove a unix socket that a process left behind.

    :raises OSError: when somebody still answers there.
    """
    if path.is_socket():
        if answers(path):
            raise OSError(None, "another process listens there")
        path.unlink()


def answers(path: Path) -> bool:
    """Tell whether somebody accepts connections on the unix socket at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def named(bound: socket.socket) -> str:
    """Return where ``bound`` can be reached, as a URL's authority or ``unix:/path``."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return str(Address(host, port))


class Site(web.BaseSite):
    """One socket, served by an application."""

    def __init__(self, runner: web.AppRunner, bound: socket.socket) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._bound = bound

    @property
    def name(self) -> str:
        """Where this site can be reached."""
        return named(self._bound)

    async def start(self) -> None:
        """Begin to accept connections."""
        await super().start()
        loop, server = asyncio.get_running_loop(), self._runner.server
        if server is None:
            raise RuntimeError("the runner is set up before its sites start")

        def protocol() -> Protocol:
            return Protocol(server, loop=loop, **LIMITS)

        if self._bound.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(protocol, sock=self._bound, backlog=self._backlog)
        else:
            self._server = await loop.create_server(protocol, sock=self._bound, backlog=self._backlog)
