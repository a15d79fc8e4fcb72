"""Since when something is read from Stripe or cannot be, and why not. The log is told of changes, not of requests."""

import logging
from dataclasses import dataclass

from sidecar.errors import CircuitOpen, KeyRejected, PermissionMissing, UpstreamError
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
    """What the last readings came to. ``state`` is ``untried``, ``ok`` or the code of an upstream error.

    ``what`` is read, a restricted key ``needs`` a permission for it, and ``without`` it something follows. ``may_read``
    is whether the key has that permission; None while Stripe has not said.
    """

    def __init__(
        self, clock: Clock, *, what: str = "entitlements", needs: str = "rak_entitlement_read", without: str = ""
    ) -> None:
        self.needs = needs
        self.may_read: bool | None = None
        self._clock = clock
        self._what = what
        self._without = f"; {without}" if without else ""
        self.state = "untried"
        self.since = clock()
        self.last_failure: Failure | None = None

    def succeeded(self) -> None:
        """Note that Stripe gave an answer."""
        self.may_read = True
        if self.state != "ok":
            if self.state != "untried":
                log.info(
                    "reading %s works again, after %.1f s of %s", self._what, self._clock() - self.since, self.state
                )
            self._turn("ok")

    def failed(self, error: UpstreamError) -> None:
        """Note that a request came to nothing; that none was sent is put down to what the last one came to."""
        if isinstance(error, CircuitOpen):
            if self.state not in ("ok", "untried"):
                return
            error = error.last or error
        self.last_failure = Failure(self._clock(), error.code, error.detail, error.status, error.request_id)
        lacks = ""
        if isinstance(error, KeyRejected | PermissionMissing):
            self.may_read = None if isinstance(error, KeyRejected) else False
            lacks = "" if self.may_read is None else f"; the key lacks the permission {self.needs}"
        if self.state != error.code:
            said = (self._what, error.code, error.detail, lacks + self._without)
            log.warning("reading %s from Stripe fails (%s): %s%s", *said, extra={"stripe_request_id": error.request_id})
            self._turn(error.code)

    def forget(self) -> None:
        """Note that there is another key, of which nothing is known."""
        self.may_read = None

    def _turn(self, state: str) -> None:
        self.state = state
        self.since = self._clock()
