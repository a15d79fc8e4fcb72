"""What is heard of changes, whoever brings it: webhooks, the feed.

News is never data. It names a customer; the customer's list is then read again.
"""

from collections import Counter
from typing import Final

from sidecar.core.audit import Audit
from sidecar.core.recall import Store
from sidecar.core.refresher import Refresher
from sidecar.core.schedule import Schedule
from sidecar.core.watermarks import Watermarks
from sidecar.kit.clock import Clock
from sidecar.model import Customer

ORIGINS: Final = ("webhook", "feed")
EFFECTS: Final = ("marked", "not_held", "duplicate")

REMEMBERED = 65_536
"""Events that are remembered, at worst some 12 MB. A duplicate of one that is forgotten costs one reading."""


class News:
    """Marks customers as dirty, once per event, and has them read again."""

    def __init__(
        self,
        refresher: Refresher,
        schedule: Schedule,
        watermarks: Watermarks,
        audit: Audit,
        *,
        store: Store,
        clock: Clock,
    ) -> None:
        self.counts = Counter({(origin, effect): 0 for origin in ORIGINS for effect in EFFECTS})
        self._refresher = refresher
        self._schedule = schedule
        self._watermarks = watermarks
        self._audit = audit
        self._store = store
        self._clock = clock
        self._heard: dict[tuple[str, Customer], None] = {}

    async def keep(self, event_id: str, customer: Customer, *, origin: str) -> bool:
        """Take note like ``hear``, and return once the news would survive the process."""
        is_new = self.hear(event_id, customer, origin=origin)
        await self._store.flush()  # also of what was heard before: the first telling may not have been kept yet
        return is_new

    def hear(self, event_id: str, customer: Customer, *, origin: str) -> bool:
        """Take note that ``customer`` changed; False when this event was heard of before. Never suspends.

        When this returns, no answer can be given any more as if nothing had been heard. When the event was made does
        not matter: what is in memory may be older or younger, and the list tells.
        """
        effect = self._effect(event_id, customer)
        self.counts[origin, effect] += 1
        return effect != "duplicate"

    def _effect(self, event_id: str, customer: Customer) -> str:
        if (event_id, customer) in self._heard:
            return "duplicate"
        self._audit.explain(customer)
        now = self._clock()
        self._store.mark(customer, now, self._watermarks.spans(customer.account))
        if not self._refresher.heard(customer, now):
            return "not_held"  # and not remembered: asked about now, Stripe's list may not show the change yet
        self._heard[event_id, customer] = None
        if len(self._heard) > REMEMBERED:
            del self._heard[next(iter(self._heard))]
        self._schedule.add(customer, now)
        return "marked"

    def begin(self, account: str | None, since: float) -> None:
        """Note that the account's feed reads on from ``since``, having missed what was before."""
        self._watermarks.begin(account, since)
        self._store.begin(account, since)
        self._audit.forgive(account)

    def advance(self, account: str | None, until: float, *, kept: float | None = None) -> None:
        """Note that the account's feed has told of every change up to ``until``, or ``kept`` for later processes."""
        self._watermarks.advance(account, until)
        self._store.advance(account, until if kept is None else kept)
        self._audit.settle(account)
