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
        long they are to be (``Retry-After``).
        """
        after = (error.after if isinstance(error, Throttled) else None) or 0.0
        if not error.retry or attempt >= self.attempts or took >= self.timeout or after > self.timeout:
            return None
        return after or min(self.longest, self.initial * 2.0 ** (attempt - 1) + self.jitter * chance)


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
