"""What its caller calls the request that is being handled."""

from contextvars import ContextVar
from typing import Final

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Of the task that asks, and of the work that it began. A context's own, so the one thing here that is not passed in."""
