"""Memory beyond this process: who is not in the cache may be in the store.

What comes from there is as old as it is, and as dirty; it takes the place in the cache that it would have if it had
never left. A read of the store is shared by all who wait for it.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from sidecar.core.cache import Cache
from sidecar.core.schedule import Schedule
from sidecar.kit.singleflight import SingleFlight
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Snapshot, Spans


class Store(Protocol):
    """What is kept beyond this process. None of these raises; a store in trouble keeps and knows nothing.

    Told in order, it never knows later things without the earlier ones: a watermark is only there with the marks of all
    news before it.
    """

    @property
    def is_open(self) -> bool:
        """Whether a list may be found there now."""

    @property
    def spans(self) -> Mapping[str | None, Spans]:
        """What earlier processes heard of without a gap, by account."""

    async def read(self, customer: Customer) -> Snapshot | None:
        """Return what was told of ``customer`` last, with the news that there was since."""

    def write(self, snapshot: Snapshot) -> None:
        """Keep ``snapshot`` in place of what is kept of its customer. Never suspends."""

    def mark(self, customer: Customer, heard_at: float, spans: Spans) -> None:
        """Keep in mind that there was news of ``customer``, whose list ``spans`` vouched for until then."""

    def begin(self, account: str | None, since: float) -> None:
        """Keep in mind that the account's feed reads on from ``since``, having missed what was before."""

    def advance(self, account: str | None, until: float) -> None:
        """Keep in mind that the account's feed has told of every change up to ``until``."""

    async def flush(self) -> None:
        """Return once all that was told so far would survive the process, or the store is in trouble."""


class Recall:
    """Brings customers back into the ``cache``, and has new lists kept.

    Who comes back dirty is read again, as if the news had just come.
    """

    def __init__(self, store: Store, cache: Cache, schedule: Schedule, *, tasks: Tasks) -> None:
        self.cache = cache
        self._store = store
        self._schedule = schedule
        self._flights = SingleFlight(self._bring, tasks)

    async def bring(self, customer: Customer) -> None:
        """See to it that ``customer`` is in the cache, if the store has a list."""
        if self._store.is_open:
            await asyncio.shield(self._flights.join(customer))

    async def _bring(self, customer: Customer) -> None:
        found = await self._store.read(customer)  # after which there is no turn of the loop before the next line
        if found is None or self.cache.get(customer) is not None:
            return
        if self.cache.put(found) and found.dirty is not None:
            self._schedule.add(customer, found.dirty.heard_at)

    def keep(self, _: Snapshot | None, new: Snapshot) -> None:
        """Have a list kept; a sink of the refresher."""
        self._store.write(new)
