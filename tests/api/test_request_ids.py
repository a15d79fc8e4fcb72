"""What a caller calls its request."""

import logging

import pytest

from sidecar.demo import FakeStripe, Fault
from sidecar.kit.request_id import request_id
from tests.fakes import Running, running

pytestmark = pytest.mark.usefixtures("each_way")


@pytest.mark.parametrize(
    "path", ["/v1/customers/cus_1/entitlements/a", "/livez", "/nowhere", "/v1/customers/-/explain"]
)
async def test_it_is_given_back(sidecar: Running, stripe: FakeStripe, path: str) -> None:
    """With every answer; in a problem it is a member too."""
    stripe.grant("cus_1", "a")
    base = sidecar.ops_url if path == "/livez" else sidecar.url
    async with sidecar.session.get(base + path, headers={"X-Request-Id": "abc 1"}) as response:
        assert response.headers["X-Request-Id"] == "abc 1"
        body = await response.json(content_type=None)
        assert body.get("request_id") == ("abc 1" if response.status >= 400 else None)
    async with sidecar.session.get(base + path) as response:
        assert "X-Request-Id" not in response.headers
        assert "request_id" not in await response.json(content_type=None)


@pytest.mark.parametrize("value", ["", "a" * 201, "ä", "a\tb"], ids=range(4))
async def test_what_cannot_be_one_is_ignored(sidecar: Running, value: str) -> None:
    """Nothing that is long, or could confuse a terminal, gets into an answer or the log."""
    async with sidecar.session.get(f"{sidecar.url}/nowhere", headers={"X-Request-Id": value}) as response:
        assert response.status == 404
        assert "X-Request-Id" not in response.headers
        assert "request_id" not in await response.json(content_type=None)


async def test_the_stream_of_changes_has_it_from_the_start(sidecar: Running) -> None:
    """Its end may be far away."""
    async with sidecar.session.get(f"{sidecar.url}/v1/changes", headers={"X-Request-Id": "abc"}) as response:
        assert (response.status, response.headers["X-Request-Id"]) == (200, "abc")


async def test_it_is_known_where_lines_are_logged(upstream: str, stripe: FakeStripe) -> None:
    """Also by the flight that the request began."""
    seen: dict[str, str | None] = {}

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen[record.getMessage().partition(" ")[0]] = request_id.get()

    stripe.break_with(Fault.ERROR)
    noting = Noting()
    logging.getLogger("sidecar").addHandler(noting)
    try:
        async with running(upstream, deadline=5) as sidecar:
            await sidecar.check("cus_1", "a", X_Request_Id="abc")
    finally:
        logging.getLogger("sidecar").removeHandler(noting)
    assert seen["reading"] == "abc"
