"""Puts the parts together. Read this first.

``assembled`` builds every part once, in order of dependence, and nothing runs; ``serve`` runs them: loops in one task
group, listeners opened last and closed first. A loop that dies ends the process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from sidecar.api.batches import Batches
from sidecar.api.changes import ChangeStream
from sidecar.api.checks import Checks
from sidecar.api.guards import Gate, head_limit
from sidecar.api.ops import Ops, status_of
from sidecar.api.problems import problems
from sidecar.api.request_ids import identified
from sidecar.api.stripe import Stripe
from sidecar.api.webhooks import Webhooks
from sidecar.core.heart import Heart
from sidecar.errors import UpstreamError
from sidecar.kit.clock import Clock, steady_clock
from sidecar.kit.door import Door
from sidecar.kit.lifecycle import Lifecycle, Phase
from sidecar.kit.pulse import Pulse
from sidecar.kit.tasks import Tasks
from sidecar.listeners import Listener, application, end_waiting, listening, quitting
from sidecar.metrics import Parts, Process, Requests, Upstream, registry
from sidecar.outside import outside
from sidecar.parts import feed_of, heart_of, key_check_of, opened_store, shortcuts_of, sizing_of, traced_by, upstream
from sidecar.rotation import Rotation
from sidecar.settings import Settings
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from sidecar.stripe.client import StripeClient
from sidecar.stripe.feed import Feed

log = logging.getLogger(__name__)


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

        limiter, client = await upstream(settings, had.key, stack, clock)
        store = await opened_store(settings, had, stack, clock)
        tasks = Tasks(expected=(UpstreamError,))
        stack.push_async_callback(tasks.close)
        heart = heart_of(settings, client, store, tasks, clock)
        feed = feed_of(settings, client, heart, clock)
        key_check = key_check_of(had.key, client, feed)
        sizing = sizing_of(settings, heart, feed)

        requests, doors = Requests(), {name: Door(had.connections) for name in ("checks", "ops", "webhooks")}
        webhooks = Webhooks(
            had.webhook_secrets.reveal,
            livemode=client.livemode,
            hear=partial(heart.news.keep, origin="webhook"),
            hurry=feed.hurry,
            clock=clock,
        )
        asking = Upstream(client, feed, limiter)
        process = Process(pulse, doors, had.rotation)
        metrics = registry(Parts(heart, asking, store, webhooks=webhooks.outcomes, requests=requests, process=process))
        ops = Ops(lifecycle, pulse, status_of(heart, asking, store, had.rotation, clock), metrics)

        checks, batches, stripe = Checks(heart), Batches(heart.checker), Stripe(heart.checker, client)
        for_ops = [*ops.routes(), *quitting(settings, stop)]
        all_pass = [identified, requests.middleware, problems]
        traced = await traced_by(settings, heart, client, stack, clock)
        gate = Gate(settings.allowed_hosts, None if had.token is None else had.token.reveal)
        checks_app = application(
            [*checks.routes(), *batches.routes(), *stripe.routes(), *ChangeStream(heart.changes).routes()],
            [*traced, *all_pass, head_limit(), gate.guard],
        )
        checks_app.on_shutdown.append(end_waiting(heart))
        short = [part for surface in (checks, stripe, batches) for part in surface.shortcuts(requests.count)]
        shortcuts = shortcuts_of(short, gate, heart, had.rotation, clock)

        yield Sidecar(
            lifecycle,
            [
                pulse.beat,
                sizing.run,
                key_check.run,
                *([feed.run] if settings.events_poll else []),
                *([had.rotation.run] if had.rotation.files else []),
            ],
            Listener(checks_app, had.checks, doors["checks"], shortcuts),
            Listener(application(for_ops, [*all_pass, head_limit()]), had.ops, doors["ops"]),
            Listener(application(webhooks.routes(), [*all_pass, head_limit()]), had.webhooks, doors["webhooks"]),
            heart,
            store,
            client,
            feed,
            had.rotation,
            metrics,
        )


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
            log.info("answering checks on %s, health and metrics on %s", str(sidecar.checks), str(sidecar.ops))
            if sidecar.webhooks.sockets:
                log.info("taking webhooks on %s", str(sidecar.webhooks))
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


async def loop_forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must not end."""
    await loop()
    raise RuntimeError("a loop ended that must not")
