"""What can go wrong: faults that are switched on, and refusals that a question earns."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Fault(StrEnum):
    ERROR = "error"  # 500 in Stripe's words
    THROTTLED = "throttled"  # 429 from the limiter
    LOCK_TIMEOUT = "lock_timeout"  # 429 that is no limiter's
    HTML = "html"  # 502 from something in front of Stripe
    NOT_JSON = "not_json"  # 200 from something that is not Stripe
    HALF = "half"  # the whole length announced, half the body sent, the connection closed
    TORN = "torn"  # the same, but the connection is reset
    HANG = "hang"  # nothing, until mended
    SLOW = "slow"  # the true answer, `delay` seconds late
    DRIP = "drip"  # the true answer, byte by byte, each `delay` seconds after the one before, until mended
    RESET = "reset"  # the connection closed without an answer
    ENDLESS = "endless"  # every list empty, and yet more to come
    REPEATED = "repeated"  # every list its first page, whatever the cursor, and more to come
    OTHER_MODE = "other_mode"  # every object of the other mode


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", param: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self, log_url: str) -> Json:
        error = {
            "code": self.code,
            "doc_url": self.code and f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}",
            "message": str(self),
            "param": self.param,
            "request_log_url": log_url,
            "type": "api_error" if self.status >= 500 else "invalid_request_error",
        }
        return {"error": {name: value for name, value in error.items() if value}}


BUSY = (
    "This object can't be accessed right now because another API request or Stripe process is currently accessing it."
)
REFUSED = {
    Fault.ERROR: Refusal(500, "An unknown error occurred"),
    Fault.THROTTLED: Refusal(429, "Too many requests.", "rate_limit", Stripe_Rate_Limited_Reason="endpoint-rate"),
    Fault.LOCK_TIMEOUT: Refusal(
        429, BUSY, "lock_timeout", Stripe_Should_Retry="true", Request_Id=""
    ),  # Stripe sends none here
}
FOREIGN = {
    Fault.HTML: (502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
    Fault.NOT_JSON: (200, b"<!doctype html><title>Sign in</title><p>Sign in to use this network."),
}


@dataclass(slots=True)
class Trouble:
    """A fault that is switched on: whom it strikes, how often, and until when."""

    fault: Fault
    after: int
    until: float
    delay: float
    operation: str | None
    met: int = 0
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, operation: str) -> bool:
        if self.operation not in (None, operation):
            return False
        self.met += 1
        return self.after < self.met <= self.until
