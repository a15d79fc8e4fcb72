"""Stripe fails in every way there is: checks go on, within their deadline, with their true age."""

import asyncio
from math import inf
from urllib.parse import urlsplit

import pytest

from sidecar.demo import FakeStripe, Fault, serving
from sidecar.kit.breaker import State
from sidecar.model import Customer
from tests.api.test_checks import give
from tests.fakes import Running, running

FAILURES = [
    Fault.ERROR,
    Fault.THROTTLED,
    Fault.LOCK_TIMEOUT,
    Fault.HTML,
    Fault.NOT_JSON,
    Fault.HALF,
    Fault.HANG,
    Fault.RESET,
    Fault.ENDLESS,
    Fault.REPEATED,
    Fault.OTHER_MODE,
]

CODES = {"broken", "throttled", "unreachable", "deadline", "circuit_open", "over_budget"}


async def learn(sidecar: Running, customer: str) -> None:
    """Have the customer's list read, without a deadline, on however slow a machine."""
    await sidecar.sidecar.heart.refresher.renew(Customer(customer))


@pytest.mark.parametrize("fault", FAILURES)
async def test_answers_go_on(upstream: str, stripe: FakeStripe, fault: Fault) -> None:
    """What is known is answered from memory, marked stale, with an age that counts on; the unknown by policy."""
    stripe.grant("cus_known", "a")
    stripe.grant("cus_other", "a")
    async with running(upstream, deadline=0.15, policy='{"open-*": "allow"}') as sidecar:
        await learn(sidecar, "cus_known")
        first = await sidecar.check("cus_known", "a")
        sidecar.clock.advance(1000)
        stripe.break_with(fault)
        known = await sidecar.check("cus_known", "a")
        assert (known["entitled"], known["stale"], known["source"]) == (True, True, "memory")
        assert known["as_of"] == first["as_of"]
        assert known["age"] >= 1000
        closed, opened = await sidecar.check("cus_other", "a"), await sidecar.check("cus_other", "open-1")
        for answer, entitled in ((closed, False), (opened, True)):
            assert (answer["entitled"], answer["reason"], answer["source"]) == (entitled, "unavailable", "policy")
            assert answer["code"] in CODES
            assert (answer["age"], answer["as_of"]) == (None, None)
        again = await sidecar.check("cus_known", "a")
        assert again["age"] >= known["age"], "serving an answer does not renew its age"
        sidecar.clock.advance(90_000)
        assert (await sidecar.check("cus_known", "a"))["source"] == "policy", "older than stale_for"
        stripe.break_with(None)


@pytest.mark.parametrize("fault", FAILURES)
async def test_stripe_is_used_again_by_itself(upstream: str, stripe: FakeStripe, fault: Fault) -> None:
    """Once Stripe is mended the next question reads it, without a restart of ours."""
    stripe.grant("cus_1", "a")
    stripe.break_with(fault)
    async with running(upstream, deadline=0.05) as sidecar:
        assert (await sidecar.check("cus_1", "a"))["source"] == "policy"
        stripe.break_with(None)
        while (answer := await sidecar.check("cus_1", "a"))["source"] == "policy":
            await asyncio.sleep(0.01)
        assert answer["entitled"] is True
        assert (await sidecar.get("/status"))[1]["stripe"]["state"] == "ok"


async def test_an_outage_costs_no_caller_the_deadline(upstream: str, stripe: FakeStripe) -> None:
    """Once it is clear that Stripe fails, nobody waits for it: the old is answered at once, and so is the policy."""
    stripe.grant("cus_known", "a")
    async with running(upstream, deadline=15, events_poll=0) as sidecar:
        await learn(sidecar, "cus_known")
        sidecar.clock.advance(90_000)  # older than stale_for
        stripe.break_with(Fault.ERROR)
        breaker = sidecar.sidecar.client.breakers["list"]
        while breaker.state is not State.OPEN:
            assert (await sidecar.check("cus_known", "a"))["source"] == "policy"
        breaker._until = inf  # for as long as this test takes
        sent, began = stripe.count(), sidecar.clock()
        for place in range(50):
            answer = await sidecar.check(f"cus_{place}", "a")
            assert (answer["source"], answer["code"]) == ("policy", "circuit_open")
        known = await sidecar.check("cus_known", "a", Cache_Control="max-stale")
        assert (known["entitled"], known["stale"]) == (True, True)
        assert sidecar.clock() - began < 15
        assert stripe.count() == sent
        assert sidecar.sidecar.client._limiter.left > 9_000, "nobody took a token"
        stripe.break_with(None)
        breaker._until = 0.0
        assert (await sidecar.check("cus_known", "a"))["source"] == "upstream"
        assert breaker.opened == 1
        assert breaker.lets_through


async def test_an_outage_is_told_with_its_cause(upstream: str, stripe: FakeStripe) -> None:
    """`/status` says what Stripe's last failure was, and so do the breaker and the metrics."""
    async with running(upstream, deadline=15, events_poll=0) as sidecar:
        stripe.break_with(Fault.ERROR)
        breaker = sidecar.sidecar.client.breakers["list"]
        while breaker.state is not State.OPEN:
            await sidecar.check("cus_1", "a")
        breaker._until = inf
        assert (await sidecar.check("cus_2", "a"))["code"] == "circuit_open"
        _, status = await sidecar.get("/status")
        assert status["stripe"]["state"] == "broken", "the real cause"
        assert status["breakers"]["list"] == {
            "state": "open",
            "since": status["breakers"]["list"]["since"],
            "last_failure": {"code": "broken", "detail": None, "status": 500},
        }
        assert status["breakers"]["events"]["state"] == "closed"
        metrics = await sidecar.metrics()
        for sample in (
            'breaker_state{operation="list",state="open"} 1.0',
            'breaker_state{operation="list",state="closed"} 0.0',
            'breaker_opened_total{operation="list"} 1.0',
            "upstream_failing 1.0",
        ):
            assert f"entitlement_sidecar_{sample}" in metrics
        stripe.break_with(None)


async def test_a_limiter_that_refuses_is_heeded(upstream: str, stripe: FakeStripe) -> None:
    """A 429 halves the rate, which `/status` and the metrics say; a customer who is locked does not."""
    async with running(upstream, deadline=15, rate=1000, burst=1000, events_poll=0) as sidecar:
        stripe.grant("cus_1", "a")
        stripe.break_with(Fault.LOCK_TIMEOUT, times=1)
        assert (await sidecar.check("cus_1", "a"))["source"] == "upstream"
        _, status = await sidecar.get("/status")
        assert (status["budget"]["rate"], status["budget"]["slowed_since"]) == (1000, None)
        stripe.grant("cus_2", "a")
        stripe.break_with(Fault.THROTTLED, times=1)
        assert (await sidecar.check("cus_2", "a"))["source"] == "upstream"
        _, status = await sidecar.get("/status")
        assert 500 <= status["budget"]["rate"] < 1000
        assert (status["budget"]["configured_rate"], status["budget"]["throttled"]) == (1000, 1)
        assert status["budget"]["slowed_since"] is not None
        metrics = await sidecar.metrics()
        assert "entitlement_sidecar_budget_throttled_total 1.0" in metrics
        assert "entitlement_sidecar_budget_configured_rate_requests_per_second 1000.0" in metrics
        assert 'entitlement_sidecar_budget_wait_seconds_count{class="caller"} 4.0' in metrics
        assert 'entitlement_sidecar_budget_wait_seconds_count{class="news"} 0.0' in metrics
        assert status["breakers"]["list"]["state"] == "closed"
        sidecar.clock.advance(200)
        _, status = await sidecar.get("/status")
        assert (status["budget"]["rate"], status["budget"]["slowed_since"]) == (1000, None)


async def test_a_restarted_stripe(stripe: FakeStripe) -> None:
    """Stripe goes away altogether and comes back at the same address."""
    stripe.grant("cus_1", "a")
    async with serving(stripe) as upstream:
        port = urlsplit(upstream).port or 0
        starting = running(upstream, deadline=0.2)
        sidecar = await starting.__aenter__()
        await learn(sidecar, "cus_1")
    try:
        sidecar.clock.advance(1000)
        gone = await sidecar.check("cus_1", "a")
        assert (gone["entitled"], gone["stale"]) == (True, True)
        assert (await sidecar.check("cus_2", "a"))["code"] in ("unreachable", "deadline")
        stripe.revoke("cus_1", "a")
        async with serving(stripe, port=port):
            while (answer := await sidecar.check("cus_1", "a", Cache_Control="max-age=300")).get(
                "entitled"
            ) is not False:
                await asyncio.sleep(0.01)
            assert answer["reason"] == "not_entitled"
    finally:
        await starting.__aexit__(None, None, None)


@pytest.mark.parametrize("page", [0, 1, 2])
@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HALF, Fault.ENDLESS, Fault.REPEATED, Fault.OTHER_MODE])
async def test_a_failure_on_any_page_leaves_the_old_answer(
    upstream: str, stripe: FakeStripe, page: int, fault: Fault
) -> None:
    """A read that failed half-way changes nothing: every old entitlement holds, at its true age."""
    keys = give(stripe, "cus_1", 250)
    async with running(upstream, deadline=0.5) as sidecar:
        await learn(sidecar, "cus_1")
        _, before = await sidecar.get("/v1/customers/cus_1/entitlements")
        stripe.revoke("cus_1", keys[0])
        sidecar.clock.advance(1000)
        stripe.break_with(fault, after=page)
        status, _ = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
        assert status == 503
        _, after = await sidecar.get("/v1/customers/cus_1/entitlements")
        assert after["entitlements"] == before["entitlements"]
        assert (after["as_of"], after["stale"]) == (before["as_of"], True)
        assert after["age"] >= 1000
        stripe.break_with(None)
        status, renewed = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
        while status == 503:
            status, renewed = await sidecar.ask("POST", "/v1/customers/cus_1/refresh")
        assert [item["lookup_key"] for item in renewed["entitlements"]] == stripe.held("cus_1")


async def test_a_cursor_that_vanishes_restarts_the_read(sidecar: Running, stripe: FakeStripe) -> None:
    """The last entitlement of a page is revoked before the next page is asked for: the read starts over and is whole."""
    give(stripe, "cus_1", 250)
    at_cursor = stripe.held("cus_1")[99]

    def revoke_before_the_second_page(_: object) -> None:
        if stripe.count("list") == 2:
            stripe.revoke("cus_1", at_cursor)

    stripe.on_request = revoke_before_the_second_page
    _, body = await sidecar.get("/v1/customers/cus_1/entitlements")
    assert [item["lookup_key"] for item in body["entitlements"]] == stripe.held("cus_1")
    assert len(body["entitlements"]) == 249
    assert stripe.count("list") == 5
    assert 'entitlement_sidecar_flights_total{outcome="landed"} 1.0' in await sidecar.metrics()


async def test_a_stale_customer_costs_one_flight_not_one_per_question(upstream: str, stripe: FakeStripe) -> None:
    """While Stripe fails, a hundred questions about one stale customer start one refresh, not a hundred."""
    stripe.grant("cus_1", "a")
    async with running(upstream) as sidecar:
        await sidecar.check("cus_1", "a")
        sidecar.clock.advance(1000)
        stripe.break_with(Fault.ENDLESS)  # fails without a retry
        for _ in range(100):
            assert (await sidecar.check("cus_1", "a"))["stale"] is True
        assert 2 <= stripe.count() <= 10, "it is tried again by and by, which a slow machine lives to see"
        stripe.break_with(None)


async def test_stale_customers_do_not_use_up_the_budget(upstream: str, stripe: FakeStripe) -> None:
    """A hundred stale answers start as many refreshes as the budget has left over; who waits is not kept waiting."""
    for place in range(100):
        stripe.grant(f"cus_{place}", "a")
    async with running(upstream, rate=1000, burst=300, deadline=15) as sidecar:
        checks = [{"customer": f"cus_{place}", "lookup_key": "a"} for place in range(100)]
        await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        sidecar.clock.advance(1000)
        bucket = sidecar.sidecar.client._limiter.bucket
        bucket.configured = bucket._rate = 20.0
        bucket.burst = 5.0
        asked = stripe.count()
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        assert all(answer["stale"] for answer in body["results"])
        stripe.grant("cus_new", "a")
        assert (await sidecar.check("cus_new", "a"))["source"] == "upstream"
        assert sidecar.sidecar.heart.refresher.deferred >= 90
        assert stripe.count() - asked <= 10


async def test_a_stripe_that_comes_back_is_not_overrun(upstream: str, stripe: FakeStripe) -> None:
    """Whoever has a token is at Stripe and not in a queue, from which all would leave at once when it answers again."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe.break_with(Fault.HANG)
    async with running(upstream, deadline=0.05, rate=1000, burst=150) as sidecar:
        checks = [{"customer": f"cus_{place}", "lookup_key": "a"} for place in range(150)]
        await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        while stripe.count() < 150:  # a pool of the usual size would let a hundred through
            await asyncio.sleep(0.01)
        stripe.break_with(None)


async def test_a_cold_start_with_stripe_down_is_not_a_wall(upstream: str, stripe: FakeStripe) -> None:
    """Many customers at once with a hanging Stripe: all get an answer by policy, the budget bounds what is sent."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe.break_with(Fault.HANG)
    async with running(upstream, deadline=0.2, rate=20, burst=5) as sidecar:
        began = sidecar.clock()
        checks = [{"customer": f"cus_{place}", "lookup_key": "a"} for place in range(1000)]
        _, body = await sidecar.ask("POST", "/v1/checks", json={"checks": checks})
        assert {answer["source"] for answer in body["results"]} == {"policy"}
        assert {answer["code"] for answer in body["results"]} <= {"deadline", "over_budget"}
        while stripe.count() < 5:
            await asyncio.sleep(0.01)
        assert stripe.count() <= 5 + 20 * (sidecar.clock() - began)
        stripe.break_with(None)
