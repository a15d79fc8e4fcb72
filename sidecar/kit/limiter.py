"""A token bucket with a bounded queue.

In every window of w seconds at most ``rate × w + burst`` tokens are handed out. Those who may wait are served first
come, first served; whoever would have to wait longer than they can is told so at once instead of in vain. Those who
may not wait (a refresh that nobody waits for) take a token only when one is left over: nobody queues behind them.
"""

import asyncio

from sidecar.errors import OverBudget
from sidecar.kit.clock import Clock


class Limiter:
    """Hand out at most ``burst`` tokens at once and ``rate`` tokens a second in the long run."""

    def __init__(self, *, rate: float, burst: float, clock: Clock) -> None:
        self.rate = rate
        self.burst = burst
        self.refused = 0
        self.waiting = 0
        self._tokens = float(burst)
        self._turn = asyncio.Lock()  # fair: first come, first served, and who leaves lets all behind move up
        self._clock = clock
        self._counted_at = clock()

    @property
    def left(self) -> float:
        """Tokens that can be had without waiting."""
        return max(0.0, self._count() - self.waiting)

    def _count(self) -> float:
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._counted_at) * self.rate)
        self._counted_at = now
        return self._tokens

    def take_spare(self) -> bool:
        """Take a token if one is left over that nobody waits for; tell whether it was."""
        if self.waiting or self._count() < 1:
            return False
        self._tokens -= 1
        return True

    async def take(self, *, within: float) -> None:
        """Take a token, waiting for it at most ``within`` seconds.

        :raises OverBudget: at once, when the queue is longer than that.
        """
        delay = (self.waiting + 1 - self._count()) / self.rate
        if delay > within:
            self.refused += 1
            raise OverBudget(f"the budget of {self.rate:g} requests/s has none left within {within:g} s")
        if not self.waiting and delay <= 0:
            self._tokens -= 1
            return
        self.waiting += 1
        try:
            async with self._turn:
                await self._wait(self._clock() + (1 - self._count()) / self.rate)
                self._tokens = self._count() - 1
        finally:
            self.waiting -= 1

    async def _wait(self, until: float) -> None:
        # A loop's timer may fire a little early by our clock; a token before its time would break the bound.
        while (left := until - self._clock()) > 0:  # noqa: ASYNC110 -- time, not an event, is waited for
            await asyncio.sleep(left)
