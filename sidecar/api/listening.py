"""Sockets, bound early, served late, and drained in the end."""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.api.connections import Handler, Patience
from sidecar.api.front import Front
from sidecar.api.shortcuts import Shortcuts
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.kit.door import Door

log = logging.getLogger(__name__)

BACKLOG = 1024

MOMENT = 0.01
"""Seconds in which the event loop comes round several times."""


def bind(address: Address) -> socket.socket:
    """Return a socket that listens on ``address``; who connects before it is served waits.

    :raises BadSettings: when it cannot be listened on.
    """
    try:
        if address.path is not None:
            make_room(Path(address.path))
            return listen(socket.AF_UNIX, address.path)
        host = address.host
        family, _, _, _, place = socket.getaddrinfo(
            host.encode() if host.isascii() else host,  # text is taken for an international name, which needs a library
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
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


def remover(bound: socket.socket) -> Callable[[], None]:
    """Return what removes the file of a unix socket that was just bound, unless another process has replaced it."""
    path = Path(bound.getsockname())
    ours = identity(path)

    def remove() -> None:
        if identity(path) == ours:
            path.unlink(missing_ok=True)

    return remove


def identity(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from one that takes its place, which may well get the same inode."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class Site(web.BaseSite):
    """One socket; ``protocol`` makes what serves a connection."""

    def __init__(self, runner: web.AppRunner, bound: socket.socket, protocol: Callable[[], Front]) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._bound = bound
        self._protocol = protocol

    @property
    def name(self) -> str:
        """Where this site can be reached."""
        return named(self._bound)

    async def start(self) -> None:
        """Begin to accept connections."""
        await super().start()
        loop = asyncio.get_running_loop()
        if self._bound.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._protocol, sock=self._bound, backlog=self._backlog)
        else:
            self._server = await loop.create_server(self._protocol, sock=self._bound, backlog=self._backlog)


class Served:
    """An application, and its shortcuts, on its sockets, from ``open`` to ``drain`` and ``close``."""

    def __init__(
        self, app: web.Application, door: Door, shortcuts: Shortcuts | None = None, *, patience: Patience | None = None
    ) -> None:
        self._runner = web.AppRunner(app, shutdown_timeout=MOMENT)
        self._door = door
        self._shortcuts = shortcuts or Shortcuts.none()
        self._patience = patience or Patience()

    async def open(self, sockets: list[socket.socket]) -> None:
        """Begin to answer on ``sockets``."""
        await self._runner.setup()
        server, loop = self._server(), asyncio.get_running_loop()
        handler = partial(Handler, server, loop=loop)
        protocol = partial(Front, handler, self._shortcuts, self._door, self._patience, loop)
        for bound in sockets:
            await Site(self._runner, bound, protocol).start()

    async def drain(self, until: float) -> None:
        """Let nobody in, close what is idle, end what only waits, and give answers under way time ``until`` then.

        ``until`` is in the loop's time. What is not done by then is cut off, and the log is told how many that were.
        """
        await asyncio.sleep(0)  # else asyncio would lose a connection that it has accepted but not yet made
        for site in self._runner.sites:
            await site.stop()
        server = self._server()
        await asyncio.sleep(MOMENT)  # who came a moment ago is let in, and its request begins to be handled
        self._door.shut()
        await self._runner.shutdown()
        try:
            async with asyncio.timeout_at(until):
                await server.shutdown(None)
                await self._door.emptied()
        except TimeoutError:
            log.warning("cut off %d connections whose answers were not done in time", len(self._door))
            await server.shutdown(MOMENT)  # 0 would mean for ever
            self._door.clear()

    async def close(self) -> None:
        """Close what is left and clean up; without ``drain`` before, this is an end in haste."""
        await self._runner.cleanup()

    def _server(self) -> web.Server:
        server = self._runner.server
        if server is None:
            raise RuntimeError("it is not open")
        return server
