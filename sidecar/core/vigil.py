"""Callers who wait for a grant: one look at Stripe a second per customer, however many wait.

It is the moment after a checkout. A look costs only what the budget has left over, and ends early when anything else
brings the customer's list, such as news.
"""

import asyncio
from collections import Counter

from sidecar.core.refresher import Refresher
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Urgency
from sidecar.kit.singleflight import SingleFlight
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer

SPACING = 1.0
"""Seconds between two requests for one customer."""


MOST_CALLERS = 10_000
"""Callers who may wait at once; each costs a connection and a task."""


class Vigil:
    """Looks that are shared by all who wait for the same customer; ``refused`` counts who was not let wait."""

    def __init__(self, refresher: Refresher, *, tasks: Tasks, clock: Clock, most: int = MOST_CALLERS) -> None:
        self._refresher = refresher
        self._clock = clock
        self._most = most
        self.waiting = 0
        self.refused = 0
        self.goes_on = True
        self._looks = SingleFlight(self._look, tasks)
        self._watching: Counter[Customer] = Counter()

    def __len__(self) -> int:
        return len(self._looks)

    def has_room(self) -> bool:
        """Tell whether one more may wait, and count one who may not."""
        if self.waiting < self._most:
            return True
        self.refused += 1
        return False

    async def look(self, customer: Customer) -> None:
        """Return once the customer's list was read again, or could not be. Leaving does not disturb the others."""
        self._watching[customer] += 1
        self.waiting += 1
        try:
            await asyncio.shield(self._looks.join(customer))
        finally:
            self.waiting -= 1
            self._watching[customer] -= 1
            if not self._watching[customer]:
                del self._watching[customer]

    def close(self) -> None:
        """Let nobody wait any more: the process is shutting down."""
        self.goes_on = False
        self._refresher.release()

    async def _look(self, customer: Customer) -> None:
        landing, delay = self._refresher.landing(customer), self._until_next(customer)
        while not (await asyncio.wait([landing], timeout=delay))[0]:
            if not self._watching[customer]:  # all have left
                return
            self._refresher.nudge(
                customer, Urgency.CALLER
            )  # does nothing while a flight is in the air, or the budget has no request
            delay = SPACING

    def _until_next(self, customer: Customer) -> float:
        """Return the seconds until Stripe may be asked again: one for each request that the last flight took."""
        last = self._refresher.last_flight(customer)
        if last is None:
            return 0.0
        asked_at = last.exchanges[0].asked_at if last.exchanges else last.took_off  # it may have queued for the budget
        return max(0.0, asked_at + SPACING * max(1, last.pages, len(last.exchanges)) - self._clock())
