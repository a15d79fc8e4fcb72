"""Can the feed be trusted? Every list that is read again although nothing was heard puts it to the test.

A difference is not held against the feed until its watermark has passed the reading: the event may become visible
later than the change.
"""

import logging

from sidecar.core.watermarks import Watermarks
from sidecar.kit.clock import Clock
from sidecar.model import Customer, Snapshot

log = logging.getLogger(__name__)


class Audit:
    """Count the lists that changed without an event. ``checked`` counts those that were compared."""

    def __init__(self, watermarks: Watermarks, *, clock: Clock) -> None:
        self.checked = 0
        self.differences = 0
        self._watermarks = watermarks
        self._clock = clock
        self._unexplained: dict[Customer, float] = {}

    def compare(self, old: Snapshot | None, new: Snapshot) -> None:
        """Compare two readings of one customer, if the feed still vouches for the first; a sink of the refresher."""
        if old is None or old.dirty or new.dirty or old.unknown or new.unknown:
            return
        until = self._watermarks.until(old.customer.account)
        if until is None or not old.taken_at < until == self._watermarks.verified_at(old):
            return
        self.checked += 1
        if set(old.ids) != set(new.ids):
            self._unexplained[new.customer] = self._clock()  # it may have changed while it was being read

    def explain(self, customer: Customer) -> None:
        """Take note of news about ``customer``: a difference that was found is no longer surprising."""
        self._unexplained.pop(customer, None)

    def forgive(self, account: str | None) -> None:
        """Forget the account's differences: the feed admits to having missed something."""
        for customer in [customer for customer in self._unexplained if customer.account == account]:
            del self._unexplained[customer]

    def settle(self, account: str | None) -> None:
        """Count the differences that news should have explained by now: those before the account's watermark."""
        until = self._watermarks.until(account)
        late = [
            customer
            for customer, found_at in self._unexplained.items()
            if customer.account == account and until is not None and found_at <= until
        ]
        for customer in late:
            del self._unexplained[customer]
            self.differences += 1
        if late:
            log.warning("%d lists have changed without an event: the feed missed something", len(late))
