"""What a caller may say, and how it is refused.

Parts of the path are taken from the bytes as they came and percent-decoded exactly once. What goes on to Stripe (a
customer, an account) may only have the characters that Stripe's ids have.
"""

import asyncio
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web

from sidecar.core.wishes import Wishes, wishes
from sidecar.errors import Malformed, Refused
from sidecar.kit.duration import read_duration
from sidecar.model import ACCOUNT_ID, CUSTOMER_ID, Customer

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

LONGEST_KEY = 200
MOST_CHECKS = 1000
LONGEST_WAIT = 30.0
BODY_WITHIN = 10.0
"""Seconds that a body of at most 1 MiB may take to arrive."""


def decoded(part: str, raw: str) -> str:
    """Return ``raw``, percent-decoded once (RFC 3986 §2.1).

    :raises Malformed: for a percent sign without two hexadecimal digits, and for bytes that are not UTF-8.
    """
    if "%" not in raw:  # as nearly always; what came over the wire is ASCII
        return raw
    if BAD_ESCAPE.search(raw):
        raise Malformed(part, "has a % that is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Malformed(part, "is not UTF-8 once it is percent-decoded") from None


def customer_id(value: Any, *, part: str = "customer") -> str:
    """Return ``value`` if it can be a customer's id.

    :raises Malformed: when it cannot; it is then never sent to Stripe.
    """
    if not isinstance(value, str) or not CUSTOMER_ID.fullmatch(value):
        raise Malformed(part, "must be 1 to 255 letters, digits or underscores")
    return value


def lookup_key(value: Any, *, part: str = "lookup_key") -> str:
    """Return ``value`` if it can be a lookup key; which characters Stripe allows is not documented.

    :raises Malformed: when it cannot.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_KEY:
        raise Malformed(part, f"must be 1 to {LONGEST_KEY} characters")
    if CONTROL.search(value):
        raise Malformed(part, "has a control character")
    return value


def account_id(value: Any, *, part: str = "Stripe-Account") -> str:
    """Return ``value`` if it can be a connected account's id.

    :raises Malformed: when it cannot.
    """
    if not isinstance(value, str) or not ACCOUNT_ID.fullmatch(value):
        raise Malformed(part, "must be acct_ and letters, digits or underscores")
    return value


def account_of(request: web.BaseRequest) -> str | None:
    """Return the connected account that the request selects, if it does.

    :raises Malformed: for one that cannot be, or another way of selecting than ``Stripe-Account``.
    """
    if "Stripe-Context" in request.headers:
        raise Malformed("Stripe-Context", "is not supported; select an account with Stripe-Account")
    accounts = request.headers.getall("Stripe-Account", [])
    if not accounts:
        return None
    if len(accounts) > 1:
        raise Malformed("Stripe-Account", "is there more than once")
    return account_id(accounts[0])


def asked_about(request: web.Request) -> Customer:
    """Return the customer that the path names: ``/v1/customers/{customer}/…``."""
    raw = request.rel_url.raw_path.split("/")[3]
    return Customer(customer_id(decoded("customer", raw)), account_of(request))


def asked_for(request: web.Request) -> str:
    """Return the lookup key that the path ends in: ``…/entitlements/{lookup_key}``."""
    return lookup_key(decoded("lookup_key", request.rel_url.raw_path.split("/")[5]))


def parameters(request: web.Request, *known: str) -> dict[str, str]:
    """Return the query's parameters.

    :raises Malformed: for one that is not ``known``, or is there twice.
    """
    found: dict[str, str] = {}
    if not request.rel_url.raw_query_string:
        return found
    for pair in request.rel_url.raw_query_string.split("&"):
        raw_name, _, raw_value = pair.partition("=")
        name, value = decoded("query", raw_name), decoded("query", raw_value.replace("+", " "))
        if name not in known:
            raise Refused(
                "unknown_parameter", f"there is no parameter {name[:40]!r} here; known: {', '.join(known) or 'none'}"
            )
        if name in found:
            raise Malformed(name, "is there more than once")
        found[name] = value
    return found


def wishes_of(request: web.Request, default: str | None = None) -> Wishes:
    """Return how old an answer the caller accepts."""
    return wishes(", ".join(request.headers.getall("Cache-Control", [])), default)


def patience(text: str) -> float:
    """Return the seconds that ``wait`` says.

    :raises Malformed: when it is no duration, or longer than anybody should wait.
    """
    try:
        seconds = read_duration(text)
    except ValueError as error:
        raise Malformed("wait", str(error)) from None
    if not isinstance(seconds, float) or seconds > LONGEST_WAIT:
        raise Malformed("wait", f"must be at most {LONGEST_WAIT:g} s")
    return seconds


async def read_body(request: web.Request) -> bytes:
    """Return the request's body.

    :raises Refused: when it is encoded, broken, or does not arrive in time.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("unsupported_encoding", "Content-Encoding: send the body as it is", status=415)
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await request.read()
    except TimeoutError:
        raise Refused("body_too_slow", f"the body did not arrive within {BODY_WITHIN:g} s", status=408) from None
    except (web.RequestPayloadError, ConnectionResetError):
        raise Malformed("body", "is not what its headers say") from None


def read_batch(data: bytes) -> list[Any]:
    """Return the questions of a batch, in order and as they came: ``read_check`` reads one.

    :raises Refused: when they are no list, or too many.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed("body", f"is not JSON: {error}") from None
    checks = body.get("checks") if isinstance(body, dict) else None
    if not isinstance(checks, list) or len(body) > 1:
        raise Malformed("body", 'must be an object with one member, "checks", that is an array')
    if len(checks) > MOST_CHECKS:
        raise Refused("too_many_checks", f"checks: {len(checks)} in one request; at most {MOST_CHECKS} are answered")
    return checks


def read_check(check: Any, part: str, account: str | None) -> tuple[Customer, str]:
    """Return one question of a batch.

    :raises Malformed: when it cannot be asked, naming ``part``, its place.
    """
    if not isinstance(check, dict):
        raise Malformed(part, "must be an object with customer and lookup_key")
    for name in check:
        if name not in ("customer", "lookup_key", "account"):
            raise Malformed(part, f"has an unknown member {name[:40]!r}")
    if check.get("account") is not None:
        account = account_id(check["account"], part=f"{part}.account")
    customer = Customer(customer_id(check.get("customer"), part=f"{part}.customer"), account)
    return customer, lookup_key(check.get("lookup_key"), part=f"{part}.lookup_key")
