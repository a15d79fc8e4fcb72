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
from sidecar.api.listening import Served, named
from sidecar.api.ops import Ops, Quit, status_of
from sidecar.api.problems import expectation, problems
from sidecar.api.request_ids import identified
from sidecar.api.stripe import Stripe
from sidecar.api.webhooks import Webhooks
from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.core.trust import AHEAD
from sidecar.errors import BadSettings, UpstreamError
from sidecar.kit.clock import Clock, steady_clock
from sidecar.kit.door import Door
from sidecar.kit.lifecycle import Lifecycle, Phase
from sidecar.kit.limiter import Limiter
from sidecar.kit.pulse import Pulse
from sidecar.kit.tasks import Tasks
from sidecar.metrics import Parts, Process, Requests, Upstream, registry
from sidecar.model import Policy
from sidecar.outside import Outside, outside
from sidecar.rotation import Held, Rotation
from sidecar.settings import Settings
from sidecar.stores.codec import Codec
from sidecar.stores.database import Database
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from sidecar.stripe.client import Manners, StripeClient
from sidecar.stripe.feed import Ears, Feed, Pace
from sidecar.stripe.keycheck import KeyCheck
from sidecar.stripe.transport import Transport

log = logging.getLogger(__name__)

BODY = 1 << 20


@dataclass(frozen=True)
class Listener:
    """An application, the sockets it is served on, and who is let in."""

    app: web.Application
    sockets: list[socket.socket]
    door: Door

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
    store: Memory | Sqlite
    client: StripeClient
    feed: Feed
    rotation: Rotation
    metrics: CollectorRegistry

    @property
    def listeners(self) -> list[Listener]:
        """Those that have a socket, in the order in which they open; health is the first to open and the last to close."""
        return [listener for listener in (self.ops, self.webhooks, self.checks) if listener.sockets]


@asynccontextmanager
async def assembled(
    settings: Settings, *, clock: Clock | None = None, stop: Callable[[], None] | None = None
) -> AsyncIterator[Sidecar]:
    """Build every part and bind the sockets; nothing runs yet. ``stop`` ends the process well.

    :raises BadSettings: when there is no key, a file cannot be read, or an address cannot be listened on.
    """
    clock = clock or steady_clock()
    async with AsyncExitStack() as stack:
        had = outside(settings, stack.enter_context(ExitStack()), clock=clock)

        lifecycle, pulse = Lifecycle(clock), Pulse(clock)
        limiter = Limiter(
            rate=settings.rate / settings.replicas, burst=max(1.0, settings.burst / settings.replicas), clock=clock
        )
        session = await stack.enter_async_context(upstream_session())
        seed = secrets.randbits(32)
        manners = Manners(settings.stripe_api_base, settings.stripe_version, settings.max_pages, seed=seed)
        client = StripeClient(Transport(session, limiter), had.key, manners, limiter=limiter, clock=clock)

        store = await opened_store(settings, had, stack, clock=clock)
        tasks = Tasks(expected=(UpstreamError,))
        stack.push_async_callback(tasks.close)
        policies = Policies({glob: Policy(policy) for glob, policy in settings.policy.items()})
        rules = Rules(settings.freshness, policies, settings.cache_bytes, seed=secrets.randbits(32))
        heart = Heart.of(Ports(client.fetch, client.take_spare, store), rules, tasks=tasks, clock=clock)
        if isinstance(store, Sqlite):
            store.everything = heart.cache.snapshots
        feed = feed_of(settings, client, heart, clock)
        check = KeyCheck(client.probe, client.take_spare, client.health)
        if had.key.file is not None:
            had.key.file.then += check.again, feed.health.forget
        webhooks = Webhooks(
            had.webhook_secrets.reveal,
            livemode=client.livemode,
            hear=partial(heart.news.keep, origin="webhook"),
            hurry=feed.hurry,
            clock=clock,
        )

        doors = {name: Door(had.connections) for name in ("checks", "ops", "webhooks")}
        requests = Requests()
        upstream = Upstream(client, feed, limiter)
        metrics = registry(
            Parts(
                heart,
                upstream,
                store,
                webhooks=webhooks.outcomes,
                requests=requests,
                process=Process(pulse, doors, had.rotation),
            ),
        )
        ops = Ops(lifecycle, pulse, status_of(heart, upstream, store, had.rotation, clock), metrics)

        stream = ChangeStream(heart.changes)
        ways_in = [*Checks(heart).routes(), *Stripe(heart.checker, client).routes(), *stream.routes()]
        counted = [identified, requests.middleware, problems]
        traced = await traced_by(settings, heart, client, stack, clock)
        checks_app = application(ways_in, [*traced, *counted, *guards(settings, had.token)])
        checks_app.on_shutdown.append(end_waiting(heart))

        yield Sidecar(
            lifecycle,
            [
                pulse.beat,
                check.run,
                *([feed.run] if settings.events_poll else []),
                *([had.rotation.run] if had.rotation.files else []),
            ],
            Listener(checks_app, had.checks, doors["checks"]),
            Listener(
                application([*ops.routes(), *quitting(settings, stop)], [*counted, head_limit()]), had.ops, doors["ops"]
            ),
            Listener(application(webhooks.routes(), [*counted, head_limit()]), had.webhooks, doors["webhooks"]),
            heart,
            store,
            client,
            feed,
            had.rotation,
            metrics,
        )


def quitting(settings: Settings, stop: Callable[[], None] | None) -> list[web.RouteDef]:
    """Return the way to end the process by a request, where that is wanted."""
    return Quit(stop).routes() if stop is not None and settings.quit_endpoint else []


async def opened_store(settings: Settings, had: Outside, stack: AsyncExitStack, *, clock: Clock) -> Memory | Sqlite:
    """Return the store, open if it can be; ``stack`` closes it."""
    if settings.store is None:
        return Memory()
    codec = Codec(had.key.livemode, had.seal)
    database = Database(settings.store, codec, max_bytes=settings.store_bytes)
    store = Sqlite(database, clock=clock)
    stack.push_async_callback(store.close)
    await store.open()
    return store


async def traced_by(
    settings: Settings, heart: Heart, client: StripeClient, stack: AsyncExitStack, clock: Clock
) -> list[Middleware]:
    """Have questions that leave memory traced, if that is wanted; return what has to see them come.

    :raises BadSettings: when the libraries for it are not there.
    """
    if not settings.traces:
        return []
    try:
        from sidecar.tracing import tracing_to_otlp  # noqa: PLC0415 -- an extra's, and slow to import
    except ModuleNotFoundError as missing:
        if not str(missing.name).startswith("opentelemetry"):
            raise
        raise BadSettings(["SIDECAR_TRACES: needs the extra otel: pip install 'entitlement-sidecar[otel]'"]) from None
    tracing = tracing_to_otlp(clock)
    stack.push_async_callback(tracing.close)
    heart.checker.span = client.span = tracing.span
    return [tracing.middleware]


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

    feed = Feed(
        client.events,
        Ears(partial(news.hear, origin="feed"), news.begin, news.advance),
        Pace(settings.events_poll, settings.events_lag),
        livemode=client.livemode,
        accounts=accounts,
        clock=clock,
    )
    for account in heart.watermarks.accounts():
        feed.resume(account, heart.watermarks.until(account) or 0.0)
    return feed


def upstream_session() -> aiohttp.ClientSession:
    """Return the one pool of connections to Stripe. It keeps no cookies."""
    stamina.instrumentation.set_on_retry_hooks([])  # else the first retry registers a metric of its own, globally
    return aiohttp.ClientSession(
        headers={"User-Agent": f"entitlement-sidecar/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),  # the limiter is the bound; who has a token must not queue again
    )


def guards(settings: Settings, token: Held[str] | None) -> list[Middleware]:
    """Return what a request for checks has to pass."""
    found = [head_limit(), host_guard(settings.allowed_hosts)]
    return found if token is None else [*found, token_guard(token.reveal)]


def application(routes: list[web.RouteDef], middlewares: list[Middleware]) -> web.Application:
    """Return an application that takes small bodies."""
    found = web.Application(client_max_size=BODY, middlewares=middlewares)
    for route in routes:
        options = {**route.kwargs, "expect_handler": expectation}
        found.add_routes([web.RouteDef(route.method, route.path, route.handler, options)])
    return found


@asynccontextmanager
async def listening(*listeners: Listener, drain_timeout: float = 5.0) -> AsyncIterator[None]:
    """Serve ``listeners``; on leaving, drain all but the first together, and then the first, within one time."""
    async with AsyncExitStack() as stack:
        served: list[Served] = []
        for listener in listeners:
            one = Served(listener.app, listener.door)
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


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    started: Callable[[Sidecar], None] | None = None,
    clock: Clock | None = None,
) -> None:
    """Run until ``stop`` is set; ``started`` is told once checks are answered.

    The end is the start backwards: listeners drain and close, loops end, then ``assembled`` closes its parts, the last
    built first. What a part has to save when it closes is therefore all there is to save.

    :raises BadSettings: when a part cannot be built.
    :raises ExceptionGroup: when a loop died that must run for ever.
    """
    async with assembled(settings, clock=clock, stop=stop.set) as sidecar, asyncio.TaskGroup() as group:
        loops = [group.create_task(loop_forever(loop)) for loop in sidecar.loops]
        async with listening(*sidecar.listeners, drain_timeout=settings.drain_timeout):
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
            try:
                await stop.wait()
                log.info("shutting down")
            finally:  # also when a loop died
                sidecar.lifecycle.enter(Phase.DRAINING)
        for loop in loops:
            loop.cancel()


def comma_separated(listener: Listener) -> str:
    """Return a listener's addresses for people."""
    return ", ".join(listener.addresses)


async def loop_forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must not end."""
    await loop()
    raise RuntimeError("a loop ended that must not")
