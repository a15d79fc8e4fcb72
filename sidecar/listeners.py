"""Applications on sockets: what each listener is made of, how it opens, and how it is drained."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.api.listening import Served, named
from sidecar.api.ops import Quit
from sidecar.api.problems import expectation
from sidecar.api.shortcuts import Shortcuts
from sidecar.core.heart import Heart
from sidecar.kit.door import Door
from sidecar.settings import Settings

BODY = 1 << 20


@dataclass(frozen=True)
class Listener:
    """An application, the sockets it is served on, who is let in, and what need not be asked of the application."""

    app: web.Application
    sockets: list[socket.socket]
    door: Door
    shortcuts: Shortcuts = field(default_factory=Shortcuts.none)

    @property
    def addresses(self) -> list[str]:
        """Where it can be reached, as the system assigned it."""
        return [named(bound) for bound in self.sockets]

    def __str__(self) -> str:
        return ", ".join(self.addresses)


def application(routes: list[web.RouteDef], middlewares: list[Middleware]) -> web.Application:
    """Return an application that takes small bodies."""
    found = web.Application(client_max_size=BODY, middlewares=middlewares)
    for route in routes:
        options = {**route.kwargs, "expect_handler": expectation}
        found.add_routes([web.RouteDef(route.method, route.path, route.handler, options)])
    return found


def end_waiting(heart: Heart) -> Callable[[web.Application], Awaitable[None]]:
    """Return what lets nobody wait any longer when the process shuts down: for a grant, or for changes."""

    async def end(_: web.Application) -> None:
        heart.changes.close()
        heart.vigil.close()

    return end


def quitting(settings: Settings, stop: Callable[[], None] | None) -> list[web.RouteDef]:
    """Return the way to end the process by a request, where that is wanted."""
    return Quit(stop).routes() if stop is not None and settings.quit_endpoint else []


@asynccontextmanager
async def listening(*listeners: Listener, drain_timeout: float = 5.0) -> AsyncIterator[None]:
    """Serve ``listeners``; on leaving, drain all but the first together, and then the first, within one time."""
    async with AsyncExitStack() as stack:
        served: list[Served] = []
        for listener in listeners:
            one = Served(listener.app, listener.door, listener.shortcuts)
            stack.push_async_callback(one.close)
            await one.open(listener.sockets)
            served.append(one)
        stack.push_async_callback(drained, served, drain_timeout)
        yield


async def drained(served: list[Served], within: float) -> None:
    """Drain what is served: health is answered until all else is done."""
    until = asyncio.get_running_loop().time() + within
    await asyncio.gather(*(one.drain(until) for one in served[1:]))
    for one in served[:1]:
        await one.drain(until)
