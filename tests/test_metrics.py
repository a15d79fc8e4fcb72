"""Every metric, as Prometheus reads it."""

import shutil
import subprocess
from math import inf, isnan

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.demo import FakeStripe, Fault
from sidecar.kit.tally import Tally
from sidecar.metrics import histogram
from tests.api.test_checks import give
from tests.fakes import SECRET, Running, running


def values(text: str) -> dict[str, float]:
    """Return the samples by name and labels, the prefix left out."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix('entitlement_sidecar_')}{{{labels}}}"] = sample.value
    return found


async def test_what_happened_is_counted(sidecar: Running, stripe: FakeStripe) -> None:
    """One story, and every number that it should have left behind."""
    give(stripe, "cus_1", 101)
    for key in ("feature-001", "feature-001", "other"):
        await sidecar.check("cus_1", key)
    await sidecar.check("cus_nobody", "a")
    stripe.break_with(Fault.ENDLESS)
    stripe.add_customer("cus_2")
    await sidecar.check("cus_2", "a")
    found = values(await sidecar.metrics())
    assert found["checks_total{reason=entitled,source=upstream}"] == 1
    assert found["checks_total{reason=entitled,source=memory}"] == 1
    assert found["checks_total{reason=not_entitled,source=memory}"] == 1
    assert found["checks_total{reason=unknown_customer,source=upstream}"] == 1
    assert found["checks_total{reason=unavailable,source=policy}"] == 1
    assert found["policy_answers_total{policy=deny}"] == 1
    assert found["check_duration_seconds_count{}"] == 3
    assert found["answer_age_seconds_count{}"] == 4
    assert found["answer_age_seconds_bucket{le=+Inf}"] == 4
    assert found["flights_total{outcome=landed}"] == 1
    assert found["flights_total{outcome=unknown_customer}"] == 1
    assert found["flights_total{outcome=broken}"] == 1
    assert found["flight_pages_bucket{le=1.0}"] == 1
    assert found["flight_pages_bucket{le=2.0}"] == 2
    assert found["upstream_requests_total{operation=list,status=200}"] == 3
    assert found["upstream_requests_total{operation=list,status=400}"] == 1
    assert found["upstream_duration_seconds_count{}"] == stripe.count() == 4
    assert found["cache_customers{}"] == 2
    assert 0 < found["cache_bytes{}"] < found["cache_max_bytes{}"]
    assert found["http_requests_total{route=/v1/customers/{customer}/entitlements/{lookup_key},status=200}"] == 5
    assert found["flights_in_the_air{}"] == found["tasks{}"] == 0
    assert found["process_resident_memory_bytes{}"] > 0


async def test_a_failing_upstream_shows(sidecar: Running, stripe: FakeStripe) -> None:
    """The gauge is 1 from the first failed request to the next that succeeds."""
    stripe.break_with(Fault.NOT_JSON, times=4)
    stripe.add_customer("cus_1")
    assert values(await sidecar.metrics())["upstream_failing{}"] == 0
    await sidecar.check("cus_1", "a", "?default=deny")
    assert values(await sidecar.metrics())["upstream_failing{}"] == 1
    await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    assert values(await sidecar.metrics())["upstream_failing{}"] == 0


FROM_THE_START = {
    "feed_lag_seconds{}": inf,
    "feed_polls_total{outcome=complete}": 0,
    "feed_polls_total{outcome=gap}": 0,
    "feed_polls_total{outcome=permission_missing}": 0,
    "feed_news_total{effect=marked,origin=webhook}": 0,
    "feed_news_total{effect=not_held,origin=feed}": 0,
    "feed_news_total{effect=duplicate,origin=feed}": 0,
    "feed_dirty_customers{}": 0,
    "feed_reflights_total{}": 0,
    "feed_audits_total{}": 0,
    "feed_audit_differences_total{}": 0,
    "webhooks_total{outcome=news}": 0,
    "webhooks_total{outcome=bad_signature}": 0,
    "changes_total{kind=granted}": 0,
    "changes_total{kind=revoked}": 0,
    "changes_subscribers{}": 0,
    "upstream_requests_total{operation=events,status=200}": 0,
}


async def test_news_is_counted(upstream: str, stripe: FakeStripe) -> None:
    """All of it at zero from the start; then each event by who told, and each change by what it was."""
    stripe.grant("cus_1", "a")
    async with running(upstream, webhook_secret=SECRET, dirty_wait=5, deadline=15) as sidecar:
        stripe.now = sidecar.clock
        sidecar.clock.advance(100)
        found = values(await sidecar.metrics())
        assert {name: found[name] for name in FROM_THE_START} == FROM_THE_START
        assert [
            name for name, value in found.items() if value and name.startswith(("feed", "webhooks", "changes"))
        ] == ["feed_lag_seconds{}"]
        endpoint = stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET)
        await sidecar.check("cus_1", "a")
        stripe.revoke("cus_1", "a")
        stripe.grant("cus_unasked", "a")
        await stripe.delivered()
        await sidecar.check("cus_1", "a")
        endpoint.lose()
        stripe.grant("cus_1", "b")
        async with sidecar.session.get(f"{sidecar.url}/v1/changes") as stream:
            await stream.content.readline()
            await sidecar.sidecar.feed.poll()
            await sidecar.check("cus_1", "b")
            sidecar.clock.advance(10)
            found = values(await sidecar.metrics())
        assert 40 <= found["feed_lag_seconds{}"] < 60
        counts = {
            name: value for name, value in found.items() if value and name.startswith(("feed", "webhooks", "cha"))
        }
        del counts["feed_lag_seconds{}"]
        assert counts == {
            "feed_polls_total{outcome=complete}": 1,
            "feed_news_total{effect=marked,origin=webhook}": 1,
            "feed_news_total{effect=not_held,origin=webhook}": 1,
            "feed_news_total{effect=duplicate,origin=feed}": 1,
            "feed_news_total{effect=not_held,origin=feed}": 1,
            "feed_news_total{effect=marked,origin=feed}": 1,
            "webhooks_total{outcome=news}": 2,
            "changes_total{kind=revoked}": 1,
            "changes_total{kind=granted}": 1,
            "changes_subscribers{}": 1,
        }
        assert found["upstream_requests_total{operation=events,status=200}"] == stripe.count("events") == 1
        assert found["upstream_requests_total{operation=list,status=200}"] == stripe.count("list") == 3
        assert found["http_requests_total{route=/webhooks/stripe,status=200}"] == 2


async def test_a_feed_that_is_off_has_no_lag(upstream: str) -> None:
    """No number at all: an alert on it stays silent."""
    async with running(upstream, events_poll=0) as sidecar:
        assert isnan(values(await sidecar.metrics())["feed_lag_seconds{}"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
async def test_promtool_finds_nothing_to_say(sidecar: Running, stripe: FakeStripe) -> None:
    """Names, units, types and help follow Prometheus' conventions."""
    stripe.grant("cus_1", "a")
    await sidecar.check("cus_1", "a")
    text = await sidecar.metrics()
    assert promtool(text) == (0, "")


def promtool(text: str) -> tuple[int, str]:
    """Return what promtool makes of a page of metrics."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)  # noqa: S607 -- found above
    return checked.returncode, checked.stdout + checked.stderr


def test_a_histogram_adds_up() -> None:
    """Buckets are cumulative, the last is infinite, and the sum is the sum."""
    tally = Tally([1, 10])
    for value in (0.5, 1, 5, 50):
        tally.add(value)
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in histogram("x", "y", tally).samples}
    assert samples == {
        ("entitlement_sidecar_x_bucket", "1.0"): 2,
        ("entitlement_sidecar_x_bucket", "10.0"): 3,
        ("entitlement_sidecar_x_bucket", "+Inf"): 4,
        ("entitlement_sidecar_x_count", None): 4,
        ("entitlement_sidecar_x_sum", None): 56.5,
    }
