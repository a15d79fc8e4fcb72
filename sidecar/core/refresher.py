"""The write road: one flight per customer, and the only writer of the cache.

A flight is never cancelled by those who wait for it; they may leave, it lands all the same. One that news overtakes
lands dirty: what it read may be from before the news. What it came to is kept for the customers asked about last, so
that an answer can be explained.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Final

from sidecar.core.cache import Cache, with_news
from sidecar.errors import Defect, UpstreamError
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Urgency
from sidecar.kit.singleflight import SingleFlight
from sidecar.kit.tally import Tally
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Flight, Snapshot

log = logging.getLogger(__name__)

Fetch = Callable[[Customer, Flight], Coroutine[Any, Any, Snapshot]]
"""Read one customer's complete list, writing the flight's log; raises ``UpstreamError``."""

Sink = Callable[[Snapshot | None, Snapshot], None]
"""Told of every list that takes a place in the cache, after the one it replaces; a plain function that does not fail."""

OUTCOMES: Final = (
    "landed", "unknown_customer", "wrong_mode", "key_rejected", "permission_missing", "request_rejected", "throttled", "broken",
    "unreachable", "over_budget", "circuit_open", "cancelled", "internal",
)  # fmt: skip
"""Every way in which a flight can end, in a metric's fixed set of label values."""

HOLD_OFF = 1.0

TROUBLED = 60.0
"""Seconds for which a flight that came to nothing says what the next attempt is likely to come to."""

HISTORY = 1024
"""Customers whose last flight is remembered for explaining: some half a megabyte, five where all went badly."""


class Refresher:
    """Renew customers' snapshots through ``fetch``.

    ``take_spare`` takes a request that the budget has left over, for a refresh that nobody waits for, unless it would be
    in vain; after a failed
    flight a customer is left alone for ``HOLD_OFF`` seconds by such refreshes.
    """

    def __init__(
        self,
        fetch: Fetch,
        cache: Cache,
        *,
        clock: Clock,
        tasks: Tasks,
        take_spare: Callable[[], bool],
    ) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.pages = Tally([1, 2, 3, 5, 10, 25, 50, 100])
        self.deferred = 0
        self.overtaken = 0
        self.sinks: list[Sink] = []
        self._fetch = fetch
        self._cache = cache
        self._clock = clock
        self._take_spare = take_spare
        self._prepaid: set[Customer] = set()
        self._urgency: dict[Customer, Urgency] = {}
        self._tasks = tasks
        self._in_the_air: dict[Customer, Flight] = {}
        self._landings: dict[Customer, asyncio.Future[Snapshot | None]] = {}
        self._flights = SingleFlight(self._fly, tasks)
        self._wanted: dict[Customer, float] = {}
        self._history: OrderedDict[Customer, Flight] = OrderedDict()

    def in_the_air(self) -> int:
        """Return how many flights are under way."""
        return len(self._flights)

    def is_flying(self, customer: Customer) -> bool:
        """Tell whether a flight for ``customer`` is under way."""
        return customer in self._flights

    def last_flight(self, customer: Customer) -> Flight | None:
        """Return the log of the customer's last flight, under way or landed, unless it was too long ago."""
        return self._history.get(customer)

    def trouble(self, customer: Customer) -> UpstreamError | None:
        """Return why the last attempt came to nothing, if it did, and that was not long ago."""
        last = self._history.get(customer)
        if last is None or last.trouble is None:
            return None
        if last.landed is not None and self._clock() - last.landed > TROUBLED:
            return None
        kind, detail = last.trouble
        return kind(detail)

    def heard(self, customer: Customer, at: float) -> bool:
        """Mark what is known of ``customer``, or is just being read, as from before the news; tell whether any is."""
        flight = self._in_the_air.get(customer)
        if flight is not None:
            flight.dirty = self._cache.dirty(Snapshot(customer, flight.took_off, dirty=flight.dirty), at)
        return self._cache.mark(customer, at) or flight is not None

    def landing(self, customer: Customer) -> asyncio.Future[Snapshot | None]:
        """Return a future that is done once a flight of ``customer`` has ended: what it brought, None when nothing."""
        found = self._landings.get(customer)
        if found is None:
            found = self._landings[customer] = asyncio.get_running_loop().create_future()
        return found

    def release(self) -> None:
        """Let all who wait for a landing go on: the process is shutting down."""
        landings, self._landings = self._landings, {}
        for landing in landings.values():
            landing.set_result(None)

    def nudge(self, customer: Customer, urgency: Urgency = Urgency.BACKGROUND) -> None:
        """Refresh without waiting, unless a flight is under way, just failed, or the budget has nothing to spare.

        ``urgency`` is that of its later pages and attempts.
        """
        if customer in self._flights:
            self._raise(customer, urgency)
            return
        last = self._history.get(customer)
        if last is not None and last.detail is not None and self._clock() - (last.landed or inf) < HOLD_OFF:
            return
        if self._take_spare():
            self._prepaid.add(customer)
            self._raise(customer, urgency)
            self._flights.start(customer)
        else:
            self.deferred += 1

    async def renew(self, customer: Customer, *, since: float = -inf, urgency: Urgency = Urgency.CALLER) -> Snapshot:
        """Return a snapshot whose information is no older than ``since``, by one flight or at most two.

        A flight that was in the air when the caller came may have asked Stripe too early for it; then the next one,
        shared by all who came too late for the first, will do. A flight is as urgent as the most urgent who wait for it.

        :raises UpstreamError: when the flight came to nothing.
        """
        too_early = customer in self._flights and self._took_off(customer) < since
        try:
            snapshot = await self._join(customer, urgency)
        except UpstreamError:
            if not too_early:
                raise
        else:
            if not too_early or snapshot.taken_at >= since:
                return snapshot
        return await self._join(customer, urgency)

    def _join(self, customer: Customer, urgency: Urgency) -> asyncio.Future[Snapshot]:
        self._raise(customer, urgency)
        return asyncio.shield(self._flights.join(customer))

    def _raise(self, customer: Customer, urgency: Urgency) -> None:
        """Make the flight under way, or else the one that takes off next, at least so urgent."""
        flight = self._in_the_air.get(customer)
        if flight is None:
            self._urgency[customer] = max(urgency, self._urgency.get(customer, urgency))
        else:
            flight.urgency = max(urgency, flight.urgency)

    def _took_off(self, customer: Customer) -> float:
        """Return when the flight that is under way took off: now, if its task has not begun yet."""
        flight = self._in_the_air.get(customer)
        return self._clock() if flight is None else flight.took_off

    def renew_soon(self, customer: Customer) -> None:
        """See to it that a flight takes off from now on, without waiting for it; many calls share one.

        It is as urgent as news: whoever calls has reason to think that something changed.
        """
        under_way = customer in self._wanted
        self._wanted[customer] = self._clock()
        if not under_way:
            _ = self._tasks.start(self._keep_up(customer), name=f"renew {customer}")

    async def _keep_up(self, customer: Customer) -> None:
        renewed = -inf
        try:
            while (since := self._wanted[customer]) > renewed:
                await self.renew(customer, since=since, urgency=Urgency.NEWS)
                renewed = since
        finally:
            del self._wanted[customer]

    async def _fly(self, customer: Customer) -> Snapshot:
        brought = None
        try:
            brought = self._keep(await self._read(customer))
            return brought
        finally:
            landing = self._landings.pop(customer, None)
            if landing is not None:
                landing.set_result(brought)

    async def _read(self, customer: Customer) -> Snapshot:
        flight = self._log(customer)
        try:
            snapshot = await self._fetch(customer, flight)
            flight.outcome = "landed" if snapshot.unknown is None else snapshot.unknown.code
            flight.trouble = None
        except asyncio.CancelledError:
            flight.outcome, flight.detail = "cancelled", "the process is shutting down"
            raise
        except UpstreamError as error:
            flight.outcome, flight.detail = error.code, str(error)
            raise
        except Exception as error:
            log.exception("a flight failed in a way that nobody expected")
            flight.outcome, flight.detail = Defect.code, "a defect; the log has the traceback"
            raise Defect(flight.detail) from error
        finally:
            self._ended(customer, flight)
        snapshot = with_news(snapshot, flight.dirty)
        self.overtaken += snapshot.dirty is not None
        return snapshot

    def _keep(self, snapshot: Snapshot) -> Snapshot:
        """Put ``snapshot`` into the cache and tell the sinks; return what is the newest now."""
        old = self._cache.get(snapshot.customer)
        if self._cache.put(snapshot):
            for sink in self.sinks:
                sink(old, snapshot)
        return self._cache.get(snapshot.customer) or snapshot

    def _log(self, customer: Customer) -> Flight:
        flight = Flight(
            self._clock(), urgency=self._urgency.pop(customer, Urgency.BACKGROUND), prepaid=customer in self._prepaid
        )
        self._in_the_air[customer] = flight
        self._prepaid.discard(customer)
        trouble = self.trouble(customer)
        if trouble is not None:  # this flight has not fared better yet
            flight.trouble = type(trouble), trouble.detail
        self._history[customer] = flight
        self._history.move_to_end(customer)
        while len(self._history) > HISTORY:
            self._history.popitem(last=False)
        return flight

    def _ended(self, customer: Customer, flight: Flight) -> None:
        del self._in_the_air[customer]
        flight.landed = self._clock()
        self.outcomes[flight.outcome or Defect.code] += 1
        if flight.pages:
            self.pages.add(flight.pages)
