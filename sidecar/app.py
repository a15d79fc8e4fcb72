"""Puts the parts together. Read this first.

``assembled`` builds every part once, in order of dependence, and nothing runs; ``serve`` runs them: loops in one task
group, listeners opened last and closed first. A loop that dies ends the process.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import aiohttp
import stamina.instrumentation
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from sidecar import __version__
from sidecar.api.checks import Checks
from sidecar.api.guards import head_limit, host_guard, read_token, token_guard
from sidecar.api.listening import Site, bind, named
from sidecar.api.ops import Ops, status_of
from sidecar.api.problems import expectation, problems
from sidecar.api.stripe import Stripe
from sidecar.core.cache import Cache
from sidecar.core.checker import Checker, Policies
from sidecar.core.refresher import Refresher
from sidecar.errors import BadSettings, UpstreamError
from sidecar.kit.address import Address
from sidecar.kit.clock import Clock, steady_clock
from sidecar.kit.lifecycle import Lifecycle, Phase
from sidecar.kit.limiter import Limiter
from sidecar.kit.pulse import Pulse
from sidecar.kit.tasks import Tasks
from sidecar.metrics import Core, Parts, Requests, registry
from sidecar.model import Policy
from sidecar.settings import Settings
from sidecar.stripe.client import Manners, StripeClient
from sidecar.stripe.key import ApiKey
from sidecar.stripe.transport import Transport

T = TypeVar("T")

log = logging.getLogger(__name__)

BODY = 1 << 20
GRACE = 5.0
"""Seconds that answers under way get when the process shuts down."""


@dataclass(frozen=True)
class Listener:
    """An application and the sockets it is served on."""

    app: web.Application
    sockets: list[socket.socket]

    @property
    def addresses(self) -> list[str]:
        """Where it can be reached, as the system assigned it."""
        return [named(bound) for bound in self.sockets]


@dataclass(frozen=True)
class Sidecar:
    """The parts, put together: what runs, what listens."""

    lifecycle: Lifecycle
    loops: list[Callable[[], Awaitable[None]]]
    checks: Listener
    ops: Listener
    checker: Checker
    refresher: Refresher
    client: StripeClient
    metrics: CollectorRegistry


@asynccontextmanager
async def assembled(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Sidecar]:
    """Build every part and bind the sockets; nothing runs yet.

    :raises BadSettings: when there is no key, a file cannot be read, or an address cannot be listened on.
    """
    clock = clock or steady_clock()
    async with AsyncExitStack() as stack:
        key, token, checks_sockets, ops_sockets = outside(settings, stack.enter_context(ExitStack()))

        lifecycle, pulse = Lifecycle(clock), Pulse(clock)
        limiter = Limiter(
            rate=settings.rate / settings.replicas, burst=max(1.0, settings.burst / settings.replicas), clock=clock
        )
        session = await stack.enter_async_context(upstream_session())
        manners = Manners(settings.stripe_api_base, settings.stripe_version, settings.max_pages)
        client = StripeClient(Transport(session, limiter), key, manners, limiter=limiter, clock=clock)

        tasks = Tasks(expected=(UpstreamError,))
        stack.push_async_callback(tasks.close)
        cache = Cache(settings.cache_bytes)
        refresher = Refresher(client.fetch, cache, clock=clock, tasks=tasks, take_spare=limiter.take_spare)
        policies = Policies({glob: Policy(policy) for glob, policy in settings.policy.items()})
        checker = Checker(cache, refresher, freshness=settings.freshness, policies=policies, clock=clock)

        requests = Requests()
        parts = Parts(Core(checker, refresher, cache), client=client, limiter=limiter, pulse=pulse, requests=requests)
        metrics = registry(parts)
        ops = Ops(lifecycle, pulse, status_of(client.health, cache, refresher, limiter, clock), metrics)

        ways_in = [*Checks(checker, refresher).routes(), *Stripe(checker, client).routes()]
        checks_app = application(ways_in, [requests.middleware, problems, *guards(settings, token)])
        ops_app = application(ops.routes(), [requests.middleware, problems, head_limit()])

        yield Sidecar(
            lifecycle,
            [pulse.beat],
            Listener(checks_app, checks_sockets),
            Listener(ops_app, ops_sockets),
            checker,
            refresher,
            client,
            metrics,
        )


def outside(
    settings: Settings, stack: ExitStack
) -> tuple[ApiKey, str | None, list[socket.socket], list[socket.socket]]:
    """Return what lies outside this process: the key, the local token, and the sockets of both listeners.

    :raises BadSettings: with everything that could not be had, at once.
    """
    complaints: list[str] = []

    def had(get: Callable[[], T]) -> T | None:
        try:
            return get()
        except BadSettings as error:
            complaints.extend(error.complaints)
            return None

    def sockets(addresses: tuple[Address, ...]) -> list[socket.socket]:
        bound = [had(partial(bind, address)) for address in addresses]
        return [stack.enter_context(one) for one in bound if one is not None]

    key = had(partial(read_key, settings))
    file = settings.local_token_file
    token = None if file is None else had(partial(read_token, file))
    checks_sockets, ops_sockets = sockets(settings.listen), sockets(settings.ops_listen)
    if key is None or complaints:
        raise BadSettings(complaints)
    return key, token, checks_sockets, ops_sockets


def read_key(settings: Settings) -> ApiKey:
    """Return the API key from where the settings say it is."""
    if settings.stripe_api_key_file is not None:
        return ApiKey.from_file(settings.stripe_api_key_file)
    if settings.stripe_api_key is not None:
        return ApiKey(settings.stripe_api_key.get_secret_value())
    raise BadSettings(
        ["SIDECAR_STRIPE_API_KEY_FILE: set this, SIDECAR_STRIPE_API_KEY or STRIPE_API_KEY to a Stripe API key"]
    )


def upstream_session() -> aiohttp.ClientSession:
    """Return the one pool of connections to Stripe. It keeps no cookies."""
    stamina.instrumentation.set_on_retry_hooks([])  # else the first retry registers a metric of its own, globally
    return aiohttp.ClientSession(
        headers={"User-Agent": f"entitlement-sidecar/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),  # the limiter is the bound; who has a token must not queue again
    )


def guards(settings: Settings, token: str | None) -> list[Middleware]:
    """Return what a request for checks has to pass."""
    found = [head_limit(), host_guard(settings.allowed_hosts)]
    return found if token is None else [*found, token_guard(token)]


def application(routes: list[web.RouteDef], middlewares: list[Middleware]) -> web.Application:
    """Return an application that takes small bodies."""
    found = web.Application(client_max_size=BODY, middlewares=middlewares)
    for route in routes:
        options = {**route.kwargs, "expect_handler": expectation}
        found.add_routes([web.RouteDef(route.method, route.path, route.handler, options)])
    return found


@asynccontextmanager
async def listening(*listeners: Listener) -> AsyncIterator[None]:
    """Serve ``listeners``; on leaving, stop accepting, let answers under way finish, and close."""
    async with AsyncExitStack() as stack:
        for listener in listeners:
            runner = web.AppRunner(listener.app, shutdown_timeout=GRACE)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            for bound in listener.sockets:
                await Site(runner, bound).start()
        yield


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    started: Callable[[Sidecar], None] | None = None,
    clock: Clock | None = None,
) -> None:
    """Run until ``stop`` is set; ``started`` is told once checks are answered.

    :raises BadSettings: when a part cannot be built.
    :raises ExceptionGroup: when a loop died that must run for ever.
    """
    async with assembled(settings, clock=clock) as sidecar, asyncio.TaskGroup() as group:
        loops = [group.create_task(loop_forever(loop)) for loop in sidecar.loops]
        async with listening(sidecar.ops, sidecar.checks):
            sidecar.lifecycle.enter(Phase.SERVING)
            log.info(
                "answering checks on %s, health and metrics on %s", *map(comma_separated, (sidecar.checks, sidecar.ops))
            )
            if started is not None:
                started(sidecar)
            await stop.wait()
            sidecar.lifecycle.enter(Phase.DRAINING)
            log.info("shutting down")
        for loop in loops:
            loop.cancel()


def comma_separated(listener: Listener) -> str:
    """Return a listener's addresses for people."""
    return ", ".join(listener.addresses)


async def loop_forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must not end."""
    await loop()
    raise RuntimeError("a loop ended that must not")
