"""Customers to be read again because of news, whether or not anybody asks.

A change of prices makes thousands of them at once. A few are read at a time, so those whom a caller waits for need not
queue behind all the others; each stays listed until it has been read, however long Stripe is away. One that cannot be
read is put aside for longer and longer, and the others are read meanwhile; when it is no fault of that customer's, and
so the others would fare no better, all rest.

How soon after an event Stripe's list shows the change is not documented. So a list that news has left as it was is
read once more, a little later.
"""

import asyncio
from collections import Counter, deque

from sidecar.core.cache import Cache
from sidecar.core.refresher import Refresher
from sidecar.errors import CircuitOpen, KeyRejected, OverBudget, PermissionMissing, Throttled, UpstreamError
from sidecar.kit.clock import Clock
from sidecar.kit.limiter import Urgency
from sidecar.kit.tasks import Tasks
from sidecar.model import Customer, Snapshot

AT_ONCE = 4
LONGEST_PAUSE = 30.0

LOOK_AGAIN = 5.0
"""Seconds after which a list that does not show the change yet is read again: long before a watermark vouches for it."""


class Schedule:
    """Read dirty customers again, the longest dirty first; after a failure not for ``pause`` seconds at first."""

    def __init__(self, cache: Cache, refresher: Refresher, *, tasks: Tasks, clock: Clock, pause: float = 1.0) -> None:
        self.second_looks = 0
        self._cache = cache
        self._refresher = refresher
        self._tasks = tasks
        self._clock = clock
        self._pause = pause
        self._rests = 0
        self._working = 0
        self._listed: dict[Customer, float] = {}
        self._in_hand: set[Customer] = set()
        self._aside: dict[Customer, float] = {}
        self._failures: Counter[Customer] = Counter()
        self._unchanged: deque[tuple[float, Customer]] = deque()

    def __len__(self) -> int:
        return len(self._listed.keys() | self._in_hand | self._aside.keys())

    def add(self, customer: Customer, since: float) -> None:
        """See to it that ``customer`` is read at ``since`` or later. Never suspends."""
        if customer in self._aside:
            self._aside[customer] = since
        else:
            self._list(customer, since)

    def _list(self, customer: Customer, since: float) -> None:
        self._listed[customer] = since
        if self._working < AT_ONCE:
            self._working += 1
            _ = self._tasks.start(self._work(), name="read dirty customers")

    def look_again(self, old: Snapshot | None, new: Snapshot) -> None:
        """See to a second look when news has made no difference; a sink of the refresher."""
        if old is None or old.dirty is None or new.dirty is not None:
            return
        if set(old.ids) == set(new.ids):
            self._unchanged.append((self._clock() + LOOK_AGAIN, new.customer))
            if len(self._unchanged) == 1:
                _ = self._tasks.start(self._look_again(), name="second looks")

    async def _look_again(self) -> None:
        while self._unchanged:
            due, customer = self._unchanged[0]
            await asyncio.sleep(due - self._clock())
            self._unchanged.popleft()
            self.second_looks += 1
            self.add(customer, self._clock())

    async def _work(self) -> None:
        try:
            while self._listed:
                customer = next(iter(self._listed))
                since = self._listed.pop(customer)
                self._in_hand.add(customer)
                try:
                    await self._read(customer, since)
                finally:
                    self._in_hand.discard(customer)
        finally:
            self._working -= 1
            if not self._working:
                self._rests = 0  # the trouble may be long past when there is news again

    def _is_owed(self, customer: Customer, since: float) -> bool:
        """Tell whether ``customer`` is held, or about to be, and not read since; the forgotten owe nothing."""
        held = self._cache.get(customer)
        return self._refresher.is_flying(customer) if held is None else held.taken_at < since

    async def _read(self, customer: Customer, since: float) -> None:
        if not self._is_owed(customer, since):
            del self._failures[customer]
            return
        try:
            _ = await self._refresher.renew(customer, since=since, urgency=Urgency.NEWS)
        except UpstreamError as error:
            if concerns_all(error, customer):
                self._rests += 1
                await asyncio.sleep(self._after(self._rests))
                self._listed[customer] = self._last_news(customer, since)
            else:
                self._put_aside(customer, self._last_news(customer, since))
        else:
            self._rests = 0
            del self._failures[customer]

    def _last_news(self, customer: Customer, since: float) -> float:
        """Return when news of a customer in hand came last, and leave it to whoever asks to see to that."""
        return max(since, self._listed.pop(customer, since))

    def _after(self, failures: int) -> float:
        return min(LONGEST_PAUSE, self._pause * 2.0 ** min(failures - 1, 16))

    def _put_aside(self, customer: Customer, since: float) -> None:
        if customer not in self._aside:
            self._failures[customer] += 1
            _ = self._tasks.start(self._bring_back(customer), name="a customer put aside")
        self._aside[customer] = max(since, self._aside.get(customer, since))

    async def _bring_back(self, customer: Customer) -> None:
        await asyncio.sleep(self._after(self._failures[customer]))
        self._list(customer, self._aside.pop(customer))


def concerns_all(error: UpstreamError, customer: Customer) -> bool:
    """Tell whether whoever is read next would meet the same trouble, rather than ``customer`` alone."""
    about_the_key = isinstance(error, KeyRejected | PermissionMissing) and customer.account is None
    return about_the_key or isinstance(error, CircuitOpen | OverBudget | Throttled)
