"""What can go wrong, as a tree, named for whose fault it is.

SidecarError
├── BadSettings            the operator's: the process does not start
├── Refused                the caller's: 4xx, nothing was asked of Stripe
│   ├── Malformed          a part of the request is not what it must be
│   └── NotAllowed         this caller or this Host may not ask here
├── UnknownCustomer        nobody's: Stripe says that there is no such customer
├── NoAnswer               nothing that this caller may be told is at hand; ``code`` and ``cause`` say why
├── StoreError             the store can keep nothing now; answers go on from memory
├── Unreadable             what the store kept of one customer cannot be used
└── UpstreamError          a read from Stripe came to nothing
    ├── KeyRejected        the operator's: 401, or the wrong kind of key
    ├── PermissionMissing  the operator's: 403
    ├── RequestRejected    ours: another 4xx, which a retry would not change
    ├── CursorVanished     nobody's: an entitlement was revoked between two pages; the read starts again
    ├── Throttled          ours or another user of the account's: 429
    ├── Broken             Stripe's or the way there's: 5xx, HTML, half a body, pages without progress
    │   └── Untold         nobody's: changes that cannot be told customer by customer
    ├── Unreachable        the network's or Stripe's: refused, reset, timed out
    ├── OverBudget         ours: the budget has no request left in time
    ├── CircuitOpen        ours: requests have failed so often that none is sent for a while
    ├── Defect             ours: nobody expected it; the log has the traceback
    └── TimedOut           the caller's deadline passed before the flight landed

Each ``UpstreamError`` says in ``retry`` whether asking again can help, and carries the ids by which Stripe finds the
requests in its logs. ``code`` is a stable word for machines: it is an HTTP problem's ``code`` and a metric's label.
"""

import re
from typing import Self

KEY = re.compile(r"\b((?:sk|rk)(?:_[a-z]+)?|whsec)_[\w+/=-]+")
"""What looks like one of Stripe's secret keys or signing secrets, in a group what may be shown of it."""


def masked(text: str) -> str:
    """Return ``text`` with what may be shown of the keys in it."""
    return KEY.sub(r"\1_***", text)


class SidecarError(Exception):
    """Anything this program raises on purpose."""

    code = "error"


class BadSettings(SidecarError):
    """The settings cannot be used; every error is in ``complaints``."""

    code = "bad_settings"

    def __init__(self, complaints: list[str]) -> None:
        # A key that was put in the wrong place is not repeated.
        self.complaints = [masked(complaint) for complaint in complaints]
        super().__init__("\n".join(self.complaints))


class Refused(SidecarError):
    """A request that is answered with 4xx without asking Stripe; ``status`` is the HTTP status."""

    status = 400

    def __init__(self, code: str, detail: str, *, status: int | None = None, part: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.part = part
        self.status = status or self.status


class Malformed(Refused):
    """A part of the request is not what it must be; ``part`` names it (``customer``, ``checks[3].lookup_key``)."""

    def __init__(self, part: str, why: str, *, status: int = 400) -> None:
        name = part.rpartition(".")[2].partition("[")[0].lower().replace("-", "_")
        super().__init__(f"malformed_{name}", f"{part}: {why}", status=status, part=part)


class NotAllowed(Refused):
    """This caller or this Host may not ask here."""

    status = 403


class UnknownCustomer(SidecarError):
    """Stripe knows no customer of this id in this account and mode. ``message`` is Stripe's own.

    ``code`` is ``wrong_mode`` when Stripe adds that there is one in the other mode: then the key or the customer is of
    the wrong environment.
    """

    code = "unknown_customer"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        if "a similar object exists in" in message:
            self.code = "wrong_mode"


class UpstreamError(SidecarError):
    """A read from Stripe came to nothing.

    ``retry`` is whether asking again can help; ``status`` Stripe's HTTP status, where there was one; ``request_id``
    the id under which Stripe logs the request.
    """

    code = "upstream"
    retry = False

    def __init__(
        self, detail: str, *, status: int | None = None, request_id: str | None = None, retry: bool | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry = self.retry if retry is None else retry

    def kept(self) -> Self:
        """Return an error that says the same, to be remembered: without the frames that a raised one holds."""
        return type(self)(self.detail, status=self.status, request_id=self.request_id)


class KeyRejected(UpstreamError):
    """Stripe does not accept the API key (401)."""

    code = "key_rejected"


class PermissionMissing(UpstreamError):
    """The API key lacks a permission (403); Stripe's message, kept as ``detail``, names it."""

    code = "permission_missing"


class RequestRejected(UpstreamError):
    """Stripe refused the request for a reason that asking again does not change."""

    code = "request_rejected"


class CursorVanished(UpstreamError):
    """The ``starting_after`` entitlement is gone: the list changed between two pages."""

    code = "cursor_vanished"


class Throttled(UpstreamError):
    """Stripe answered 429. ``reason`` is ``Stripe-Rate-Limited-Reason``; without one it was not a rate limiter."""

    code = "throttled"
    retry = True

    def __init__(self, detail: str, *, reason: str | None = None, after: float | None = None, **kwargs: object) -> None:
        super().__init__(detail, **kwargs)  # type: ignore[arg-type]
        self.reason = reason
        self.after = after


class Broken(UpstreamError):
    """What came back is not an answer: 5xx, not JSON, cut off, objects of the other mode, pages without progress."""

    code = "broken"
    retry = True


class Untold(Broken):
    """Changes cannot be told customer by customer: there are too many, or one names nobody."""

    retry = False


class Unreachable(UpstreamError):
    """No answer came: connection refused or reset, a name that does not resolve, a timeout."""

    code = "unreachable"
    retry = True


class OverBudget(UpstreamError):
    """Our own budget has no request left within the time that may be waited."""

    code = "over_budget"


class CircuitOpen(UpstreamError):
    """Requests have failed so often in a row that none is sent for a while; ``last`` is what the last one came to."""

    code = "circuit_open"

    def __init__(self, detail: str, *, last: UpstreamError | None = None, **kwargs: object) -> None:
        super().__init__(detail, **kwargs)  # type: ignore[arg-type]
        self.last = last


class Defect(UpstreamError):
    """The read failed in a way that nobody expected; the log has the traceback."""

    code = "internal"


class TimedOut(UpstreamError):
    """The caller's deadline passed before the flight landed; the flight goes on."""

    code = "deadline"


class NoAnswer(SidecarError):
    """Nothing that this caller may be told is at hand.

    ``code`` is ``not_cached`` (RFC 9111 §5.2.1.7: the caller wanted an answer from memory or none), ``too_old`` (what
    is in memory is older than the caller accepts, and learning better came to nothing), or the code of ``cause``: why
    the flight came to nothing. ``age`` is the age in seconds of what is in memory, if anything is.
    """

    def __init__(self, code: str, detail: str, *, age: float | None = None, cause: UpstreamError | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.age = age
        self.cause = cause


class StoreError(SidecarError):
    """The store cannot be used; ``code`` is one of ``STORE_TROUBLES``, ``detail`` says what to look at.

    ``is_worthless`` tells that what was kept can never be used by this process, so that it is put out of the way.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    @property
    def is_worthless(self) -> bool:
        """Whether what was kept is to be put out of the way."""
        return self.code in WORTHLESS


WORTHLESS = ("corrupt", "newer", "other_mode", "other_key", "unsealed", "from_the_future")
STORE_TROUBLES = (*WORTHLESS, "not_ours", "in_use", "gone", "read_only", "full", "too_slow", "failed")
"""Every reason for which a store is of no use, in a metric's fixed set of label values."""


class Unreadable(SidecarError):
    """What the store kept of one customer is damaged, forged, or of a version that is not known here."""

    code = "unreadable"
