"""The parts, put together."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar import app
from sidecar.demo import FakeStripe, Fault
from sidecar.kit.clock import steady_clock
from sidecar.kit.lifecycle import Phase
from sidecar.model import Customer
from tests.fakes import KEY, SECRET, FakeClock, running, settings_for


async def test_it_serves_until_it_is_told_to_stop(upstream: str, stripe: FakeStripe) -> None:
    """Both listeners answer once ``started`` is told, and are gone when ``serve`` returns."""
    stripe.grant("cus_1", "a")
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with asyncio.TaskGroup() as group:
        _ = group.create_task(app.serve(settings_for(upstream), stop, started=begin))
        await started.wait()
        (sidecar,) = found
        url = f"http://{sidecar.checks.addresses[0]}/v1/customers/cus_1/entitlements/a"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert (await response.json())["entitled"] is True
        phases = [sidecar.lifecycle.phase]
        stop.set()
    phases.append(sidecar.lifecycle.phase)
    assert phases == [Phase.SERVING, Phase.DRAINING]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)


async def test_what_is_under_way_is_finished_first(upstream: str, stripe: FakeStripe) -> None:
    """A question that waits for Stripe when the process is told to stop gets its answer."""
    stripe.grant("cus_1", "a")
    stripe.break_with(Fault.SLOW, delay=0.1)
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
        _ = group.create_task(app.serve(settings_for(upstream), stop, started=begin))
        await started.wait()
        url = f"http://{found[0].checks.addresses[0]}/v1/customers/cus_1/entitlements/a"
        asking = group.create_task(session.get(url))
        while not stripe.count():
            await asyncio.sleep(0.001)
        stop.set()
        async with await asking as response:
            assert (await response.json())["entitled"] is True


async def test_a_loop_that_dies_ends_the_process(upstream: str) -> None:
    """An error in a loop closes the listeners and comes out of ``serve``."""
    good, started = steady_clock(), asyncio.Event()

    def clock() -> float:
        if started.is_set():
            raise ZeroDivisionError("the clock broke")
        return good()

    with pytest.raises(ExceptionGroup) as raised:
        await app.serve(settings_for(upstream), asyncio.Event(), started=lambda _: started.set(), clock=clock)
    assert raised.group_contains(ZeroDivisionError)


async def test_a_loop_that_ends_is_a_dead_loop() -> None:
    """Loops run for ever; one that returns is as bad as one that raises."""

    async def short() -> None: ...

    with pytest.raises(RuntimeError, match="must not"):
        await app.loop_forever(short)


async def test_a_key_from_a_file(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """The file's key is used, without the line's end."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    async with app.assembled(settings_for(upstream, stripe_api_key_file=tmp_path / "key")) as sidecar:
        assert (await sidecar.heart.checker.refresh(Customer("cus_1"))).snapshot.unknown is not None
    assert stripe.requests[0].headers["Authorization"] == f"Bearer {KEY}"


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


async def test_a_shutdown_lets_nobody_wait(upstream: str, stripe: FakeStripe) -> None:
    """A check that waits for a grant is answered with what is known, and the process ends."""
    stripe.add_customer("cus_1")
    stop, started = asyncio.Event(), asyncio.Event()
    found: list[app.Sidecar] = []

    def begin(sidecar: app.Sidecar) -> None:
        found.append(sidecar)
        started.set()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        serving = group.create_task(app.serve(settings_for(upstream, deadline=15), stop, started=begin))
        await started.wait()
        url = f"http://{found[0].checks.addresses[0]}/v1/customers/cus_1/entitlements/a?wait=30s"
        waiting = group.create_task(answered(session, url))
        while not len(found[0].heart.vigil):
            await asyncio.sleep(0.01)
        stop.set()
        assert (await waiting)["reason"] == "not_entitled"
        await serving


async def answered(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        found: dict[str, Any] = await response.json()
    return found


async def test_webhooks_are_taken_with_a_secret_only(upstream: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without one there is no listener to take them; the log says on which addresses what is."""
    caplog.set_level(logging.INFO, "sidecar")
    found: list[list[str]] = []
    for knobs in ({}, {"webhook_secret": SECRET}):
        stop = asyncio.Event()

        def begin(sidecar: app.Sidecar, stop: asyncio.Event = stop) -> None:
            found.append([*sidecar.checks.addresses, *sidecar.ops.addresses, *(sidecar.webhooks.addresses or [""])])
            stop.set()

        await app.serve(settings_for(upstream, **knobs), stop, started=begin)
    said = [message for message in caplog.messages if message.startswith(("answering", "taking"))]
    (checks, ops, nothing), (checks_too, ops_too, webhooks) = found
    assert said == [
        f"answering checks on {checks}, health and metrics on {ops}",
        "taking no webhooks: there is no webhook_secret",
        f"answering checks on {checks_too}, health and metrics on {ops_too}",
        f"taking webhooks on {webhooks}",
    ]
    assert not nothing


async def test_each_listener_has_its_own_routes(upstream: str) -> None:
    """What is reachable from the internet takes webhooks and answers nothing else."""
    async with running(upstream, webhook_secret=SECRET) as sidecar:
        async with sidecar.session.post(f"{sidecar.webhook_url}/webhooks/stripe") as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (400, "no_signature")
        for method, path in (("GET", "/metrics"), ("GET", "/status"), ("POST", "/v1/checks"), ("GET", "/v1/changes")):
            async with sidecar.session.request(method, sidecar.webhook_url + path) as response:
                assert response.status == 404
        for url in (sidecar.url, sidecar.ops_url):
            async with sidecar.session.post(f"{url}/webhooks/stripe") as response:
                assert response.status == 404


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
        """Then there is one loop less, no request, and the status says so."""
        async with running(upstream, loops=True, events_poll=0) as sidecar:
            assert len(sidecar.sidecar.loops) == 2
            assert (await sidecar.get("/status"))[1]["feed"]["state"] == "off"
            assert "entitlement_sidecar_feed_lag_seconds NaN" in await sidecar.metrics()
        assert stripe.count() == 0

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


def events_read(stripe: FakeStripe) -> list[str | None]:
    """Return whose events were read, in order."""
    return [seen.account for seen in stripe.requests if seen.operation == "events"]
