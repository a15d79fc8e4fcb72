"""Health, status and metrics."""

from sidecar.demo import FakeStripe, Fault
from sidecar.errors import RequestRejected
from sidecar.kit.lifecycle import Phase
from tests.fakes import KEY, Running, running


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
