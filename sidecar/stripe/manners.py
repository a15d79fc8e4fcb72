"""How Stripe is asked: politely, patiently, and each request as urgently as it is."""

from dataclasses import dataclass

from yarl import URL

from sidecar.errors import Throttled, UpstreamError
from sidecar.kit.limiter import Urgency
from sidecar.model import Flight

QUEUE = 10.0
"""Seconds that a request may wait for the budget: at 20 requests/s two hundred customers, which is a cold start's
crowd; those beyond are told at once."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How Stripe is asked: where, in which version, how often and how patiently again. Times in seconds.

    ``seed`` is this process's own, so that those who lost Stripe together do not look for it together.
    """

    base: str
    version: str
    max_pages: int = 100
    restarts: int = 3
    attempts: int = 4
    timeout: float = 10.0
    initial: float = 0.25
    longest: float = 4.0
    jitter: float = 0.25
    seed: int = 0

    def pause_after(self, error: UpstreamError, attempt: int, took: float, chance: float) -> float | None:
        """Return how long to wait before the next attempt; None when this one, the ``attempt``-th, was the last.

        ``took`` is the time since the first began, ``chance`` a number from 0 to 1. Pauses double, unless Stripe says how
        long they are to be.
        """
        worth = self.worth_a_retry(error)
        if worth is False or attempt >= self.attempts or took >= self.timeout:
            return None
        doubled: float = self.initial * 2 ** (attempt - 1)
        return min(self.longest, doubled + self.jitter * chance) if worth is True else worth

    def worth_a_retry(self, error: Exception) -> bool | float:
        """Tell whether to try again, and after how many seconds if Stripe says so (``Retry-After``)."""
        if not isinstance(error, UpstreamError) or not error.retry:
            return False
        after = error.after if isinstance(error, Throttled) else None
        if not after:
            return True
        return after if after <= self.timeout else False


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be made: which, how long it may wait for the budget, and how urgently.

    Where there is a flight, it is as urgent as the flight, and written into its log.
    """

    operation: str
    url: URL
    account: str | None
    flight: Flight | None = None
    within: float = QUEUE
    otherwise: Urgency = Urgency.CALLER

    def urgency(self) -> Urgency:
        """Return how urgent it is by now."""
        return self.otherwise if self.flight is None else self.flight.urgency
