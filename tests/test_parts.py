"""How the larger parts are made of the settings."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar import app
from sidecar.demo import FakeStripe
from sidecar.model import Customer
from sidecar.stores.memory import Memory
from sidecar.stores.sqlite import Sqlite
from tests.fakes import FakeClock, running, settings_for


async def test_replicas_share_the_budget(upstream: str) -> None:
    """Each of four replicas takes a quarter of rate and burst, but at least one request at once."""
    async with app.assembled(settings_for(upstream, rate=20, burst=2, replicas=4)) as sidecar:
        rates = {
            metric.name: metric.samples[0].value for metric in sidecar.metrics.collect() if "budget" in metric.name
        }
    assert rates["entitlement_sidecar_budget_rate_requests_per_second"] == 5
    assert rates["entitlement_sidecar_budget_left_requests"] == 1


@pytest.mark.parametrize(("poll", "lag", "fresh_for", "warned"), [(300, 30, 300, 1), (300, 30, 600, 0), (0, 30, 1, 0)])
async def test_a_feed_too_slow_for_its_purpose_is_warned_of(
    upstream: str, caplog: pytest.LogCaptureFixture, poll: float, lag: float, fresh_for: float, warned: int
) -> None:
    """Customers would be read one by one before the next poll can vouch for them."""
    async with app.assembled(settings_for(upstream, events_poll=poll, events_lag=lag, fresh_for=fresh_for)):
        assert len([message for message in caplog.messages if "fresh_for above 440 s" in message]) == warned


async def test_the_store_is_what_the_settings_say(upstream: str, tmp_path: Path) -> None:
    """None, or a file that is open, and is told of all that memory holds should it come back."""
    async with running(upstream) as sidecar:
        assert isinstance(sidecar.sidecar.store, Memory)
    async with running(upstream, store=f"sqlite://{tmp_path}/lists.db", store_bytes=1 << 22) as sidecar:
        store = sidecar.sidecar.store
        assert isinstance(store, Sqlite)
        assert (store.trouble, store.max_bytes) == (None, 1 << 22)
        assert store.everything == sidecar.sidecar.heart.cache.snapshots


async def polling(sidecar: app.Sidecar, polls: int) -> None:
    """Run the feed until there were so many polls, and it sleeps."""
    loop = asyncio.get_running_loop().create_task(sidecar.feed.run())
    while sum(sidecar.feed.polls.values()) < polls:
        await asyncio.sleep(0.001)
    for _ in range(10):  # what it would still do without waiting, it does
        await asyncio.sleep(0)
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop


class TestTheFeed:
    async def test_is_one_of_the_loops(self, upstream: str, stripe: FakeStripe) -> None:
        """Events are read from the start on."""
        async with running(upstream, loops=True) as sidecar:
            while not sidecar.sidecar.feed.polls["complete"]:
                await asyncio.sleep(0.001)
        assert stripe.count("events") == 1

    async def test_is_off_without_an_interval(self, upstream: str, stripe: FakeStripe) -> None:
        """Then there is one loop less, no reading of them, and the status says so."""
        async with running(upstream, loops=True, events_poll=0) as sidecar:
            assert sidecar.sidecar.feed.run not in sidecar.sidecar.loops
            assert (await sidecar.get("/status"))[1]["feed"]["state"] == "off"
            assert "entitlement_sidecar_feed_lag_seconds NaN" in await sidecar.metrics()
        assert stripe.count("events") == 0

    async def test_reads_connected_accounts_that_were_asked_about(self, upstream: str, stripe: FakeStripe) -> None:
        """Since the last poll; nobody's events are read for nothing."""
        for account in ("acct_1", "acct_2", "acct_3"):
            stripe.grant("cus_1", "a", account=account)
        async with running(upstream) as sidecar:
            for account in ("acct_2", "acct_1", "acct_2"):
                await sidecar.check("cus_1", "a", Stripe_Account=account)
                await sidecar.check("cus_1", "a", Stripe_Account=account)
            await polling(sidecar.sidecar, 3)
            assert events_read(stripe) == [None, "acct_1", "acct_2"]
            await sidecar.check("cus_1", "a", Stripe_Account="acct_2")
            await polling(sidecar.sidecar, 5)
            assert events_read(stripe)[3:] == [None, "acct_2"]

    async def test_reads_connected_accounts_while_the_budget_has_some_left(
        self, upstream: str, stripe: FakeStripe, clock: FakeClock
    ) -> None:
        """Our own account comes first, and callers before everybody else's events."""
        for account in ("acct_1", "acct_2"):
            stripe.grant("cus_1", "a", account=account)
        settings = settings_for(upstream, rate=1, burst=4)
        async with app.assembled(settings, clock=clock) as sidecar:
            for account in ("acct_1", "acct_2") * 2:
                await sidecar.heart.checker.check(Customer("cus_1", account), "a")
            await polling(sidecar, 2)
            assert events_read(stripe) == [None, "acct_1"]
            assert sidecar.client.requests["events", "200"] == 2


async def test_a_clock_ahead_of_stripes_keeps_its_watermark_by_stripes_time(
    upstream: str, stripe: FakeStripe, tmp_path: Path
) -> None:
    """The next process may have the right time, and must not begin after what has not happened yet."""
    async with running(upstream, store=f"sqlite://{tmp_path}/lists.db") as sidecar:
        sidecar.clock.advance(600)
        for _ in range(2):
            assert await sidecar.sidecar.feed.poll()
        until = sidecar.sidecar.heart.watermarks.until(None)
        (kept,) = sidecar.sidecar.store.spans[None]
        assert until is not None
        assert kept.until < until - 500


def events_read(stripe: FakeStripe) -> list[str | None]:
    """Return whose events were read, in order."""
    return [seen.account for seen in stripe.requests if seen.operation == "events"]
