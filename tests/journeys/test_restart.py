"""A sidecar that is started again answers from its store, with true ages."""

import asyncio
from pathlib import Path

import pytest

from sidecar.demo import FakeStripe, Fault
from tests.fakes import SECRET, Running, running
from tests.journeys.test_news import PATIENT, Told


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/lists.db"


async def learn(sidecar: Running, *customers: str) -> None:
    for customer in customers:
        await sidecar.ask("POST", f"/v1/customers/{customer}/refresh")


async def test_a_restart_while_stripe_is_down(upstream: str, stripe: FakeStripe, store: str) -> None:
    """Known customers are answered with the age of their list; the store says so, and the others the policy."""
    stripe.grant("cus_1", "a")
    async with running(upstream, store=store) as sidecar:
        before = await sidecar.check("cus_1", "a")
    stripe.break_with(Fault.ERROR)
    asked = stripe.count()
    async with running(upstream, store=store, deadline=0.2) as sidecar:
        first = await sidecar.check("cus_1", "a")
        assert (first["entitled"], first["source"], first["as_of"]) == (True, "store", before["as_of"])
        assert first["age"] > before["age"]
        assert (await sidecar.check("cus_1", "b"))["source"] == "memory"
        assert stripe.count() == asked
        assert (await sidecar.check("cus_2", "a"))["source"] == "policy"
        sidecar.clock.advance(1000)
        assert (await sidecar.check("cus_1", "a"))["stale"] is True
        sidecar.clock.advance(90_000)
        assert (await sidecar.check("cus_1", "a"))["source"] == "policy", "older than stale_for"
        _, status = await sidecar.get("/status")
        assert status["store"]["state"] == "ok"
    stripe.break_with(None)


@pytest.mark.timeout(90)
async def test_a_thousand_questions_after_a_restart(
    upstream: str, stripe: FakeStripe, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch, no request to Stripe, and each customer is looked for once."""
    monkeypatch.setattr("sidecar.core.checker.SLOW_STORE", 60.0)  # of a machine that is slow, the store is not
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    customers = [f"cus_{number}" for number in range(250)]
    async with running(upstream, store=store, **PATIENT) as sidecar:
        for customer in customers:
            stripe.grant(customer, "a")
        checks = [{"customer": customer, "lookup_key": "a"} for customer in customers * 4]
        for first in range(0, 250, 25):  # however slow the machine is, none of them waits too long
            await sidecar.ask("POST", "/v1/checks", json={"checks": checks[first : first + 25]})
    asked = stripe.count()
    async with running(upstream, store=store, **PATIENT) as sidecar:
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        assert all(answer["entitled"] for answer in body["results"])
        assert stripe.count() == asked
        metrics = await sidecar.metrics()
        assert 'entitlement_sidecar_store_reads_total{outcome="found"} 250.0' in metrics
        assert 'entitlement_sidecar_checks_total{reason="entitled",source="store"} ' in metrics


async def test_the_feed_goes_on_where_it_was(upstream: str, stripe: FakeStripe, store: str) -> None:
    """What it heard of before vouches for the lists; what changed meanwhile it tells of, though nobody asked."""
    today, stripe.now = stripe.now, lambda: today() - 1000
    stripe.grant("cus_1", "a")
    stripe.grant("cus_2", "a")
    stripe.now = today
    knobs = {"store": store, "events_lag": 0, **PATIENT}
    async with running(upstream, **knobs) as sidecar:
        await learn(sidecar, "cus_1", "cus_2")
        for _ in range(2):
            assert await sidecar.sidecar.feed.poll()
        until = sidecar.sidecar.heart.watermarks.until(None)
    stripe.revoke("cus_2", "a")
    async with running(upstream, **knobs) as sidecar:
        assert sidecar.sidecar.heart.watermarks.until(None) == until
        assert await sidecar.sidecar.feed.poll()
        assert sidecar.sidecar.feed.polls["gap"] == 0
        known, changed = await sidecar.check("cus_1", "a"), await sidecar.check("cus_2", "a")
        assert (known["entitled"], known["source"], known["stale"]) == (True, "store", False)
        assert (changed["entitled"], changed["source"]) == (False, "upstream")


async def test_acknowledged_news_is_not_forgotten(upstream: str, stripe: FakeStripe, store: str) -> None:
    """A webhook that was answered with 200 marks customers who are in the store only; the next process knows."""
    knobs = {"store": store, "webhook_secret": SECRET, "events_poll": 0, **PATIENT}
    stripe.grant("cus_1", "a")
    async with running(upstream, **knobs) as sidecar:
        await learn(sidecar, "cus_1")
    stripe.revoke("cus_1", "a")
    *_, event = stripe.accounts[None].events.known(stripe.now()).values()
    stripe.break_with(Fault.ERROR)
    async with running(upstream, **knobs) as sidecar:
        told = Told(sidecar, stripe, stripe.add_endpoint("http://127.0.0.1:9/", SECRET))
        assert await told.deliver(event) == "news"
        assert sidecar.sidecar.heart.news.counts["webhook", "not_held"] == 1
        assert sidecar.sidecar.store.pending == 0, "it is on the disk before it is acknowledged"
    async with running(upstream, **{**knobs, "dirty_wait": 0.1}) as sidecar:
        assert (await sidecar.check("cus_1", "a"))["stale"] is True, "dirty, and Stripe is down"
    stripe.break_with(None)
    async with running(upstream, **knobs) as sidecar:
        assert (await sidecar.check("cus_1", "a"))["entitled"] is False


async def test_a_damaged_store_is_no_obstacle(upstream: str, stripe: FakeStripe, store: str, tmp_path: Path) -> None:
    """It is put aside, status and metrics tell, and customers are asked of Stripe again."""
    (tmp_path / "lists.db").write_bytes(b"not a database, but long enough to be looked at")
    stripe.grant("cus_1", "a")
    async with running(upstream, store=store) as sidecar:
        assert (await sidecar.check("cus_1", "a"))["source"] == "upstream"
        assert 'entitlement_sidecar_store_losses_total{code="corrupt"} 1.0' in await sidecar.metrics()
        assert (await sidecar.get("/status"))[1]["store"]["state"] == "ok"
    assert (tmp_path / "lists.db.set-aside").exists()


async def test_a_store_that_cannot_be_used_is_no_obstacle(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """Readiness stays green; status and a metric say why there is none."""
    stripe.grant("cus_1", "a")
    async with running(upstream, store=f"sqlite://{tmp_path}/missing/lists.db") as sidecar:
        assert (await sidecar.check("cus_1", "a"))["entitled"] is True
        status = (await sidecar.get("/status"))[1]["store"]
        assert status["state"] == "gone"
        assert "missing/lists.db" in status["detail"]
        assert (await sidecar.get("/readyz"))[0] == 200
        assert "entitlement_sidecar_store_failing 1.0" in await sidecar.metrics()


async def test_two_processes_do_not_share_a_file(upstream: str, stripe: FakeStripe, store: str) -> None:
    """The second goes on with memory alone."""
    stripe.grant("cus_1", "a")
    async with running(upstream, store=store), running(upstream, store=store) as second:
        assert (await second.get("/status"))[1]["store"]["state"] == "in_use"
        assert (await second.check("cus_1", "a"))["source"] == "upstream"
