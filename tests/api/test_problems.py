"""Errors as answers."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sidecar.api.problems import TITLES, from_error, from_http, in_stripes_words, problems
from sidecar.core.refresher import OUTCOMES
from sidecar.errors import (
    Broken,
    KeyRejected,
    Malformed,
    NoAnswer,
    NotAllowed,
    OverBudget,
    PermissionMissing,
    Throttled,
    TimedOut,
    UnknownCustomer,
    UpstreamError,
)


def test_every_way_to_fail_has_a_title() -> None:
    """No code of an upstream error is without words of its own."""
    codes = {error.code for error in UpstreamError.__subclasses__()} | set(OUTCOMES)
    assert codes - TITLES.keys() == {"landed", "cancelled", "cursor_vanished"}, "the last never leaves the client"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAllowed("unauthorized", "x", status=401), 401),
        (Malformed("customer", "x"), 400),
        (UnknownCustomer(404, "No such customer"), 404),
        (KeyRejected("x", status=401), 401),
        (PermissionMissing("x", status=403), 403),
        (Throttled("x"), 429),
        (OverBudget("x"), 429),
        (Broken("x"), 503),
        (NoAnswer("deadline", "x", cause=TimedOut("x")), 503),
        (NoAnswer("throttled", "x", cause=Throttled("x")), 429),
        (NoAnswer("not_cached", "x"), 504),
    ],
)
def test_errors_in_stripes_words(error: Exception, status: int) -> None:
    """Each gets the status by which Stripe's SDKs choose the class that they raise."""
    found, body = in_stripes_words(error)  # type: ignore[arg-type]
    assert found == status
    assert body["error"]["message"]
    assert body["error"]["type"] == ("invalid_request_error" if status < 500 else "api_error")


def test_an_upstream_error_is_503_with_its_code() -> None:
    """Retry-After invites to come again; the code says what was wrong."""
    response = from_error(Throttled("slow down"))
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert b'"code":"throttled"' in response.body  # type: ignore[operator]


def test_other_errors_of_the_server_keep_their_status() -> None:
    """What aiohttp refuses for reasons of its own stays refused so."""
    assert from_http(web.HTTPExpectationFailed()).status == 417


async def test_a_defect_is_500_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody expected tells the caller nothing of itself and the log everything."""

    async def broken(_: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError("secret detail")

    response = await problems(make_mocked_request("GET", "/v1/x"), broken)
    assert response.status == 500
    assert isinstance(response, web.Response)
    assert b"secret detail" not in response.body  # type: ignore[operator]
    assert "secret detail" in caplog.text
