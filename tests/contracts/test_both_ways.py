"""One history, told to a sidecar with its shortcuts and to one without: the same answers, and the same page of metrics."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest
from prometheus_client import generate_latest

from sidecar.app import Sidecar, assembled
from sidecar.demo import FakeStripe, serving
from sidecar.kit.lifecycle import Phase
from sidecar.listeners import listening
from tests.fakes import KEY, FakeClock, settings_for, way

CHECK = "/v1/customers/cus_1/entitlements/a"

REQUESTS: list[tuple[float, str, str, dict[str, str]]] = [
    (0.0, "GET", CHECK, {}),
    (0.1, "GET", CHECK, {}),
    (0.3, "GET", CHECK, {}),
    (0.0, "GET", CHECK, {"X-Request-Id": "abc 1"}),
    (0.0, "GET", CHECK, {"X-Request-Id": "a" * 201}),
    (0.6, "GET", CHECK, {}),
    (3.9999, "GET", CHECK, {"Connection": "keep-alive", "User-Agent": "one"}),
    (0.0001, "GET", CHECK, {"User-Agent": "one"}),
    (0.0001, "GET", CHECK, {"User-Agent": "one"}),
    (0.0001, "POST", "/v1/checks", {}),
    (0.0, "POST", "/v1/checks", {"X-Request-Id": "abc 2", "Content-Type": "application/json"}),
    (0.0, "POST", "/v1/checks", {"Cache-Control": "max-age=5"}),
    (0.0, "GET", CHECK.replace("/a", "/b"), {}),
    (0.0, "HEAD", CHECK, {}),
    (0.0, "GET", CHECK + "?default=allow", {}),
    (0.0, "GET", CHECK, {"Cache-Control": "max-age=5"}),
    (0.0, "GET", CHECK, {"Cache-Control": "max-age=600"}),
    (0.0, "GET", CHECK, {"Cache-Control": "max-age=x"}),
    (0.0, "GET", CHECK, {"Cache-Control": "no-cache"}),
    (0.2, "GET", CHECK, {"Host": "evil.example"}),
    (0.0, "GET", CHECK, {"Stripe-Account": "acct_other"}),
    (0.2, "GET", CHECK, {"Stripe-Account": "acct_other"}),
    (0.0, "GET", CHECK, {"Stripe-Account": "cus_1"}),
    (0.0, "GET", "/v1/customers/cus_1/entitlements", {}),
    (0.2, "GET", "/v1/customers/cus_1/entitlements", {}),
    (0.2, "GET", "/v1/customers/cus_1/entitlements", {"If-None-Match": "*"}),
    (0.0, "GET", "/v1/customers/cus_nobody/entitlements", {}),
    (0.5, "GET", "/v1/customers/cus_nobody/entitlements", {}),
    (0.5, "GET", "/v1/customers/cus_nobody/entitlements/a", {}),
    (0.0, "GET", "/v1/entitlements/active_entitlements?customer=cus_1", {}),
    (0.3, "GET", "/v1/entitlements/active_entitlements?customer=cus_1&limit=1", {}),
    (0.3, "GET", "/v1/entitlements/active_entitlements?customer=cus_1&limit=1", {}),
    (0.3, "GET", "/v1/entitlements/active_entitlements?customer=cus_nobody", {}),
    (0.0, "POST", "/v1/checks", {}),
    (0.0, "GET", "/nowhere", {}),
    (219.0, "GET", CHECK, {}),
    (200.0, "GET", CHECK, {"Cache-Control": "only-if-cached"}),
    (0.0, "POST", "/v1/customers/cus_1/refresh", {}),
    (0.25, "GET", CHECK, {}),
]
"""After how many seconds, what, and with which fields."""

OF_THE_PROCESS = re.compile(
    r"(# (HELP|TYPE) )?(process_|entitlement_sidecar_(event_loop|upstream_duration|connections|budget_))"
)


@dataclass
class Told:
    """What a sidecar did in answer to the history."""

    answers: list[tuple[int, dict[str, str], Any]]
    metrics: list[str]
    log: list[str]


@asynccontextmanager
async def sidecar_at(clock: FakeClock) -> AsyncIterator[tuple[Sidecar, aiohttp.ClientSession]]:
    """Serve a sidecar whose time stands still, in front of a Stripe of its own."""
    stripe = FakeStripe(key=KEY, now=clock)
    for key in ("a", "c"):
        stripe.grant("cus_1", key)
        stripe.grant("cus_1", key, account="acct_other")
    async with (
        serving(stripe) as upstream,
        assembled(settings_for(upstream), clock=clock) as sidecar,
        listening(*way.taken(sidecar)),
        aiohttp.ClientSession() as session,
    ):
        sidecar.lifecycle.enter(Phase.SERVING)
        yield sidecar, session


async def tell(caplog: pytest.LogCaptureFixture) -> Told:
    """Tell a sidecar the history."""
    caplog.clear()
    clock = FakeClock()
    answers = []
    async with sidecar_at(clock) as (sidecar, session):
        base = f"http://{sidecar.checks.addresses[0]}"
        for after, method, path, fields in REQUESTS:
            clock.advance(after)
            body: dict[str, Any] = (
                {"data": b'{"checks":[{"customer":"cus_1","lookup_key":"a"}]}'} if path == "/v1/checks" else {}
            )
            async with session.request(method, base + path, headers=fields, **body) as response:
                content = await response.read()
                headers = {name: value for name, value in response.headers.items() if name != "Date"}
                if method != "HEAD" and content:
                    assert int(headers.pop("Content-Length")) == len(content)
                answers.append((response.status, headers, orjson.loads(content) if content else None))
            while len(sidecar.heart.tasks):  # what was begun in passing
                await session.get(f"http://{sidecar.ops.addresses[0]}/livez")
        page = generate_latest(sidecar.metrics).decode()
    lines = [line for line in page.splitlines() if not OF_THE_PROCESS.match(line)]
    log = [
        f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name.startswith("sidecar.")
    ]
    return Told(answers, lines, [re.sub(r"127\.0\.0\.1:\d+", "…", line) for line in log])


async def test_it_cannot_be_told_which_way_a_request_was_answered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statuses, fields, bodies, the page of metrics to the last digit, and the log are the same."""
    caplog.set_level(logging.DEBUG)
    fast = await tell(caplog)
    monkeypatch.setattr(way, "has_shortcuts", False)
    slow = await tell(caplog)
    for request, one, other in zip(REQUESTS, fast.answers, slow.answers, strict=True):
        assert one == other, request
    assert fast.metrics == slow.metrics
    assert fast.log == slow.log
    assert {status for status, _, _ in fast.answers} >= {200, 304, 400, 404, 421}
    (hits,) = [line for line in fast.metrics if 'checks_total{reason="entitled",source="memory"}' in line]
    assert float(hits.split()[-1]) > 10
