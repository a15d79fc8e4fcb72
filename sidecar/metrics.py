"""Every metric by name, read from the parts' plain integers at scrape.

No label's value ever comes from a caller: reasons, sources, outcomes, statuses and routes are fixed sets. All but the
pairs of route and status are there from the start, at zero, so that a rate has something to begin from.
"""

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from math import inf
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.core.heart import Heart
from sidecar.kit.breaker import State
from sidecar.kit.door import Door
from sidecar.kit.limiter import Limiter
from sidecar.kit.pulse import Pulse
from sidecar.kit.tally import Count, Tally
from sidecar.rotation import Rotation
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from sidecar.stripe.client import StripeClient
from sidecar.stripe.feed import Feed

PREFIX = "entitlement_sidecar_"


class Requests:
    """Counts answered requests by route template and status; a middleware of each listener."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, int], Count] = defaultdict(Count)

    def count(self, route: str, status: int = HTTPStatus.OK) -> Count:
        """Return what is counted up for each such answer."""
        return self._counts[route, status]

    @property
    def counts(self) -> dict[tuple[str, int], int]:
        """Answers given, by route template and status."""
        return {key: count.n for key, count in self._counts.items() if count.n}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count the answer to ``request``."""
        response = await handler(request)
        resource = request.match_info.route.resource
        self.count("other" if resource is None else resource.canonical, response.status).n += 1
        return response


class Upstream(NamedTuple):
    """The parts that ask Stripe."""

    client: StripeClient
    feed: Feed
    limiter: Limiter


class Process(NamedTuple):
    """What is ours of the process, whatever it is asked: its event loop, each listener's door by name, its secrets."""

    pulse: Pulse
    doors: Mapping[str, Door]
    secrets: Rotation


class Parts(Collector):
    """Reads the parts. The order here is the order of the page and of the README's table."""

    def __init__(
        self,
        heart: Heart,
        upstream: Upstream,
        store: Memory | Sqlite,
        *,
        webhooks: Mapping[str, int],
        requests: Requests,
        process: Process,
    ) -> None:
        self._heart = heart
        self._upstream = upstream
        self._store = store
        self._webhooks = webhooks
        self._requests = requests
        self._process = process

    def collect(self) -> Iterator[Metric]:
        """Read every metric."""
        yield from self._answers()
        yield from self._asking()
        yield from self._news()
        yield from self._kept()
        yield from self._inside()

    def _answers(self) -> Iterator[Metric]:
        checker = self._heart.checker
        yield counter("checks", "Checks answered.", ("reason", "source"), checker.decisions)
        yield histogram(
            "check_duration_seconds", "Time from question to decision, where memory was not enough.", checker.durations
        )
        yield histogram("answer_age_seconds", "Age of the information in served answers.", checker.ages)
        yield gauge("fresh_for_seconds", "Age up to which an answer is fresh.", checker.freshness.fresh_for)
        yield counter(
            "policy_answers", "Checks answered by policy, knowing nothing.", ("policy",), checker.policy_answers
        )
        yield gauge("waiting_callers", "Callers who wait for a grant.", self._heart.vigil.waiting)
        yield counter(
            "waits_refused", "Callers answered at once as too many were waiting.", (), self._heart.vigil.refused
        )
        yield counter("http_requests", "Requests answered.", ("route", "status"), self._requests.counts)

    def _asking(self) -> Iterator[Metric]:
        refresher, (client, _, limiter) = self._heart.refresher, self._upstream
        yield counter("flights", "Refreshes of a customer, by how they ended.", ("outcome",), refresher.outcomes)
        yield gauge("flights_in_the_air", "Refreshes under way.", refresher.in_the_air())
        yield counter(
            "flights_deferred", "Background refreshes that the budget had nothing left for.", (), refresher.deferred
        )
        yield histogram("flight_pages", "Pages read per refresh.", refresher.pages)
        yield counter("upstream_requests", "Requests to Stripe.", ("operation", "status"), client.requests)
        yield histogram("upstream_duration_seconds", "Time that Stripe took to answer.", client.durations)
        failing = 0 if client.health.state in ("ok", "untried") else 1
        yield gauge("upstream_failing", "1 while the last request to Stripe came to nothing.", failing)
        yield gauge("budget_left_requests", "Requests to Stripe that could be sent at once.", limiter.left)
        yield from self._budget()
        yield from self._breakers()

    def _budget(self) -> Iterator[Metric]:
        limiter, bucket = self._upstream.limiter, self._upstream.limiter.bucket
        yield gauge("budget_rate_requests_per_second", "Requests to Stripe that the budget allows now.", bucket.rate)
        yield gauge(
            "budget_configured_rate_requests_per_second", "Those that it allows unless slowed.", bucket.configured
        )
        yield counter("budget_refused", "Requests that the budget had no room for in time.", (), limiter.refused)
        yield counter("budget_throttled", "Refusals of Stripe's rate limiters.", (), bucket.throttled)
        yield histogram(
            "budget_wait_seconds",
            "Time that requests waited for the budget.",
            {(urgency.name.lower(),): tally for urgency, tally in limiter.waited.items()},
            ("class",),
        )

    def _breakers(self) -> Iterator[Metric]:
        breakers = self._upstream.client.breakers
        states = GaugeMetricFamily(
            f"{PREFIX}breaker_state", "1 for the state that a breaker is in.", labels=("operation", "state")
        )
        for operation, breaker in sorted(breakers.items()):
            for state in State:
                states.add_metric((operation, state), breaker.state is state)
        yield states
        opened = {operation: breaker.opened for operation, breaker in breakers.items()}
        yield counter(
            "breaker_opened", "Times that all requests failed and none was sent for a while.", ("operation",), opened
        )

    def _news(self) -> Iterator[Metric]:
        heart, feed = self._heart, self._upstream.feed
        yield gauge("feed_lag_seconds", "Time since every change is known; +Inf before, NaN when off.", feed.behind())
        yield counter("feed_polls", "Readings of Stripe's events, by how they ended.", ("outcome",), feed.polls)
        yield counter(
            "feed_news", "Events heard of, by who told and what followed.", ("origin", "effect"), heart.news.counts
        )
        yield gauge("feed_dirty_customers", "Customers with news that wait to be read again.", len(heart.schedule))
        yield counter("feed_reflights", "Refreshes overtaken by news and so repeated.", (), heart.refresher.overtaken)
        yield counter(
            "feed_second_looks", "Lists that news had not changed, read once more.", (), heart.schedule.second_looks
        )
        yield counter("feed_audits", "Lists read again although no event told of a change.", (), heart.audit.checked)
        yield counter("feed_audit_differences", "Those that had changed all the same.", (), heart.audit.differences)
        yield counter("webhooks", "Webhook requests, by what became of them.", ("outcome",), self._webhooks)
        yield counter("changes", "Lookup keys that came or went.", ("kind",), heart.changes.counts)
        yield gauge("changes_subscribers", "Readers of the stream of changes.", heart.changes.subscribers)

    def _kept(self) -> Iterator[Metric]:
        store = self._store
        yield gauge("store_failing", "1 while the store is of no use.", 0 if store.trouble is None else 1)
        yield counter("store_losses", "Times that it became so, by why.", ("code",), store.losses)
        yield counter("store_reads", "Customers looked for in the store, by what was found.", ("outcome",), store.reads)
        yield counter("store_written", "Changes written to the store.", (), store.written)
        yield gauge("store_pending", "Changes that are not written yet.", store.pending)
        yield gauge("store_bytes", "Bytes of the store in use.", store.bytes)
        yield gauge("store_max_bytes", "Bytes that may be used, about.", store.max_bytes)
        yield counter("store_pruned", "Customers dropped from the store for lack of room.", (), store.pruned)

    def _inside(self) -> Iterator[Metric]:
        cache = self._heart.cache
        yield gauge("cache_customers", "Customers remembered.", len(cache))
        yield gauge("cache_bytes", "Memory used for them.", cache.bytes)
        yield gauge("cache_max_bytes", "Memory that may be used for them.", cache.max_bytes)
        yield counter("cache_evictions", "Customers forgotten for lack of memory.", (), cache.evictions)
        connections = GaugeMetricFamily(f"{PREFIX}connections", "Open connections.", labels=("listener",))
        for name, door in self._process.doors.items():
            connections.add_metric((name,), len(door))
        yield connections
        closed = {(name, why): n for name, door in self._process.doors.items() for why, n in door.shown_out.items()}
        yield counter(
            "connections_closed", "Connections closed against the other side's will.", ("listener", "reason"), closed
        )
        reloaded = self._process.secrets.counts
        yield counter("secrets_reloaded", "Files with secrets read again.", ("secret", "outcome"), reloaded)
        yield gauge(
            "tasks", "One-off pieces of work under way: refreshes, and what follows news.", len(self._heart.tasks)
        )
        yield gauge("event_loop_lag_seconds", "Time by which the event loop is late.", self._process.pulse.overdue())
        build = GaugeMetricFamily(f"{PREFIX}build_info", "Which version this is.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build


def counter(name: str, meaning: str, labels: Iterable[str], counts: Mapping[Any, int] | int) -> Metric:
    """Return a counter; ``counts`` has a value per combination of label values, or is the only value."""
    family = CounterMetricFamily(PREFIX + name, meaning, labels=tuple(labels))
    if isinstance(counts, int):
        family.add_metric((), counts)
        return family
    for values, count in sorted(counts.items(), key=lambda item: str(item[0])):
        family.add_metric(tuple(map(str, values)) if isinstance(values, tuple) else (str(values),), count)
    return family


def gauge(name: str, meaning: str, value: float) -> Metric:
    """Return a gauge."""
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def histogram(
    name: str, meaning: str, tallies: Tally | Mapping[tuple[str, ...], Tally], labels: Iterable[str] = ()
) -> Metric:
    """Return a histogram; of several ``tallies``, one per combination of label values."""
    family = HistogramMetricFamily(PREFIX + name, meaning, labels=tuple(labels))
    for values, tally in {(): tallies}.items() if isinstance(tallies, Tally) else tallies.items():
        buckets = [("+Inf" if bound == inf else repr(float(bound)), count) for bound, count in tally.cumulative()]
        family.add_metric(values, buckets, tally.sum)
    return family


def registry(parts: Parts) -> CollectorRegistry:
    """Return a registry of our metrics and the process's own (memory, descriptors, CPU)."""
    found = CollectorRegistry()
    found.register(parts)
    ProcessCollector(registry=found)
    return found
