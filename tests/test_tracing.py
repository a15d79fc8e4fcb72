"""Questions that leave memory are traced, to a collector on a real port."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.api.listening import Served, bind
from sidecar.demo import FakeStripe, Fault
from sidecar.errors import BadSettings
from sidecar.kit.address import Address
from sidecar.kit.door import Door
from tests.fakes import KEY, running

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
CHECK = "/v1/customers/{customer}/entitlements/{lookup_key}"


@dataclass
class Collector:
    """Takes spans by OTLP over HTTP; does not answer while it ``hangs``."""

    spans: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    hangs: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.hangs:
            await self.released.wait()
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response()

    @property
    def told(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        """Each span in order of their beginnings: its name, its parent's name or id, its attributes."""
        ordered = sorted(self.spans, key=lambda span: span.start_time_unix_nano)
        names = {span.span_id: span.name for span in ordered}
        return [
            (span.name, names.get(span.parent_span_id, span.parent_span_id.hex() or None), attributes(span))
            for span in ordered
        ]

    @property
    def tree(self) -> list[tuple[str, str | None]]:
        """Each span's name, and its parent's."""
        return [(name, parent) for name, parent, _ in self.told]


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    found, app = Collector(), web.Application()
    app.add_routes([web.post("/v1/traces", found.receive)])
    served, bound = Served(app, Door(1000)), bind(Address("127.0.0.1", 0))
    await served.open([bound])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}")
    yield found
    found.released.set()
    for thread in threading.enumerate():
        if thread.name == "flush traces":
            await asyncio.to_thread(thread.join)
    await served.close()


async def test_a_miss_has_a_span_of_the_request_the_flight_and_each_page(
    collector: Collector, upstream: str, stripe: FakeStripe
) -> None:
    """The caller's ``traceparent`` is above them, Stripe is told of the one it works for, and no customer is named."""
    for number in range(101):
        stripe.grant("cus_secret", f"key-{number}")
    async with running(upstream, traces=True) as sidecar:
        assert (await sidecar.check("cus_secret", "key-1", traceparent=TRACEPARENT))["entitled"] is True
    request, flight = f"GET {CHECK}", "fetch"
    assert collector.tree == [(request, CALLER), (flight, request), ("stripe list", flight), ("stripe list", flight)]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    (_, _, of_request), (_, _, of_flight), (_, _, first), _ = collector.told
    assert of_request == {
        "http.request.method": "GET",
        "http.route": CHECK,
        "http.response.status_code": 200,
        "reason": "entitled",
        "source": "upstream",
        "flight": "landed",
    }
    assert of_flight == {"pages": 2, "outcome": "landed"}
    assert first == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "http.response.status_code": 200,
        "stripe.request_id": stripe.requests[0].request_id,
    }
    sent = {span.span_id.hex() for span in collector.spans if span.name == "stripe list"}
    assert {seen.headers["traceparent"] for seen in stripe.requests} == {f"00-{TRACE}-{id_}-01" for id_ in sent}
    assert all(b"cus_secret" not in body and KEY.encode() not in body for body in collector.raw)


async def test_what_memory_answers_has_no_span(collector: Collector, upstream: str, stripe: FakeStripe) -> None:
    """Not even when its age starts a refresh, nor when the caller wants nothing but memory."""
    stripe.grant("cus_1", "a")
    async with running(upstream, traces=True) as sidecar:
        await sidecar.check("cus_1", "a")
        known = stripe.count()
        await sidecar.check("cus_1", "a")
        await sidecar.check("cus_2", "a", Cache_Control="only-if-cached")
        await sidecar.get("/v1/customers/cus_2/entitlements", Cache_Control="only-if-cached")
        sidecar.clock.advance(600)
        assert (await sidecar.check("cus_1", "a"))["stale"] is True
        while stripe.count() == known or sidecar.sidecar.heart.refresher.in_the_air():
            await asyncio.sleep(0.001)
        assert "traceparent" not in stripe.requests[-1].headers
    assert collector.tree == [(f"GET {CHECK}", None), ("fetch", f"GET {CHECK}"), ("stripe list", "fetch")]


async def test_other_ways_out_of_memory_are_traced(collector: Collector, upstream: str, stripe: FakeStripe) -> None:
    """A list, a refresh, a batch, and what is passed on; an error by its code, without its text."""
    stripe.grant("cus_1", "a")
    relayed = "/v1/entitlements/active_entitlements?customer=cus_1&expand[]=data.feature"
    async with running(upstream, traces=True, deadline=15) as sidecar:
        await sidecar.get("/v1/customers/cus_1/entitlements")
        await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
        await sidecar.get(relayed)
        checks = [{"customer": customer, "lookup_key": "a"} for customer in ("cus_1", "cus_2", "cus_3")]
        await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        stripe.break_with(Fault.NOT_JSON)
        status, _ = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    told = [of for of in collector.told if of[0].startswith(("GET", "POST"))]
    assert [(name.rpartition("/")[2], noted.get("source")) for name, _, noted in told] == [
        ("entitlements", "upstream"),
        ("refresh", "upstream"),
        ("active_entitlements", None),
        ("checks", "upstream"),
        ("refresh", None),
    ]
    assert (status, told[-1][2]["http.response.status_code"], told[-1][2]["error.type"]) == (503, 503, "broken")
    assert ("stripe relay", f"GET {told[2][0].partition(' ')[2]}") in collector.tree
    assert collector.tree.count(("fetch", "POST /v1/checks")) == 2
    failed = [noted for name, _, noted in collector.told if name == "fetch"][-1]
    assert (failed["pages"], failed["error.type"]) == (0, "broken")


async def test_nothing_is_traced_unless_it_is_wanted(collector: Collector, upstream: str, stripe: FakeStripe) -> None:
    """And then Stripe is told of no trace either."""
    stripe.grant("cus_1", "a")
    async with running(upstream) as sidecar:
        await sidecar.check("cus_1", "a", traceparent=TRACEPARENT)
    assert collector.raw == []
    assert "traceparent" not in stripe.requests[0].headers


async def test_a_collector_that_hangs_does_not_keep_the_process(
    collector: Collector, upstream: str, stripe: FakeStripe, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be sent in time is lost, and that is said."""
    caplog.set_level(logging.WARNING, "sidecar")
    collector.hangs = True
    stripe.grant("cus_1", "a")
    async with running(upstream, traces=True) as sidecar:
        await sidecar.check("cus_1", "a")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
    assert said == ["the last traces did not leave within 2 s"]
    assert collector.spans == []


async def test_the_extra_is_named_when_it_is_missing(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process does not start, and says how to get it; a defect of ours would look otherwise."""
    monkeypatch.delitem(sys.modules, "sidecar.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(BadSettings) as caught:
        async with running(upstream, traces=True):
            pass
    assert caught.value.complaints == ["SIDECAR_TRACES: needs the extra otel: pip install 'entitlement-sidecar[otel]'"]
