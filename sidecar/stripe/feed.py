"""The sidecar's own reading of Stripe's events: one request a poll keeps every customer's answer young.

A poll that asked for its first page at T and read all of them has told of every change up to T less the lag, for an
event may become visible that much later than its change. The next one reads from a lag before there, so that neither
such an event nor a clock that differs a little from Stripe's makes a hole; one that differs more shows in the answers'
``Date``. Events that are told twice are told apart by their ids.
A poll that failed moves nothing, and the next one goes on from where the last complete one was.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Final, NamedTuple

from sidecar.errors import Broken, OverBudget, Untold, UpstreamError
from sidecar.kit.clock import Clock
from sidecar.model import Customer
from sidecar.stripe.events import Listed, Sweep
from sidecar.stripe.health import Health

log = logging.getLogger(__name__)

Read = Callable[[Mapping[str, str], str | None], Coroutine[Any, Any, Listed]]
"""Read one page of the events of an account; raises ``UpstreamError``."""

OUTCOMES: Final = (
    "complete", "gap", "key_rejected", "permission_missing", "request_rejected", "cursor_vanished", "throttled",
    "broken", "unreachable", "over_budget", "circuit_open", "internal",
)  # fmt: skip
"""Every way in which a poll can end, in a metric's fixed set of label values."""

KEPT = 30 * 86400.0
"""Seconds for which Stripe lists events."""

MOST_PAGES = 1000
"""Pages of one poll; who was away for so many changes is better off without the news of each."""

SOONEST = 5.0
"""Seconds until a poll that is asked for, or that the budget had no room for; unless polls are more frequent anyway."""

SKEW = 5.0
"""Seconds by which clocks may differ before anything is made of it; at least, for a large lag covers more."""

ABSURD = 86400.0
"""Seconds from which on a difference is rather an odd ``Date``."""

WITHOUT = "until it works, ages count from each customer's own list"


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told: of each event, with False for one known before; that a span begins; how far it reaches."""

    hear: Callable[[str, Customer], bool]
    begin: Callable[[str | None, float], None]
    advance: Callable[[str | None, float], None]


class Pace(NamedTuple):
    """How often is polled, and how late an event may become visible, in seconds. Nothing is polled ``every`` 0 s."""

    every: float
    lag: float


class Feed:
    """Polls the events of the key's own account, and then of the connected ``accounts``, as the function says.

    An account that is left out for a while costs nothing meanwhile, and is read up on afterwards.
    """

    def __init__(
        self,
        read: Read,
        ears: Ears,
        pace: Pace,
        *,
        livemode: bool,
        accounts: Callable[[], Iterator[str]],
        clock: Clock,
    ) -> None:
        self.polls = dict.fromkeys(OUTCOMES, 0)
        self.every, self._lag = pace
        self.health = Health(clock, what="events", needs="rak_event_read", without=WITHOUT)
        self._read = read
        self._ears = ears
        self._livemode = livemode
        self._accounts = accounts
        self._clock = clock
        self._until: dict[str | None, float] = {}
        self.behind_us = 0.0
        self._hurry = asyncio.Event()

    def resume(self, account: str | None, until: float) -> None:
        """Go on from ``until``, where an earlier process was."""
        self._until[account] = until

    def hurry(self) -> None:
        """Poll as soon as may be: something changed, and nobody said for whom."""
        if not self.every:
            log.warning("somebody's entitlements changed, a thin event says, but not whose; events_poll is off")
        self._hurry.set()

    @property
    def works(self) -> bool:
        """Whether the events are read, or nothing is known to the contrary yet."""
        return bool(self.every) and self.health.state in ("ok", "untried")

    def behind(self) -> float:
        """Return the seconds since the moment up to which every change is known; infinite before, no number when off."""
        until = self._until.get(None)
        if not self.every:
            return nan
        return inf if until is None else self._clock() - until

    async def run(self) -> None:
        """Poll for ever; replicas that began together drift apart."""
        while True:
            began = self._clock()
            self._hurry.clear()
            pause = self.every * random.uniform(0.95, 1.0)  # noqa: S311 -- no secret
            if await self.poll():
                await self._poll_connected(began + self.every)
            elif self.health.state == OverBudget.code:  # one request that spares many others
                pause = min(pause, SOONEST)
            await self._pause(began, pause)

    async def _poll_connected(self, until: float) -> None:
        """Poll the connected accounts, as many as can be before the own account's turn comes again."""
        for account in self._accounts():
            if self._clock() < until:
                _ = await self.poll(account)

    async def _pause(self, began: float, every: float) -> None:
        """Wait until ``every`` seconds after ``began``, or for a reason to hurry."""
        await asyncio.sleep(min(every, SOONEST) - (self._clock() - began))
        try:
            async with asyncio.timeout(every - (self._clock() - began)):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def poll(self, account: str | None = None) -> bool:
        """Read everything new of an account, tell of it, move its watermark; tell whether that was possible."""
        began, until, gaps = self._clock(), self._until.get(account), self.polls["gap"]
        since = reach = began - self._lag
        if until is not None and began - until + self._lag > KEPT:
            self._missed(account, f"the last reading was {began - until:.0f} s ago, and Stripe keeps 30 days of events")
            until = None
        try:
            reach = await self._sweep(account, since if until is None else until) - self._lag
        except Untold as untold:
            self._missed(account, untold)
            until = None
        except UpstreamError as error:
            self.polls[error.code] += 1
            if account is None:
                self.health.failed(error)
            return False
        if self.polls["gap"] == gaps:
            self.polls["complete"] += 1
        if account is None:
            self.health.succeeded()
        if until is None:
            self._ears.begin(account, since)
        self._ears.advance(account, reach)
        self._until[account] = reach
        return True

    def _missed(self, account: str | None, why: object) -> None:
        self._until.pop(account, None)
        self.polls["gap"] += 1
        log.warning("changes were missed, so ages count from each customer's own list again: %s", why)

    async def _sweep(self, account: str | None, since: float) -> float:
        """Read everything since a moment of our clock; once more, when Stripe's turns out to be further behind it.

        Return when its first page was asked for: however long that had to wait for the budget, what was there is told.
        """
        overlap = max(self._lag, SKEW)
        while True:
            behind = self.behind_us
            sweep = Sweep(since - overlap - behind, livemode=self._livemode, account=account, max_pages=MOST_PAGES)
            asked_at, ahead = inf, 0.0
            while not sweep.is_complete:
                page, at, ahead = await self._read(sweep.params, account)
                asked_at = min(asked_at, at)
                for event in sweep.take(page):
                    if event.customer is not None:
                        self._ears.hear(event.id, event.customer)
            if ahead > ABSURD:  # no clock is so wrong
                ahead = 0.0
            self._mind_the_clock(ahead if ahead > overlap else 0.0)
            if ahead <= overlap + behind:
                break
        self._judge(sweep, since)
        return asked_at

    def _judge(self, sweep: Sweep, since: float) -> None:
        """Raise unless a complete sweep has told of every change."""
        if self._clock() - since + self._lag > KEPT:  # the process slept on it, and what was to be read is gone
            raise Broken("reading the events took longer than Stripe keeps them")
        if sweep.untold is not None:
            raise sweep.untold

    def _mind_the_clock(self, ahead: float) -> None:
        if ahead and not self.behind_us:
            log.warning("this host's clock is %.0f s ahead of Stripe's; events are read from further back", ahead)
        self.behind_us = ahead
