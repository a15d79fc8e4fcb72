"""Can the budget keep young what is remembered? If not, it is said once, with numbers and what to change.

Without a working feed each customer who is asked about is read again every ``fresh_for``; with one, every
``audit_every``, and each poll is a request.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from sidecar.core.cache import Cache
from sidecar.settings import Freshness

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two looks at how many customers there are."""


TINY: Final = 1e-3
"""Seconds that stand for a ``fresh_for`` of none."""


class Needs(NamedTuple):
    """What the requests are needed for: how long a list may go unread, how often is polled (0 never), in seconds; and
    the ``share`` of the account's requests a second that this process has.
    """

    freshness: Freshness
    poll: float
    share: float


class Sizing:
    """Compares what is needed with what there is. ``is_fed`` tells whether the feed works."""

    def __init__(self, needs: Needs, cache: Cache, is_fed: Callable[[], bool]) -> None:
        self._needs = needs
        self._cache = cache
        self._is_fed = is_fed
        self._said: set[str] = set()

    async def run(self) -> None:
        """Look every minute, for ever."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Warn if the budget does not suffice for those who are remembered now; of each shortage once."""
        freshness, poll, share = self._needs
        polls, customers = per(1, poll), len(self._cache)
        if polls > share:
            self._say("reading the events every %g s takes %.3g", "events_poll or rate", poll, polls)
        elif not self._is_fed():
            needed = per(customers, freshness.fresh_for or TINY)
            if needed > share:
                wanted = "without events, reading %d customers every %g s (fresh_for) takes %.3g"
                self._say(
                    wanted, "fresh_for or rate, or let the events be read", customers, freshness.fresh_for, needed
                )
        elif (needed := per(customers, freshness.audit_every) + polls) > share:
            wanted = "reading %d customers every %g s (audit_every) and the events every %g s takes %.3g"
            self._say(wanted, "audit_every or rate", customers, freshness.audit_every, poll, needed)

    def _say(self, wanted: str, what: str, *numbers: float) -> None:
        if wanted not in self._said:
            self._said.add(wanted)
            text = f"{wanted} requests/s, and the budget is %.3g (rate / replicas): raise {what}"
            log.warning(text, *numbers, self._needs.share)


def per(count: int, seconds: float) -> float:
    """Return ``count`` in so many ``seconds`` as a rate; 0 s means never."""
    return count / seconds if seconds else 0.0
