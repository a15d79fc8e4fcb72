"""A token bucket with a bounded queue of three classes.

Of those who wait the most urgent is served first, and among equals who came first. So that no class starves, of five
tokens for which less urgent ones wait too one is theirs, and among them the same holds. Whoever would have to wait
longer than they can is told so at once where that can be told, else when that time is over. Those who may not wait (a
refresh that nobody waits for) take a token only when one is left over: nobody queues behind them.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from math import inf
from typing import Final

from sidecar.errors import OverBudget
from sidecar.kit.bucket import Bucket
from sidecar.kit.clock import Clock
from sidecar.kit.tally import Tally

IN_A_ROW: Final = 4
"""Tokens that a class may take in a row while less urgent ones wait; the next one is theirs."""

WAITS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)


class Urgency(IntEnum):
    """Why a token is wanted; the greater goes first."""

    BACKGROUND = 0
    """Nobody waits for it."""
    NEWS = 1
    """A customer is known to have changed, or it is asked who has."""
    CALLER = 2
    """Somebody waits for the answer."""


class Waiter:
    """Who waits for a token, and how urgently: that may grow meanwhile."""

    def __init__(self, read: Callable[[], Urgency], came: float) -> None:
        self.read = read
        self.urgency = read()
        self.came = came
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def has_token(self) -> bool:
        """Whether a token was handed out, rather than refused or no longer wanted."""
        return self.turn.done() and not self.turn.cancelled() and self.turn.exception() is None


class Limiter:
    """Hand out the tokens of ``bucket``.

    ``refused`` counts requests that got no token in time; ``waited`` has the seconds that tokens were waited for, by
    class. The queue is as long as its patience times the rate, 200 with the usual settings: it may be looked through.
    """

    def __init__(self, *, rate: float, burst: float, clock: Clock) -> None:
        self.bucket = Bucket(rate=rate, burst=burst, clock=clock)
        self.refused = 0
        self.waited = {urgency: Tally(WAITS) for urgency in Urgency}
        self._clock = clock
        self._queue: dict[Waiter, None] = {}
        self._waiting: Counter[Urgency] = Counter()
        self._in_a_row: Counter[Urgency] = Counter()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def left(self) -> float:
        """Tokens that can be had without waiting."""
        return max(0.0, self.bucket.tokens - len(self._queue))

    def take_spare(self) -> bool:
        """Take a token if one is left over that nobody waits for; tell whether it was."""
        if self._queue or self.bucket.tokens < 1:
            return False
        self.bucket.take()
        self.waited[Urgency.BACKGROUND].add(0.0)
        return True

    def give_back(self) -> None:
        """Take back a token that was not used."""
        self.bucket.put_back()
        self._recount()

    def slow_down(self, sent_at: float, why: str, *, after: float | None = None) -> None:
        """Hand out fewer tokens for a while: see ``Bucket.slow_down``."""
        self.bucket.slow_down(sent_at, why, after=after)
        self._recount()

    async def take(self, urgency: Callable[[], Urgency], *, within: float) -> None:
        """Take a token, waiting for it at most ``within`` seconds; ``urgency`` is asked again while that lasts.

        :raises OverBudget: at once, when those who go first will leave none in time; else when the time is over.
        """
        waiter = Waiter(urgency, self._clock())
        if self.bucket.until(self._needed(waiter.urgency)) - waiter.came > within:
            raise self._refusal(within)
        self._queue[waiter] = None
        self._waiting[waiter.urgency] += 1
        if self._timer is None:
            self._serve()
        if not waiter.turn.done():
            await self._wait(waiter, within)
        self.waited[waiter.urgency].add(max(0.0, self._clock() - waiter.came))

    def _needed(self, urgency: Urgency) -> int:
        """Return how many tokens have to be made until who comes now has theirs, if nobody else comes or leaves."""
        waiting, in_a_row = self._waiting, self._in_a_row
        equals, below = waiting[urgency], sum(waiting[other] for other in Urgency if other < urgency)
        needed = equals + 1 + min(below, (in_a_row[urgency] + equals) // IN_A_ROW)
        for above in (other for other in Urgency if other > urgency):
            needed += min(waiting[above], IN_A_ROW * needed - in_a_row[above])
        return needed

    async def _wait(self, waiter: Waiter, within: float) -> None:
        expiry = None
        if within < inf:
            expiry = asyncio.get_running_loop().call_later(within, self._expire, waiter, within)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.has_token:
                self.give_back()
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
            self._leave(waiter)

    def _expire(self, waiter: Waiter, within: float) -> None:
        self._serve()  # there may be a token at this very moment
        if not waiter.turn.done():
            waiter.turn.set_exception(self._refusal(within))
            self._leave(waiter)

    def _refusal(self, within: float) -> OverBudget:
        self.refused += 1
        return OverBudget(f"the budget of {self.bucket.rate:g} requests/s has none left within {within:g} s")

    def _leave(self, waiter: Waiter) -> None:
        if waiter in self._queue:
            del self._queue[waiter]
            self._waiting[waiter.urgency] -= 1
        if not self._queue:
            self._rest()

    # Serving: by a timer, which is set while somebody waits.

    def _recount(self) -> None:
        self._due = None
        self._serve()

    def _serve(self) -> None:
        """Hand out what is there, and come again when there is more."""
        self._read_again()
        while self._queue:
            if self._due is None:
                self._due = self.bucket.until(1)
            # A loop's timer may fire a little early by our clock; a token before its time would break the bound.
            if (left := self._due - self._clock()) > 0:
                self._come_again(left)
                return
            self.bucket.take()
            self._due = None
            waiter = self._next()
            self._leave(waiter)
            waiter.turn.set_result(None)

    def _come_again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._serve)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due = None

    def _read_again(self) -> None:
        """Ask all who wait how urgent it is by now, and forget those who are just leaving."""
        for waiter in list(self._queue):
            self._waiting[waiter.urgency] -= 1
            waiter.urgency = waiter.read()
            self._waiting[waiter.urgency] += 1
            if waiter.turn.done():
                self._leave(waiter)

    def _next(self) -> Waiter:
        """Return whose turn it is."""
        first: dict[Urgency, Waiter] = {}
        for waiter in self._queue:
            first.setdefault(waiter.urgency, waiter)
        *others, least = sorted(first, reverse=True)
        for urgency in others:
            if self._in_a_row[urgency] < IN_A_ROW:
                self._in_a_row[urgency] += 1
                return first[urgency]
            self._in_a_row[urgency] = 0
        return first[least]
