"""News from Stripe, by webhook or by the list of events, from the change to the next answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import stripe as official
from aiohttp import web

from sidecar.demo import Endpoint, FakeStripe, Fault, sign
from sidecar.stripe.events import NEWS, Event, Sweep
from tests.demo.asking import Curl, aio
from tests.fakes import KEY, SECRET, Running, running

PATIENT: dict[str, Any] = {"dirty_wait": 5, "deadline": 40}
"""However slow the machine is, a check waits for the list that news asked for."""


@dataclass
class Told:
    """A sidecar that Stripe tells of changes."""

    sidecar: Running
    stripe: FakeStripe
    endpoint: Endpoint

    async def knows(self, customer: str = "cus_1", account: str | None = None) -> None:
        """Ask about a customer who is entitled since long before anybody was told of changes."""
        webhooks = self.stripe.webhooks
        webhooks.endpoints, endpoints = [], webhooks.endpoints
        self.stripe.grant(customer, "a", account=account)
        webhooks.endpoints = endpoints
        self.sidecar.clock.advance(100)
        assert await self.entitled(customer, **selecting(account)) is True

    async def entitled(self, customer: str = "cus_1", lookup_key: str = "a", **headers: str) -> bool | None:
        answer = await self.sidecar.check(customer, lookup_key, **headers)
        assert answer["stale"] is False
        return bool(answer["entitled"])

    async def explain(self, customer: str = "cus_1", **headers: str) -> dict[str, Any]:
        return (await self.sidecar.get(f"/v1/customers/{customer}/explain", **headers))[1]

    async def deliver(self, event: dict[str, Any]) -> str:
        """Deliver an event by hand and return what became of it."""
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, SECRET, int(self.stripe.now()))}
        url = f"{self.sidecar.webhook_url}/webhooks/stripe"
        async with self.sidecar.session.post(url, data=body, headers=headers) as response:
            return str((await response.json())["outcome"])

    async def poll(self) -> None:
        assert await self.sidecar.sidecar.feed.poll()

    async def outcomes(self) -> list[str]:
        """Return what became of webhooks so far, by the metric."""
        text, prefix = await self.sidecar.metrics(), 'entitlement_sidecar_webhooks_total{outcome="'
        counted = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
        return [line.partition('"')[0] for line in counted for _ in range(int(float(line.partition("} ")[2])))]


def selecting(account: str | None) -> dict[str, str]:
    """Return the header that selects an account."""
    return {"Stripe_Account": account} if account else {}


@asynccontextmanager
async def telling(stripe: FakeStripe, upstream: str, **knobs: Any) -> AsyncIterator[Told]:
    """Run a sidecar that has Stripe's webhooks; both go by one clock."""
    async with running(upstream, webhook_secret=SECRET, **PATIENT | knobs) as sidecar:
        stripe.now = sidecar.clock
        endpoint = stripe.add_endpoint(f"{sidecar.webhook_url}/webhooks/stripe", SECRET, connect=False)
        yield Told(sidecar, stripe, endpoint)


@pytest.fixture
async def told(stripe: FakeStripe, upstream: str) -> AsyncIterator[Told]:
    async with telling(stripe, upstream) as found:
        yield found


class TestAWebhook:
    async def test_flips_the_answer_at_the_price_of_one_read(self, told: Told, stripe: FakeStripe) -> None:
        """A revocation and a grant: once Stripe has its 200, the next answer is the new truth."""
        await told.knows()
        for reads, truth in ((2, False), (3, True)):
            _ = stripe.grant("cus_1", "a") if truth else stripe.revoke("cus_1", "a")
            await stripe.delivered()
            assert await told.entitled() is truth
            assert await told.entitled() is truth
            assert stripe.count("list") == reads
        assert stripe.count("events") == 0
        assert [delivery.status for delivery in told.endpoint.deliveries] == [200, 200]

    async def test_is_answered_before_stripe_is_asked(self, told: Told, stripe: FakeStripe) -> None:
        """The 200 waits for nothing; the check that comes right after it waits for the list that is on its way."""
        await told.knows()
        stripe.break_with(Fault.HANG, operation="list")
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        check = asyncio.get_running_loop().create_task(told.entitled())
        while stripe.count("list") < 2:
            await asyncio.sleep(0.001)
        assert not check.done()
        stripe.break_with(None)
        assert await check is False
        assert stripe.count("list") == 2

    async def test_leaves_the_old_answer_when_the_list_is_late(self, stripe: FakeStripe, upstream: str) -> None:
        """A check waits no longer than `dirty_wait`; then the old answer is marked, at its true age."""
        stripe.grant("cus_1", "a")
        async with telling(stripe, upstream, dirty_wait=0.05) as told:
            await stripe.delivered()
            first = await told.sidecar.check("cus_1", "a")
            told.sidecar.clock.advance(100)
            stripe.break_with(Fault.HANG, operation="list")
            stripe.revoke("cus_1", "a")
            await stripe.delivered()
            late = await told.sidecar.check("cus_1", "a")
            assert (late["entitled"], late["stale"], late["source"]) == (True, True, "memory")
            assert (late["as_of"], late["age"] >= 100) == (first["as_of"], True)
            assert (await told.explain())["state"] == "dirty"
            stripe.break_with(None)
            while (await told.sidecar.check("cus_1", "a"))["entitled"]:
                await asyncio.sleep(0.001)
            assert stripe.count("list") == 2

    async def test_about_nobody_we_know_costs_nothing(self, told: Told, stripe: FakeStripe) -> None:
        """Who was not asked about is read when somebody asks, and not before."""
        stripe.grant("cus_1", "a")
        await stripe.delivered()
        assert (await told.outcomes(), stripe.count()) == (["news"], 0)
        assert await told.entitled() is True

    async def test_that_comes_twice_costs_one_read(self, told: Told, stripe: FakeStripe) -> None:
        """Stripe delivers at least once, and the list of events tells the same again."""
        await told.knows()
        told.endpoint.duplicate()
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        assert await told.entitled() is False
        for _ in range(3):
            await told.poll()
        assert await told.entitled() is False
        assert await told.outcomes() == ["duplicate", "news"]
        assert stripe.count("list") == 2
        metrics = await told.sidecar.metrics()
        assert 'feed_news_total{effect="marked",origin="webhook"} 1.0' in metrics
        assert 'feed_news_total{effect="duplicate",origin="webhook"} 1.0' in metrics

    async def test_that_is_older_changes_nothing(self, told: Told, stripe: FakeStripe) -> None:
        """Events arrive in any order; what they say is not believed, only whom they name."""
        await told.knows()
        told.endpoint.lose()
        stripe.revoke("cus_1", "a")
        stripe.grant("cus_1", "a")
        await stripe.delivered()
        assert await told.entitled() is True
        _, revoked, granted = stripe.accounts[None].events.known(stripe.now()).values()
        assert [delivery.event for delivery in told.endpoint.deliveries if delivery.attempt] == [granted["id"]]
        assert revoked["data"]["object"]["entitlements"]["data"] == []
        assert await told.deliver(revoked) == "news"
        assert await told.entitled() is True
        assert stripe.count("list") == 3

    async def test_that_is_lost_is_made_up_for_by_the_next_poll(self, told: Told, stripe: FakeStripe) -> None:
        """The list of events has it."""
        await told.knows()
        await told.poll()
        told.endpoint.lose()
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        assert (await told.outcomes(), await told.entitled()) == ([], True)
        told.sidecar.clock.advance(60)
        await told.poll()
        assert await told.entitled() is False
        assert (stripe.count("list"), stripe.count("events")) == (2, 2)
        assert 'feed_news_total{effect="marked",origin="feed"} 1.0' in await told.sidecar.metrics()

    async def test_reaches_the_stream_of_changes(self, told: Told, stripe: FakeStripe) -> None:
        """Who listens there is told what went and came, without having asked."""
        await told.knows()
        async with told.sidecar.session.get(f"{told.sidecar.url}/v1/changes") as stream:
            await stream.content.readuntil(b"\n\n")
            for change, kind, key in ((stripe.revoke, b"revoked", b"a"), (stripe.grant, b"granted", b"b")):
                _ = change("cus_1", key.decode())
                event = await stream.content.readuntil(b"\n\n")
                assert event.startswith(b"event: %s\n" % kind)
                assert b'"customer":"cus_1"' in event
                assert b'"lookup_key":"%s"' % key in event

    async def test_that_is_not_stripes_changes_nothing(self, told: Told, stripe: FakeStripe) -> None:
        """An endpoint with another secret is somebody else's: its news is refused."""
        await told.knows()
        told.endpoint.secrets = ["whsec_another"]
        told.endpoint.attempts = 1
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        assert await told.outcomes() == ["bad_signature"]
        assert await told.entitled() is True
        assert stripe.count("list") == 1


class TestAFlightInTheAir:
    async def test_of_a_first_question_does_not_bring_back_what_was_revoked(
        self, told: Told, stripe: FakeStripe
    ) -> None:
        """What it read is from before the news, so it is read again before anybody is told."""
        stripe.grant("cus_1", "a")
        await stripe.delivered()
        stripe.break_with(Fault.HANG, operation="list")
        check = asyncio.get_running_loop().create_task(told.entitled())
        await revoked_meanwhile(stripe, reads=1)
        assert await check is False
        assert await told.entitled() is False
        assert stripe.count("list") == 2
        assert "entitlement_sidecar_feed_reflights_total 1.0" in await told.sidecar.metrics()

    async def test_of_a_refresh_does_not_bring_back_what_was_revoked(self, told: Told, stripe: FakeStripe) -> None:
        """Nor does one that somebody asked for, and its caller is told the truth as well."""
        await told.knows()
        stripe.break_with(Fault.HANG, operation="list")
        refresh = asyncio.get_running_loop().create_task(
            told.sidecar.ask("POST", "/v1/customers/cus_1/refresh", timeout=None)
        )
        await revoked_meanwhile(stripe, reads=2)
        status, body = await refresh
        assert (status, body["entitlements"]) == (200, [])
        assert await told.entitled() is False
        assert stripe.count("list") == 3

    async def test_is_overtaken_however_often(self, told: Told, stripe: FakeStripe) -> None:
        """Each change of a row is news; the last list is the truth, and few are read on the way."""
        await told.knows()
        for _ in range(10):
            stripe.revoke("cus_1", "a")
            stripe.grant("cus_1", "a")
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        assert await told.entitled() is False
        assert await told.outcomes() == ["news"] * 21
        assert stripe.count("list") <= 1 + 21


async def revoked_meanwhile(stripe: FakeStripe, *, reads: int) -> None:
    """Revoke while the so-manyth read hangs with the answer of before, and let it go when Stripe has its 200."""
    while stripe.count("list") < reads:
        await asyncio.sleep(0.001)
    stripe.revoke("cus_1", "a")
    await stripe.delivered()
    stripe.break_with(None)


class TestConnectedAccounts:
    async def test_are_told_apart(self, told: Told, stripe: FakeStripe) -> None:
        """News of one account's customer touches nobody of the same id."""
        told.endpoint.connect = True
        accounts = ("acct_1", "acct_2", None)
        for account in accounts:
            await told.knows(account=account)
        stripe.revoke("cus_1", "a", account="acct_1")
        await stripe.delivered()
        assert [await told.entitled(**selecting(account)) for account in accounts] == [False, True, True]
        assert [seen.account for seen in stripe.requests] == ["acct_1", "acct_2", None, "acct_1"]

    async def test_have_a_feed_of_their_own(self, told: Told) -> None:
        """Its watermark vouches for their customers, and for nobody else's."""
        for account in (None, "acct_1"):
            await told.knows(account=account)
        for seconds in (0, 200):
            told.sidecar.clock.advance(seconds)
            assert await told.sidecar.sidecar.feed.poll("acct_1")
        ours, theirs = await told.explain(), await told.explain(Stripe_Account="acct_1")
        assert (ours["watermark"], ours["snapshot"]["verified_by"]) == (None, "list")
        assert (theirs["watermark"], theirs["snapshot"]["verified_by"]) == (theirs["snapshot"]["as_of"], "feed")
        assert theirs["snapshot"]["age"] < 100 < ours["snapshot"]["age"]


class TestAnOutage:
    @pytest.fixture
    async def told(self, stripe: FakeStripe, upstream: str) -> AsyncIterator[Told]:
        """Nobody waits long for a list that cannot be read."""
        async with telling(stripe, upstream, dirty_wait=0.05) as found:
            yield found

    async def test_leaves_the_old_answer_until_it_is_over(self, told: Told, stripe: FakeStripe) -> None:
        """Marked, at an age that counts on; then the news is made good, although nobody asks."""
        await told.knows()
        first = await told.sidecar.check("cus_1", "a")
        stripe.break_with(Fault.ENDLESS, operation="list")  # fails without a retry
        stripe.revoke("cus_1", "a")
        await stripe.delivered()
        while stripe.count("list") < 2:
            await asyncio.sleep(0.001)
        for seconds in (100, 1000):
            told.sidecar.clock.advance(seconds)
            old = await told.sidecar.check("cus_1", "a")
            assert (old["entitled"], old["stale"], old["source"]) == (True, True, "memory")
            assert (old["as_of"], old["age"] >= seconds) == (first["as_of"], True)
        stripe.break_with(None)
        while (await told.explain())["state"] == "dirty":
            await asyncio.sleep(0.01)
        assert await told.entitled() is False

    async def test_does_not_let_the_feed_vouch_for_what_changed(self, told: Told, stripe: FakeStripe) -> None:
        """Events can be read, lists cannot: polls that go on do not make an answer young that is known to be old."""
        await told.knows()
        first = await told.sidecar.check("cus_1", "a")
        stripe.break_with(Fault.ENDLESS, operation="list")
        stripe.revoke("cus_1", "a")
        for _ in range(5):
            told.sidecar.clock.advance(60)
            await told.poll()
        old = await told.sidecar.check("cus_1", "a")
        assert (old["entitled"], old["stale"], old["as_of"]) == (True, True, first["as_of"])
        assert old["age"] >= 300
        stripe.break_with(None)

    async def test_of_events_lets_ages_be_those_of_the_lists(self, stripe: FakeStripe, upstream: str) -> None:
        """Without the permission answers go on, from lists that grow old and are read again."""
        stripe.key, stripe.permissions = "rk_test_narrow", frozenset({"rak_entitlement_read"})
        stripe.grant("cus_1", "a")
        async with running(upstream, stripe_api_key=stripe.key) as sidecar:
            first = await sidecar.check("cus_1", "a")
            sidecar.clock.advance(200)
            assert not await sidecar.sidecar.feed.poll()
            answer = await sidecar.check("cus_1", "a")
            assert (answer["as_of"], answer["age"] >= 200, answer["stale"]) == (first["as_of"], True, False)
            _, status = await sidecar.get("/status")
            assert status["stripe"]["state"] == "ok"
            assert (status["feed"]["state"], status["feed"]["watermark"]) == ("permission_missing", None)
            assert "rak_event_read" in status["feed"]["last_failure"]["detail"]


class TestAHealthyFeed:
    @pytest.mark.timeout(90)
    async def test_keeps_everybody_young_at_a_request_a_poll(self, told: Told, stripe: FakeStripe) -> None:
        """Two hundred customers for five hours: a list each, once, and one more for each who changes."""
        asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
        stripe.webhooks.endpoints.clear()
        customers = [f"cus_{number}" for number in range(200)]
        for customer in customers:
            stripe.grant(customer, "a")
        told.sidecar.clock.advance(100)
        checks = {"checks": [{"customer": customer, "lookup_key": "a"} for customer in customers]}

        async def answers() -> list[dict[str, Any]]:
            return list((await told.sidecar.ask("POST", "/v1/checks", json=checks))[1]["results"])

        polls = 300
        for number in range(polls):
            told.sidecar.clock.advance(60)
            await told.poll()
            if number % 30 == 0:
                found = await answers()
                assert all(answer["entitled"] and not answer["stale"] for answer in found)
                assert max(answer["age"] for answer in found) < 40
        assert (stripe.count("list"), stripe.count("events")) == (200, polls)
        stripe.revoke("cus_7", "a")
        told.sidecar.clock.advance(60)
        await told.poll()
        assert [answer["customer"] for answer in await answers() if not answer["entitled"]] == ["cus_7"]
        assert stripe.count("list") == 201

    async def test_does_not_keep_the_unknown_unknown(self, told: Told, stripe: FakeStripe) -> None:
        """That a customer is made is no event about entitlements."""
        assert (await told.sidecar.check("cus_1", "a"))["reason"] == "unknown_customer"
        told.sidecar.clock.advance(50)
        await told.poll()
        stripe.add_customer("cus_1")
        assert (await told.sidecar.check("cus_1", "a"))["reason"] == "unknown_customer"
        told.sidecar.clock.advance(20)
        await told.poll()
        assert (await told.sidecar.check("cus_1", "a"))["reason"] == "not_entitled"
        assert stripe.count("list") == 2

    async def test_finds_what_webhooks_lose_by_itself(self, stripe: FakeStripe, upstream: str) -> None:
        """With its loop, and no webhook at all."""
        stripe.now, now = (lambda: now() - 100), stripe.now
        stripe.grant("cus_1", "a")
        stripe.now = now
        async with running(upstream, loops=True, events_poll=1, **PATIENT) as sidecar:
            assert (await sidecar.check("cus_1", "a"))["entitled"] is True
            stripe.revoke("cus_1", "a")
            while (await sidecar.check("cus_1", "a"))["entitled"]:
                await asyncio.sleep(0.01)
            assert len([seen for seen in stripe.requests if seen.query.get("customer") == "cus_1"]) == 2


class TestTheOfficialSdk:
    @pytest.mark.parametrize("account", [None, "acct_1"])
    async def test_lists_the_events_that_we_read(
        self, told: Told, stripe: FakeStripe, upstream: str, account: str | None
    ) -> None:
        """The same ones, in the same order, about the same customers, page by page."""
        stripe.webhooks.endpoints.clear()
        for number in range(130):
            stripe.grant(f"cus_{number}", "a", account=account)
            stripe.emit("customer.created", {"object": "customer", "id": f"cus_{number}"}, account=account)
        sdk = aio(Curl(told.sidecar.session, upstream), KEY)
        since = int(told.sidecar.clock()) - 60
        options: Any = {"stripe_account": account} if account else None
        listed = await sdk.v1.events.list_async({"type": NEWS, "created": {"gte": since}, "limit": 100}, options)
        theirs = [event async for event in listed.auto_paging_iter()]
        ours: list[Event] = []
        sweep = Sweep(since, livemode=False, account=account, max_pages=10)
        while not sweep.is_complete:
            ours += sweep.take((await told.sidecar.sidecar.client.events(sweep.params, account)).page)
        assert len(ours) == 130
        assert [(event.id, event.type, event.created) for event in ours] == [
            (event.id, event.type, event.created) for event in theirs
        ]
        assert [event.customer and event.customer.id for event in ours] == [
            event.data.object["customer"] for event in theirs
        ]
        assert {event.customer and event.customer.account for event in ours} == {account}
        queries = [dict(seen.query) for seen in stripe.requests]
        assert queries[:2] == queries[2:], "what the SDK asks for is what we ask for"

    async def test_and_we_take_the_same_webhooks(self, told: Told, stripe: FakeStripe) -> None:
        """What it constructs an event from is news of the same customer to us; what it refuses, we refuse."""
        stripe.webhooks.endpoints.clear()
        bodies: list[tuple[bytes, str]] = []

        async def receive(request: web.BaseRequest) -> web.Response:
            bodies.append((await request.read(), request.headers["Stripe-Signature"]))
            return web.Response()

        runner = web.ServerRunner(web.Server(receive, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stripe.add_endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/", ["whsec_old", SECRET])
        for number in range(3):
            stripe.grant(f"cus_{number}", "a")
            assert await told.entitled(f"cus_{number}") is True
        await stripe.delivered()
        stripe.requests.clear()
        await runner.cleanup()
        news = [await told_by_both(told, *delivery) for delivery in bodies]
        assert sorted(filter(None, news)) == ["cus_0", "cus_1", "cus_2"]
        body, _ = bodies[0]
        now = int(told.sidecar.clock())
        for header in (
            sign(body, SECRET, now - 400),
            sign(body, "whsec_another", now),
            "t=1",
            sign(b"{}", SECRET, now),
        ):
            assert await told_by_both(told, body, header) is None
        assert stripe.count("list") == 3


async def told_by_both(told: Told, body: bytes, header: str) -> str | None:
    """Let the SDK and the sidecar read a delivery; return the customer if both take it, None if both refuse."""
    try:
        event = official.Webhook.construct_event(body, header, SECRET)
    except official.SignatureVerificationError:
        event = None
    url, reads = f"{told.sidecar.webhook_url}/webhooks/stripe", told.stripe.count("list")
    async with told.sidecar.session.post(url, data=body, headers={"Stripe-Signature": header}) as response:
        assert response.status == (400 if event is None else 200)
    if event is None:
        return None
    customer = str(event.data.object["customer"])
    assert await told.entitled(customer) is True
    assert [seen.query["customer"] for seen in told.stripe.requests if seen.operation == "list"][reads:] == [customer]
    return customer
