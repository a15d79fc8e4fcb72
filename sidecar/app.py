"""Puts the parts together. Read this first.

``assembled`` builds every part once, in order of dependence, and nothing runs; ``serve`` runs them: loops in one task
group, listeners opened last and closed first. A loop that dies ends the process.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import stamina.instrumentation
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from sidecar import __version__
from sidecar.api.changes import ChangeStream
from sidecar.api.checks import Checks
from sidecar.api.guards import head_limit, host_guard, token_guard
from sidecar.api.listening import Site, named
from sidecar.api.ops import Ops, status_of
from sidecar.api.problems import expectation, problems
from sidecar.api.stripe import Stripe
from sidecar.api.webhooks import Webhooks
from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Rules
from sidecar.core.sizing import Needs, Sizing
from sidecar.core.trust import AHEAD
from sidecar.errors import UpstreamError
from sidecar.kit.clock import Clock, steady_clock
from sidecar.kit.lifecycle import Lifecycle, Phase
from sidecar.kit.limiter import Limiter
from sidecar.kit.pulse import Pulse
from sidecar.kit.tasks import Tasks
from sidecar.metrics import Parts, Requests, Upstream, registry
from sidecar.model import Policy
from sidecar.outside import outside
from sidecar.settings import Settings
from sidecar.stripe.client import Manners, StripeClient
from sidecar.stripe.feed import Ears, Feed, Pace
from sidecar.stripe.transport import Transport

log = logging.getLogger(__name__)

BODY = 1 << 20
GRACE = 2.5
"""Seconds that answers under way get when the process shuts down; aiohttp counts them twice."""


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
    webhooks: Listener
    heart: Heart
    client: StripeClient
    feed: Feed
    metrics: CollectorRegistry

    @property
    def listeners(self) -> list[Listener]:
        """Those that have a socket, in the order in which they open."""
        return [listener for listener in (self.ops, self.webhooks, self.checks) if listener.sockets]


@asynccontextmanager
async def assembled(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Sidecar]:
    """Build every part and bind the sockets; nothing runs yet.

    :raises BadSettings: when there is no key, a file cannot be read, or an address cannot be listened on.
    """
    clock = clock or steady_clock()
    async with AsyncExitStack() as stack:
        had = outside(settings, stack.enter_context(ExitStack()))

        lifecycle, pulse = Lifecycle(clock), Pulse(clock)
        limiter = Limiter(
            rate=settings.rate / settings.replicas, burst=max(1.0, settings.burst / settings.replicas), clock=clock
        )
        session = await stack.enter_async_context(upstream_session())
        seed = secrets.randbits(32)
        manners = Manners(settings.stripe_api_base, settings.stripe_version, settings.max_pages, seed=seed)
        client = StripeClient(Transport(session, limiter), had.key, manners, limiter=limiter, clock=clock)

        tasks = Tasks(expected=(UpstreamError,))
        stack.push_async_callback(tasks.close)
        policies = Policies({glob: Policy(policy) for glob, policy in settings.policy.items()})
        rules = Rules(settings.freshness, policies, settings.cache_bytes, seed=secrets.randbits(32))
        heart = Heart.of(client.fetch, client.take_spare, rules, tasks=tasks, clock=clock)
        feed = feed_of(settings, client, heart, clock)
        webhooks = Webhooks(
            had.webhook_secrets,
            livemode=client.livemode,
            hear=partial(heart.news.hear, origin="webhook"),
            hurry=feed.hurry,
            clock=clock,
        )

        needs = Needs(settings.freshness, settings.events_poll, settings.rate / settings.replicas)
        sizing = Sizing(needs, heart.cache, is_fed=lambda: feed.works)

        requests = Requests()
        upstream = Upstream(client, feed, limiter)
        metrics = registry(
            Parts(heart, upstream, webhooks=webhooks.outcomes, requests=requests, pulse=pulse),
        )
        ops = Ops(lifecycle, pulse, status_of(heart, upstream, clock), metrics)

        stream = ChangeStream(heart.changes)
        ways_in = [*Checks(heart).routes(), *Stripe(heart.checker, client).routes(), *stream.routes()]
        counted = [requests.middleware, problems]
        checks_app = application(ways_in, [*counted, *guards(settings, had.token)])
        checks_app.on_shutdown.append(end_waiting(heart))

        yield Sidecar(
            lifecycle,
            [pulse.beat, sizing.run, feed.run] if settings.events_poll else [pulse.beat, sizing.run],
            Listener(checks_app, had.checks),
            Listener(application(ops.routes(), [*counted, head_limit()]), had.ops),
            Listener(application(webhooks.routes(), [*counted, head_limit()]), had.webhooks),
            heart,
            client,
            feed,
            metrics,
        )


def end_waiting(heart: Heart) -> Callable[[web.Application], Awaitable[None]]:
    """Return what lets nobody wait any longer when the process shuts down: for a grant, or for changes."""

    async def end(_: web.Application) -> None:
        heart.changes.close()
        heart.vigil.close()

    return end


def feed_of(settings: Settings, client: StripeClient, heart: Heart, clock: Clock) -> Feed:
    """Return the reading of events, told to ``heart``."""
    if settings.events_poll and settings.events_poll + settings.events_lag > AHEAD * settings.fresh_for:
        log.warning(
            "events_poll and events_lag leave answers up to %g s old: with fresh_for %g s, customers who are asked about "
            "are read one by one between polls; fresh_for above %g s spares those requests",
            settings.events_poll + settings.events_lag,
            settings.fresh_for,
            (settings.events_poll + settings.events_lag) / AHEAD,
        )
    news, asked = heart.news, heart.checker.accounts

    def accounts() -> Iterator[str]:
        """Yield each connected account that was asked about since it was polled last, as long as there is time."""
        for account in sorted(asked):
            asked.discard(account)
            yield account

    return Feed(
        client.events,
        Ears(partial(news.hear, origin="feed"), news.begin, news.advance),
        Pace(settings.events_poll, settings.events_lag),
        livemode=client.livemode,
        accounts=accounts,
        clock=clock,
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
        async with listening(*sidecar.listeners):
            sidecar.lifecycle.enter(Phase.SERVING)
            log.info(
                "answering checks on %s, health and metrics on %s", *map(comma_separated, (sidecar.checks, sidecar.ops))
            )
            if sidecar.webhooks.sockets:
                log.info("taking webhooks on %s", comma_separated(sidecar.webhooks))
            else:
                log.info("taking no webhooks: there is no webhook_secret")
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
