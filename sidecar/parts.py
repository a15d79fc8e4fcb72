"""How the larger parts are made of the settings; ``app`` says in which order, and who holds whom."""

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
from aiohttp.typedefs import Middleware

from sidecar import __version__
from sidecar.api.guards import Gate
from sidecar.api.shortcuts import Posted, Shortcut, Shortcuts
from sidecar.core.checker import Policies
from sidecar.core.heart import Heart, Ports, Rules
from sidecar.core.sizing import Needs, Sizing
from sidecar.core.trust import AHEAD
from sidecar.errors import BadSettings
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Limiter
from sidecar.kit.tasks import Tasks
from sidecar.model import Policy
from sidecar.outside import Outside
from sidecar.rotation import Rotation
from sidecar.settings import Settings
from sidecar.stores.codec import Codec
from sidecar.stores.database import Database
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from sidecar.stripe.client import StripeClient
from sidecar.stripe.feed import Ears, Feed, Pace
from sidecar.stripe.key import ApiKey
from sidecar.stripe.keycheck import KeyCheck
from sidecar.stripe.manners import Manners
from sidecar.stripe.transport import Transport

log = logging.getLogger(__name__)


async def upstream(
    settings: Settings, key: ApiKey, stack: AsyncExitStack, clock: Clock
) -> tuple[Limiter, StripeClient]:
    """Return the budget, this replica's part of it, and what asks Stripe within it."""
    rate, burst = settings.rate / settings.replicas, max(1.0, settings.burst / settings.replicas)
    limiter = Limiter(rate=rate, burst=burst, clock=clock)
    session = await stack.enter_async_context(upstream_session())
    seed = secrets.randbits(32)
    manners = Manners(settings.stripe_api_base, settings.stripe_version, settings.max_pages, seed=seed)
    return limiter, StripeClient(Transport(session, limiter), key, manners, limiter=limiter, clock=clock)


def upstream_session() -> aiohttp.ClientSession:
    """Return the one pool of connections to Stripe. It keeps no cookies."""
    return aiohttp.ClientSession(
        headers={"User-Agent": f"entitlement-sidecar/{__version__}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),  # the limiter is the bound; who has a token must not queue again
    )


async def opened_store(settings: Settings, had: Outside, stack: AsyncExitStack, clock: Clock) -> Memory | Sqlite:
    """Return the store, open if it can be; ``stack`` closes it."""
    if settings.store is None:
        return Memory()
    codec = Codec(had.key.livemode, had.seal)
    database = Database(settings.store, codec, max_bytes=settings.store_bytes)
    store = Sqlite(database, clock=clock)
    stack.push_async_callback(store.close)
    await store.open()
    return store


def heart_of(settings: Settings, client: StripeClient, store: Memory | Sqlite, tasks: Tasks, clock: Clock) -> Heart:
    """Return the heart, with a seed of its own."""
    policies = Policies({glob: Policy(policy) for glob, policy in settings.policy.items()})
    seed, is_fed = secrets.randbits(32), settings.events_poll > 0
    rules = Rules(settings.freshness, policies, settings.cache_bytes, seed, is_fed)
    heart = Heart.of(Ports(client.fetch, client.take_spare, store), rules, tasks=tasks, clock=clock)
    if isinstance(store, Sqlite):
        store.everything = heart.cache.snapshots
    return heart


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

    def advance(account: str | None, until: float) -> None:
        """Move the watermark; the next process may have another clock, so what it goes on from is Stripe's time."""
        news.advance(account, until, kept=until - feed.behind_us)

    feed = Feed(
        client.events,
        Ears(partial(news.hear, origin="feed"), news.begin, advance),
        Pace(settings.events_poll, settings.events_lag),
        livemode=client.livemode,
        accounts=accounts,
        clock=clock,
    )
    for account in heart.watermarks.accounts():
        if until := heart.watermarks.until(account):
            feed.resume(account, until)
    return feed


def sizing_of(settings: Settings, heart: Heart, feed: Feed) -> Sizing:
    """Return what warns when the budget cannot keep the customers young."""
    needs = Needs(settings.freshness, settings.events_poll, settings.rate / settings.replicas)
    return Sizing(needs, heart.cache, is_fed=lambda: feed.works)


def key_check_of(key: ApiKey, client: StripeClient, feed: Feed) -> KeyCheck:
    """Return the trial of the key: at the start, and of each new one."""
    check = KeyCheck(client.probe, client.take_spare, client.health)
    if key.file is not None:
        key.file.then += check.again, feed.health.forget
    return check


def shortcuts_of(
    found: Iterable[Shortcut | Posted], gate: Gate, heart: Heart, rotation: Rotation, clock: Clock
) -> Shortcuts:
    """Return the shortcuts, told when what they have answered holds no longer."""
    shortcuts = Shortcuts(found, gate, heart.checker.ages, clock=clock)
    heart.cache.then.append(shortcuts.forget)
    heart.watermarks.then.append(shortcuts.forget)
    for file in rotation.files:
        file.then.append(shortcuts.distrust)
    return shortcuts


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
