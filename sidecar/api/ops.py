"""Health, status and metrics, on a listener of its own.

None of them asks Stripe. Losing Stripe makes none of them red: a sidecar that still answers must not be taken out of
service, least of all every replica at once.
"""

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sidecar import __version__
from sidecar.api import answers
from sidecar.core.heart import Heart
from sidecar.errors import Malformed, NotAllowed, UpstreamError
from sidecar.kit.breaker import Breaker, State
from sidecar.kit.clock import Clock
from sidecar.kit.lifecycle import Lifecycle, Phase
from sidecar.kit.limiter import Limiter
from sidecar.kit.pulse import Pulse
from sidecar.metrics import Upstream
from sidecar.rotation import Rotation, SecretFile
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from sidecar.stripe.client import StripeClient
from sidecar.stripe.feed import Feed
from sidecar.stripe.health import Failure, Health

LIVELY = 5.0
"""Seconds by which the event loop may be late before the process counts as hung."""


class Ops:
    """The handlers."""

    def __init__(
        self, lifecycle: Lifecycle, pulse: Pulse, status: Callable[[], dict[str, Any]], registry: CollectorRegistry
    ) -> None:
        self._lifecycle = lifecycle
        self._pulse = pulse
        self._status = status
        self._registry = registry

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this surface."""
        return [
            web.get("/livez", self.livez),
            web.get("/startupz", self.startupz),
            web.get("/readyz", self.readyz),
            web.get("/status", self.status),
            web.get("/metrics", self.metrics),
        ]

    async def livez(self, _: web.Request) -> web.Response:
        """Tell whether the event loop answers in time."""
        lag = self._pulse.overdue()
        return verdict(lag < LIVELY, event_loop_lag_seconds=round(lag, 3))

    async def startupz(self, _: web.Request) -> web.Response:
        """Tell whether checks are being answered, or have been."""
        return verdict(self._lifecycle.phase >= Phase.SERVING, **self._phase())

    async def readyz(self, _: web.Request) -> web.Response:
        """Tell whether this process wants traffic; no longer once it shuts down."""
        return verdict(self._lifecycle.phase is Phase.SERVING, **self._phase())

    async def status(self, _: web.Request) -> web.Response:
        """Say what works, what does not, why and since when; nothing of any customer."""
        started_at = answers.moment(self._lifecycle.started_at)
        return answers.json({"version": __version__, "started_at": started_at, **self._phase(), **self._status()})

    async def metrics(self, request: web.Request) -> web.Response:
        """Give the metrics in the text format that the scraper prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    def _phase(self) -> dict[str, Any]:
        return {"phase": self._lifecycle.phase.name.lower(), "since": answers.moment(self._lifecycle.since)}


class Quit:
    """The handler that ends the process, for jobs whose other containers end first; ``stop`` does what TERM does."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.post("/quitquitquit", self.quit)]

    async def quit(self, request: web.Request) -> web.StreamResponse:
        """Answer, then let the process end.

        A browser can be made to send this by any page, but not without saying where that page is from (``Origin``).
        """
        if "Origin" in request.headers:
            raise NotAllowed("origin_not_allowed", "Origin: browsers may not ask for this")
        if request.body_exists:
            raise Malformed("body", "must be empty")
        response = answers.json({"ok": True}, answers.no_store())
        await response.prepare(request)
        await response.write_eof()
        self._stop()
        return response


def verdict(good: bool, **why: Any) -> web.Response:  # noqa: FBT001 -- the one thing it says
    """Return 200 or 503, and why."""
    return answers.json({"ok": good, **why}, status=200 if good else 503)


def status_of(
    heart: Heart, upstream: Upstream, store: Memory | Sqlite, secrets: Rotation, clock: Clock
) -> Callable[[], dict[str, Any]]:
    """Return a function that reads the parts' state."""
    client, feed, limiter = upstream
    cache, refresher, freshness = heart.cache, heart.refresher, heart.checker.freshness

    def read() -> dict[str, Any]:
        return {
            "now": answers.moment(clock()),
            "stripe": say_health(client.health),
            "feed": say_feed(feed, heart),
            "store": say_store(store),
            "key": say_key(client, feed),
            "secrets": {file.secret: say_secret(file) for file in secrets.files},
            "freshness": {"fresh_for": freshness.fresh_for, "stale_for": freshness.stale_for_by_glob},
            "cache": {
                "customers": len(cache),
                "bytes": cache.bytes,
                "max_bytes": cache.max_bytes,
                "evictions": cache.evictions,
            },
            "flights": {"in_the_air": refresher.in_the_air(), "deferred": refresher.deferred},
            "budget": say_budget(limiter),
            "breakers": {operation: say_breaker(breaker) for operation, breaker in client.breakers.items()},
        }

    return read


def say_store(store: Memory | Sqlite) -> dict[str, Any]:
    """Return whether there is memory beyond this process, and whether it works."""
    if isinstance(store, Memory):
        return {"state": "off"}
    trouble = store.trouble
    return {
        "state": "ok" if trouble is None else trouble.code,
        "since": answers.moment(store.since),
        "detail": None if trouble is None else trouble.detail,
        "bytes": store.bytes,
        "max_bytes": store.max_bytes,
        "pending": store.pending,
    }


MAY = {True: "granted", False: "missing", None: "unknown"}


def say_key(client: StripeClient, feed: Feed) -> dict[str, Any]:
    """Return the API key's mode, and what it may do as far as Stripe has shown."""
    permissions = {health.needs: MAY[health.may_read] for health in (client.health, feed.health)}
    return {"mode": "live" if client.livemode else "test", "permissions": permissions}


def say_secret(file: SecretFile) -> dict[str, Any]:
    """Return since when what is in a file is in use, and why it could not be used, if that ever was so."""
    problem = None
    if file.problem is not None:
        at, why, solved_at = file.problem.at, file.problem.why, file.problem.solved_at
        solved = None if solved_at is None else answers.moment(solved_at)
        problem = {"at": answers.moment(at), "detail": why, "solved_at": solved}
    return {"in_use_since": answers.moment(file.since), "last_problem": problem}


def say_budget(limiter: Limiter) -> dict[str, Any]:
    """Return how many requests may be sent to Stripe, and since when fewer than are configured."""
    bucket = limiter.bucket
    rate = bucket.rate
    return {
        "left": int(limiter.left),
        "rate": round(rate, 3),
        "configured_rate": bucket.configured,
        "slowed_since": None if bucket.slowed_at is None else answers.moment(bucket.slowed_at),
        "burst": bucket.burst,
        "waiting": limiter.waiting,
        "refused": limiter.refused,
        "throttled": bucket.throttled,
    }


def say_breaker(breaker: Breaker) -> dict[str, Any]:
    """Return whether requests are let through, since when, and why not."""
    state, cause = breaker.state, breaker.cause
    why = None if cause is None or state is State.CLOSED else {**say_error(cause), "status": cause.status}
    return {"state": state, "since": answers.moment(breaker.since), "last_failure": why}


def say_error(error: UpstreamError | Failure) -> dict[str, Any]:
    """Return what an error was, and what it said where that is ours to tell."""
    ours = error.code in OURS_TO_TELL
    return {"code": error.code, "detail": ACCOUNT.sub("acct_…", error.detail) if ours else None}


def say_feed(feed: Feed, heart: Heart) -> dict[str, Any]:
    """Return how far news can be trusted to have come: up to the watermark every change is known."""
    until = heart.watermarks.until(None)
    health = say_health(feed.health) if feed.every else {"state": "off"}
    return {
        **health,
        "watermark": None if until is None else answers.moment(until),
        "gaps": feed.polls["gap"],
        "dirty": len(heart.schedule),
        "audit_differences": heart.audit.differences,
    }


ACCOUNT = re.compile(r"\bacct_\w+")
OURS_TO_TELL = ("key_rejected", "permission_missing", "unreachable")
"""Failures whose detail cannot name a customer: it is about the key or the network. The log has the others'."""


def say_health(health: Health) -> dict[str, Any]:
    """Return what is known of Stripe's health."""
    last = health.last_failure
    failure = None
    if last is not None:
        failure = {
            "at": answers.moment(last.at),
            **say_error(last),
            "status": last.status,
            "request_id": last.request_id,
        }
    return {"state": health.state, "since": answers.moment(health.since), "last_failure": failure}
