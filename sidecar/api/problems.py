"""Errors as problem+json (RFC 9457); on Stripe's surface, in Stripe's words."""

import logging
from http import HTTPStatus
from math import ceil
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from sidecar.api.answers import rounded_up
from sidecar.errors import (
    KeyRejected,
    NoAnswer,
    OverBudget,
    PermissionMissing,
    Refused,
    SidecarError,
    Throttled,
    UnknownCustomer,
)
from sidecar.kit.request_id import request_id
from sidecar.stripe import render

log = logging.getLogger(__name__)

TITLES = {
    "bad_signature": "The signature is not Stripe's",
    "body_too_large": "The body is too large",
    "body_too_slow": "The body did not arrive in time",
    "broken": "Stripe's answer could not be used",
    "circuit_open": "Stripe has failed too often and is left alone for a while",
    "deadline": "Stripe did not answer in time",
    "expectation_failed": "The expectation cannot be met",
    "head_too_large": "The request's head is too large",
    "head_too_slow": "The request's head did not arrive in time",
    "host_not_allowed": "This Host is not served here",
    "internal": "The sidecar has a defect",
    "key_rejected": "Stripe rejects the API key",
    "malformed_signature": "The signature cannot be read",
    "malformed_request": "The request is not HTTP",
    "method_not_allowed": "The path does not take this method",
    "no_signature": "The signature is missing",
    "not_cached": "Nothing acceptable is in memory",
    "not_found": "There is nothing at this path",
    "origin_not_allowed": "Browsers may not ask for this",
    "over_budget": "The budget of requests to Stripe is used up",
    "permission_missing": "The API key lacks a permission",
    "request_rejected": "Stripe refused the request",
    "signature_too_old": "The signature is too old",
    "throttled": "Stripe limits the rate of requests",
    "too_many_checks": "Too many checks in one request",
    "too_many_connections": "Too many connections",
    "too_many_subscribers": "Too many readers of the stream of changes",
    "too_old": "What is in memory is older than the request accepts",
    "unauthorized": "The token is missing or wrong",
    "unknown_customer": "Stripe knows no such customer",
    "unknown_parameter": "There is no such parameter",
    "unreachable": "Stripe cannot be reached",
    "unsupported_encoding": "The body must not be encoded",
    "wrong_mode": "The customer is of the mode that the API key is not of",
}

STRIPES_PATHS = render.LIST_PATH.rpartition("/")[0]


def problem(status: int, code: str, detail: str, **more: Any) -> web.Response:
    """Return a problem document; ``code`` is the stable word for machines, ``more`` are extension members."""
    members = {
        "type": f"urn:entitlement-sidecar:problem:{code}",
        "title": TITLES.get(code, "A part of the request is malformed"),
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    caller_says = request_id.get()
    if caller_says is not None:
        members["request_id"] = caller_says
    headers = CIMultiDict({"Cache-Control": "no-store"})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="entitlement-sidecar"'
    if more.get("age") is not None:
        headers["Age"] = str(ceil(more["age"]))
    return web.Response(
        body=orjson.dumps(members), status=status, content_type="application/problem+json", headers=headers
    )


def from_error(error: SidecarError) -> web.Response:
    """Return the problem that an error of ours stands for."""
    if isinstance(error, Refused):
        part = {} if error.part is None else {"part": error.part}
        return problem(error.status, error.code, error.detail, **part)
    if isinstance(error, NoAnswer):
        status = HTTPStatus.GATEWAY_TIMEOUT if error.code == "not_cached" else HTTPStatus.SERVICE_UNAVAILABLE
        more: dict[str, Any] = {} if error.age is None else {"age": rounded_up(error.age)}
        if error.cause is not None and error.cause.code != error.code:
            more["cause"] = error.cause.code
        return problem(status, error.code, error.detail, **more)
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, error.code, str(error))


def from_http(error: web.HTTPException) -> web.Response:
    """Return the problem that an error of aiohttp's stands for."""
    match error:
        case web.HTTPNotFound():
            return problem(404, "not_found", "there is nothing at this path")
        case web.HTTPMethodNotAllowed():
            methods = ", ".join(sorted(error.allowed_methods))
            response = problem(405, "method_not_allowed", f"this path takes {methods}, not {error.method}")
            response.headers["Allow"] = methods
            return response
        case web.HTTPRequestEntityTooLarge():
            return problem(413, "body_too_large", "the body is larger than 1 MiB")
        case _:
            return problem(error.status, "malformed_request", error.reason)


def in_stripes_words(error: SidecarError) -> tuple[int, dict[str, Any]]:
    """Return the status and body by which Stripe's SDKs raise the error that fits."""
    cause = error.cause or error if isinstance(error, NoAnswer) else error
    match cause:
        case Refused():
            param = (cause.part or "").partition("[")[0] or None
            return cause.status, render.error(cause.detail, code=cause.code, param=param)
        case UnknownCustomer():
            return cause.status, render.error(cause.message, code="resource_missing", param="customer")
        case KeyRejected() | PermissionMissing():
            return cause.status or 401, render.error(cause.detail)
        case Throttled() | OverBudget():
            return 429, render.error(cause.detail, code="rate_limit")
        case _:
            status = 504 if error.code == "not_cached" else 503
            return status, render.error(f"entitlement-sidecar has no answer: {error}", type_="api_error")


def from_error_for_stripe(error: SidecarError) -> web.Response:
    """Return an error in Stripe's words; asking again at once is pointless: the deadline has just passed."""
    status, body = in_stripes_words(error)
    headers = {"Stripe-Should-Retry": "false", "Cache-Control": "no-store"}
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


async def expectation(request: web.Request) -> web.StreamResponse | None:
    """Answer an ``Expect`` field (RFC 9110 §10.1.1), which aiohttp asks about before any middleware."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return problem(417, "expectation_failed", "Expect: only 100-continue can be expected")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # nothing of the answer itself has been sent
    return None


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an answer; what nobody expected is a defect, logged with its traceback."""
    on_stripes_surface = request.rel_url.raw_path.startswith(STRIPES_PATHS)
    try:
        return await handler(request)
    except SidecarError as error:
        return from_error_for_stripe(error) if on_stripes_surface else from_error(error)
    except web.HTTPException as error:
        if on_stripes_surface:
            body = render.error(f"Unrecognized request URL ({request.method}: {request.rel_url.raw_path}).")
            return web.Response(body=orjson.dumps(body), status=error.status, content_type="application/json")
        return from_http(error)
    except Exception:
        log.exception("a request failed in a way that nobody expected")
        return problem(500, "internal", "the sidecar has a defect; its log says more")
