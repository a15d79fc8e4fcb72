"""Health, status and metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sidecar.app import assembled
from sidecar.demo import FakeStripe, Fault
from sidecar.errors import RequestRejected
from sidecar.kit.lifecycle import Phase
from sidecar.listeners import listening
from tests.fakes import KEY, SECRET, Running, running, settings_for


async def test_health_does_not_depend_on_stripe(upstream: str, stripe: FakeStripe) -> None:
    """With Stripe broken every endpoint stays green, and none of them asks Stripe."""
    stripe.break_with(Fault.ERROR)
    async with running(upstream, deadline=0.05) as sidecar:
        await sidecar.check("cus_1", "a")
        asked = stripe.count()
        for path in ("/livez", "/startupz", "/readyz"):
            assert await_ok(await sidecar.get(path))
        assert stripe.count() == asked


def await_ok(answer: tuple[int, dict[str, object]]) -> bool:
    """Tell whether a health answer says yes in both ways."""
    return answer[0] == 200 and answer[1]["ok"] is True


async def test_ready_ends_with_the_shutdown(sidecar: Running) -> None:
    """Draining is not ready, but started and alive."""
    sidecar.sidecar.lifecycle.enter(Phase.DRAINING)
    status, body = await sidecar.get("/readyz")
    assert (status, body["ok"], body["phase"]) == (503, False, "draining")
    assert await_ok(await sidecar.get("/startupz"))
    assert await_ok(await sidecar.get("/livez"))


async def test_a_late_loop_is_not_alive(sidecar: Running) -> None:
    """When the loop has not come round for longer than it may, liveness says no."""
    sidecar.clock.advance(60)
    status, body = await sidecar.get("/livez")
    assert (status, body["ok"]) == (503, False)
    assert body["event_loop_lag_seconds"] > 50


async def test_status_says_why_and_since_when(upstream: str, stripe: FakeStripe) -> None:
    """The last failure with its code, Stripe's request id and the moment; nothing of any customer."""
    stripe.grant("cus_secret", "a")
    async with running(upstream, deadline=2) as sidecar:
        _, before = await sidecar.get("/status")
        assert (before["stripe"]["state"], before["stripe"]["last_failure"]) == ("untried", None)
        await sidecar.check("cus_secret", "a")
        _, fine = await sidecar.get("/status")
        assert fine["stripe"]["state"] == "ok"
        assert fine["cache"]["customers"] == 1
        assert fine["budget"]["left"] == 10_000 - 1 or fine["budget"]["left"] == 10_000
        stripe.permissions = frozenset()
        stripe.key = "rk_test_narrow"
    async with running(upstream, stripe_api_key="rk_test_narrow") as sidecar:
        await sidecar.check("cus_secret", "a")
        _, broken = await sidecar.get("/status")
        failure = broken["stripe"]["last_failure"]
        assert broken["stripe"]["state"] == failure["code"] == "permission_missing"
        assert "rak_entitlement_read" in failure["detail"]
        assert failure["request_id"] == stripe.requests[-1].request_id
        assert "cus_secret" not in str(broken)


async def test_an_account_is_no_business_of_the_status(stripe: FakeStripe, upstream: str) -> None:
    """What Stripe says of an account that a caller named neither shows nor counts as a failure of our key."""
    stripe.grant("cus_1", "a")
    async with running(upstream) as sidecar:
        await sidecar.check("cus_1", "a")
        answer = await sidecar.check("cus_1", "a", Stripe_Account="acct_secret")
        assert answer["code"] == "permission_missing"
        _, body = await sidecar.get("/status")
        assert body["stripe"]["state"] == "ok"
        assert "acct_secret" not in str(body)
    stripe.key, stripe.permissions = "rk_test_narrow", frozenset()
    async with running(upstream, stripe_api_key="rk_test_narrow") as sidecar:
        await sidecar.check("cus_1", "a")
        _, body = await sidecar.get("/status")
        assert body["stripe"]["state"] == "permission_missing"
        assert "rak_entitlement_read" in body["stripe"]["last_failure"]["detail"]


async def test_a_refused_request_is_not_quoted(sidecar: Running) -> None:
    """Stripe's words about a request may name a customer, so the status leaves them out."""
    sidecar.sidecar.client.health.failed(RequestRejected("about cus_secret", status=400))
    _, body = await sidecar.get("/status")
    assert (body["stripe"]["last_failure"]["code"], body["stripe"]["last_failure"]["detail"]) == (
        "request_rejected",
        None,
    )


async def test_status_says_how_far_news_has_come(upstream: str, stripe: FakeStripe) -> None:
    """The feed's state and watermark, who waits to be read again, and whether the feed was caught out."""
    stripe.grant("cus_secret", "a")
    async with running(upstream, webhook_secret=SECRET) as sidecar:
        stripe.now = sidecar.clock
        stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET)
        _, before = await sidecar.get("/status")
        assert before["feed"] == {
            "state": "untried",
            "since": before["feed"]["since"],
            "last_failure": None,
            "watermark": None,
            "gaps": 0,
            "dirty": 0,
            "audit_differences": 0,
        }
        sidecar.clock.advance(100)
        await sidecar.check("cus_secret", "a")
        await sidecar.sidecar.feed.poll()
        _, fine = await sidecar.get("/status")
        assert (fine["feed"]["state"], fine["stripe"]["state"]) == ("ok", "ok")
        assert before["now"] < fine["feed"]["watermark"] < fine["feed"]["since"] <= fine["now"]
        stripe.break_with(Fault.ENDLESS)  # fails without a retry
        stripe.revoke("cus_secret", "a")
        await stripe.delivered()
        await sidecar.sidecar.feed.poll()
        _, broken = await sidecar.get("/status")
        while broken["feed"]["dirty"] != 1:  # while it is being read it waits no longer
            await asyncio.sleep(0.001)
            _, broken = await sidecar.get("/status")
        assert (broken["feed"]["state"], broken["feed"]["watermark"]) == ("broken", fine["feed"]["watermark"])
        assert broken["feed"]["last_failure"]["code"] == "broken"
        assert broken["feed"]["last_failure"]["detail"] is None, "it might name a customer; the log has it"
        assert "cus_secret" not in str(broken)
        stripe.break_with(None)


async def test_status_says_that_the_feed_was_caught_out(upstream: str, stripe: FakeStripe) -> None:
    """A list that changed without an event, once the watermark has passed it."""
    stripe.grant("cus_secret", "a")
    async with running(upstream) as sidecar:
        stripe.now = sidecar.clock
        sidecar.clock.advance(100)
        await sidecar.check("cus_secret", "a")
        for seconds in (0, 100):
            sidecar.clock.advance(seconds)
            await sidecar.sidecar.feed.poll()
        stripe.visible_after = 1e9  # what happens from now on is in no list of events
        stripe.revoke("cus_secret", "a")
        await sidecar.ask("POST", "/v1/customers/cus_secret/refresh")
        assert (await sidecar.get("/status"))[1]["feed"]["audit_differences"] == 0, "it may come yet"
        sidecar.clock.advance(100)
        await sidecar.sidecar.feed.poll()
        _, body = await sidecar.get("/status")
        assert body["feed"]["audit_differences"] == 1
        assert "cus_secret" not in str(body)
        metrics = await sidecar.metrics()
        assert "entitlement_sidecar_feed_audit_differences_total 1.0" in metrics
        assert "entitlement_sidecar_feed_audits_total 1.0" in metrics


async def test_status_says_that_there_is_no_feed(upstream: str) -> None:
    """Nothing to be late, nothing to have failed."""
    async with running(upstream, events_poll=0) as sidecar:
        _, body = await sidecar.get("/status")
        assert body["feed"] == {"state": "off", "watermark": None, "gaps": 0, "dirty": 0, "audit_differences": 0}


async def test_status_names_the_permission_that_the_feed_lacks(upstream: str, stripe: FakeStripe) -> None:
    """What to allow the key, and under which id Stripe logged the refusal; entitlements are none the worse."""
    stripe.key, stripe.permissions = "rk_test_narrow", frozenset({"rak_entitlement_read"})
    stripe.grant("cus_1", "a")
    async with running(upstream, stripe_api_key=stripe.key) as sidecar:
        await sidecar.check("cus_1", "a")
        await sidecar.sidecar.feed.poll()
        _, body = await sidecar.get("/status")
        failure = body["feed"]["last_failure"]
        assert (body["stripe"]["state"], body["stripe"]["last_failure"]) == ("ok", None)
        assert body["feed"]["state"] == failure["code"] == "permission_missing"
        assert "rak_event_read" in failure["detail"]
        assert (failure["status"], failure["request_id"]) == (403, stripe.requests[-1].request_id)
        assert await_ok(await sidecar.get("/readyz"))


async def test_metrics_in_both_formats(sidecar: Running) -> None:
    """Prometheus text by default, OpenMetrics when the scraper prefers it."""
    async with sidecar.session.get(f"{sidecar.ops_url}/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "entitlement_sidecar_build_info" in await response.text()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with sidecar.session.get(f"{sidecar.ops_url}/metrics", headers=accept) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")
    assert KEY not in await sidecar.metrics()


async def test_status_says_what_the_rules_are(upstream: str) -> None:
    """How long answers are trusted, by lookup key, in the order in which globs are compared."""
    async with running(upstream, stale_for='{"seats-*": "72h"}') as sidecar:
        _, body = await sidecar.get("/status")
        _, explained = await sidecar.get("/v1/customers/cus_1/explain")
    assert body["freshness"] == {"fresh_for": 300.0, "stale_for": {"seats-*": 259_200.0, "*": 86_400.0}}
    assert explained["stale_for"] == body["freshness"]["stale_for"]


class TestQuit:
    async def test_is_not_there_unless_wanted(self, sidecar: Running) -> None:
        """Whoever reaches the listener could end the process."""
        assert await posted(sidecar) == 404

    async def test_answers_and_ends(self, upstream: str) -> None:
        """In this order; only POST asks for it."""
        async with quitting(upstream) as (session, url, stop):
            async with session.get(url) as response:
                assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert not stop.is_set()
            async with session.post(url) as response:
                assert (response.status, await response.json()) == (200, {"ok": True})
            assert stop.is_set()

    @pytest.mark.parametrize(
        ("options", "status", "code"),
        [
            ({"headers": {"Origin": "https://evil.example"}}, 403, "origin_not_allowed"),
            ({"headers": {"Origin": "null"}}, 403, "origin_not_allowed"),
            ({"data": b"{}"}, 400, "malformed_body"),
        ],
        ids=range(3),
    )
    async def test_is_not_for_browsers(self, upstream: str, options: dict[str, Any], status: int, code: str) -> None:
        """Any page can make one send a request to this host; it then says where the page is from."""
        async with quitting(upstream) as (session, url, stop):
            async with session.post(url, **options) as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (status, code)
            assert not stop.is_set()


async def posted(sidecar: Running) -> int:
    async with sidecar.session.post(f"{sidecar.ops_url}/quitquitquit") as response:
        return response.status


@asynccontextmanager
async def quitting(upstream: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str, asyncio.Event]]:
    """Serve a sidecar that may be told to end; yield what is set then."""
    stop = asyncio.Event()
    async with (
        assembled(settings_for(upstream, quit_endpoint=True), stop=stop.set) as sidecar,
        listening(*sidecar.listeners),
        aiohttp.ClientSession() as session,
    ):
        yield session, f"http://{sidecar.ops.addresses[0]}/quitquitquit", stop
