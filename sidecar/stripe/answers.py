"""What a status, headers and body of Stripe mean.

Version 1 of Stripe's API has no error type for authentication or rate limiting, so status, code and headers decide.
Whether to ask again is ``Stripe-Should-Retry``'s to say (docs.stripe.com/error-low-level), except that a key which is
rejected or lacks a permission is not tried again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import orjson

from sidecar.errors import (
    Broken,
    CursorVanished,
    KeyRejected,
    OverBudget,
    PermissionMissing,
    RequestRejected,
    SidecarError,
    Throttled,
    UnknownCustomer,
    Unreachable,
    UpstreamError,
)

MISSING = "resource_missing"
REQUEST_ID = re.compile(r"req_[A-Za-z0-9_]{1,64}")
LONGEST_MESSAGE = 500
CURSORS = ("starting_after", "ending_before")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and the moment just before it was asked for."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    asked_at: float


def request_id_in(headers: Mapping[str, str]) -> str | None:
    """Return the id under which Stripe logs a request, if there is one that looks like one of Stripe's."""
    found = headers.get("Request-Id", "")
    return found if REQUEST_ID.fullmatch(found) else None


def date_in(headers: Mapping[str, str]) -> float | None:
    """Return when Stripe says that it answered (``Date``, RFC 9110 §6.6.1), in Unix seconds; None if it does not."""
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, OverflowError):
        return None


def is_object(body: bytes) -> bool:
    """Tell whether ``body`` is a JSON object, as all that Stripe says is."""
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def read_json(body: bytes, *, status: int, request_id: str | None) -> dict[str, Any]:
    """Return the JSON object in ``body``.

    :raises Broken: for anything else: HTML, half a body, a bare list.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        what = "nothing" if not body else f"{len(body)} bytes that are not a JSON object"
        raise Broken(f"Stripe answered {status} with {what}", status=status, request_id=request_id)
    return found


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> SidecarError:
    """Return the error that an answer other than 200 stands for.

    Whether Stripe says "no such customer" with 400 or 404 is not documented for this call; the code and the parameter
    decide, whatever the status.
    """
    request_id = request_id_in(headers)
    try:
        error = read_json(body, status=status, request_id=request_id).get("error")
    except Broken as broken:
        error = None
        detail = str(broken)
    else:
        detail = f"Stripe answered {status} without an error object"
    retry = {"true": True, "false": False}.get(headers.get("Stripe-Should-Retry", "").lower())
    if not isinstance(error, dict):
        return by_status(status, {}, detail, headers, retry=retry)
    message = str(error.get("message") or f"Stripe answered {status}")[:LONGEST_MESSAGE]
    code, param = error.get("code"), error.get("param")
    if 400 <= status < 500 and code == MISSING and param in ("customer", "id"):
        return UnknownCustomer(status, message)
    if 400 <= status < 500 and code == MISSING and param in CURSORS:
        return CursorVanished(message, status=status, request_id=request_id)
    return by_status(status, error, message, headers, retry=retry)


def by_status(
    status: int, error: Mapping[str, Any], detail: str, headers: Mapping[str, str], *, retry: bool | None
) -> SidecarError:
    """Return the error that ``status`` stands for, ``error`` being Stripe's own account of it."""
    request_id = request_id_in(headers)
    if status == 429 or (status == 400 and error.get("code") == "rate_limit"):  # 400: an older form of the limiter
        reason = headers.get("Stripe-Rate-Limited-Reason") or (None if status == 429 else "rate_limit")
        after = headers.get("Retry-After", "")
        seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
        return Throttled(detail, reason=reason, after=seconds, status=status, request_id=request_id, retry=retry)
    if status == 401:
        return KeyRejected(detail, status=status, request_id=request_id)
    if status == 403:
        return PermissionMissing(detail, status=status, request_id=request_id)
    if status == 409:
        return RequestRejected(detail, status=status, request_id=request_id, retry=retry is not False)
    if 400 <= status < 500 and status != 424 and error:  # 424: something that Stripe depends on failed
        return RequestRejected(detail, status=status, request_id=request_id, retry=retry)
    return Broken(detail, status=status, request_id=request_id, retry=retry)


def read_answer(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that ``answer`` brought.

    :raises SidecarError: what any other answer stands for.
    """
    if answer.status != HTTPStatus.OK:
        raise refusal(answer.status, answer.headers, answer.body)
    return read_json(answer.body, status=200, request_id=request_id_in(answer.headers))


def shows_that_stripe_fails(error: Broken | Unreachable, answer: Answer | None) -> bool:
    """Tell whether an answer, or none, is one that others are likely to get too: none, 424, 5xx, or nothing to be read.

    An answer that can be read but not be used, such as a page without progress, is about what was asked.
    """
    if isinstance(error, Unreachable) or answer is None:
        return True
    return answer.status >= 500 or answer.status == HTTPStatus.FAILED_DEPENDENCY or not is_object(answer.body)


def says_nothing_of_stripe(error: UpstreamError, account: str | None) -> bool:
    """Tell whether ``error`` is about what was asked, or is our own, and so says nothing of Stripe or of our key."""
    about_the_account = account is not None and isinstance(error, KeyRejected | PermissionMissing)
    return about_the_account or isinstance(error, CursorVanished | OverBudget)
