"""Since when Stripe answers or does not, and why not. Says so in the log once per change, not once per request."""

import logging
from dataclasses import dataclass

from sidecar.errors import UpstreamError
from sidecar.kit.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """The last request that came to nothing."""

    at: float
    code: str
    detail: str
    status: int | None
    request_id: str | None


class Health:
    """What the last requests to Stripe came to. ``state`` is ``untried``, ``ok`` or the code of an upstream error."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.state = "untried"
        self.since = clock()
        self.last_failure: Failure | None = None

    def succeeded(self) -> None:
        """Note that Stripe gave an answer."""
        if self.state != "ok":
            if self.state != "untried":
                log.info("Stripe answers again, after %.1f s of %s", self._clock() - self.since, self.state)
            self._turn("ok")

    def failed(self, error: UpstreamError) -> None:
        """Note that a request came to nothing."""
        self.last_failure = Failure(self._clock(), error.code, error.detail, error.status, error.request_id)
        if self.state != error.code:
            log.warning(
                "reading from Stripe fails (%s): %s", error.code, error.detail, extra={"request_id": error.request_id}
            )
            self._turn(error.code)

    def _turn(self, state: str) -> None:
        self.state = state
        self.since = self._clock()
