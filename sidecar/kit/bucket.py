"""A token bucket that slows down when the other side says that it must, and recovers by itself.

In every window of w seconds at most ``configured × w + burst`` tokens come out of it, whatever happens. Its rate halves
when a request was refused for its rate, and grows again as time passes, as TCP's window does (additive increase,
multiplicative decrease: RFC 5681 §3.1). Nothing runs: what is in it is worked out from the clock whenever it is asked.
"""

import logging
from math import inf, sqrt
from typing import Final

from sidecar.kit.clock import Clock

log = logging.getLogger(__name__)

LEAST: Final = 1 / 8
"""The part of the configured rate that is never gone below: enough to notice that the trouble is over."""

RECOVERY: Final = 60.0
"""Seconds in which the rate grows from half of what is configured to the whole."""

LONGEST_PAUSE: Final = 60.0
"""Seconds for which the other side may ask to be left alone (``Retry-After``); what is beyond is not believed."""


class Bucket:
    """Tokens: at most ``burst`` at once, and ``configured`` a second in the long run.

    ``throttled`` counts the other side's refusals; ``slowed_at`` is since when the rate is below what is configured.
    """

    def __init__(self, *, rate: float, burst: float, clock: Clock) -> None:
        self.configured = rate
        self.burst = burst
        self.throttled = 0
        self.slowed_at: float | None = None
        self._clock = clock
        self._rate = rate
        self._tokens = float(burst)
        self._counted_at = clock()  # in the future while the other side wants to be left alone
        self._halved_at = -inf

    @property
    def rate(self) -> float:
        """Tokens that are made in a second, at the moment."""
        _ = self.tokens
        return self._rate

    @property
    def tokens(self) -> float:
        """What is in there; less than nothing when a token was taken a rounding too early."""
        now = self._clock()
        seconds = now - self._counted_at
        if seconds > 0:
            self._tokens = min(self.burst, self._tokens + self._made_in(seconds))
            self._rate = min(self.configured, self._rate + self._slope * seconds)
            self._counted_at = now
            if self.slowed_at is not None and self._rate >= self.configured:
                after = now - self.slowed_at
                log.info("the budget is back at %g requests/s, %.0f s after it was halved", self.configured, after)
                self.slowed_at = None
        return self._tokens

    @property
    def _slope(self) -> float:
        return self.configured / 2 / RECOVERY

    def _made_in(self, seconds: float) -> float:
        """Return how many tokens are made in the next ``seconds``: the rate grows until it is what is configured."""
        growing = min(seconds, (self.configured - self._rate) / self._slope)
        return (self._rate + self._slope * growing / 2) * growing + self.configured * (seconds - growing)

    def _seconds_for(self, tokens: float) -> float:
        """Return in how many seconds so many tokens are made: the inverse of ``_made_in``."""
        growing = (self.configured - self._rate) / self._slope
        made = self._made_in(growing)
        if tokens >= made:
            return growing + (tokens - made) / self.configured
        return 2 * tokens / (self._rate + sqrt(self._rate**2 + 2 * self._slope * tokens))

    def until(self, tokens: float) -> float:
        """Return the moment from which on there are so many tokens, if none is taken before."""
        lacking = tokens - self.tokens
        return self._clock() if lacking <= 0 else self._counted_at + self._seconds_for(lacking)

    def take(self) -> None:
        """Take a token."""
        self._tokens = self.tokens - 1

    def put_back(self) -> None:
        """Put back a token that was not used; unless the other side wants to be left alone, when there are to be none."""
        if self._clock() >= self._counted_at:
            self._tokens = min(self.burst, self.tokens + 1)

    def slow_down(self, sent_at: float, why: str, *, after: float | None = None) -> None:
        """Halve the rate, for the other side has refused a request that was sent at ``sent_at`` for its rate.

        Tokens in hand are dropped. Requests that were sent before the rate was halved last say nothing new; but who
        names the seconds ``after`` which to come again speaks of whatever is sent from now on.
        """
        self.throttled += 1
        tokens, now = self.tokens, self._clock()
        if sent_at > self._halved_at:
            self._halved_at = now
            self._rate = max(self._rate / 2, self.configured * LEAST)
            if self.slowed_at is None:
                self.slowed_at = now
                log.warning("the budget is halved to %g requests/s: %s", self._rate, why)
        elif not after:
            return
        self._tokens = min(0.0, tokens)
        self._counted_at = max(self._counted_at, now + min(after or 0.0, LONGEST_PAUSE))
