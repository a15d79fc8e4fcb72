"""Events on their way to an endpoint: signed, tried again, and mistreated by the network."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from aiohttp import web

from sidecar.demo import Delivery, Endpoint, FakeStripe, serving, sign
from tests.demo.asking import EVENTS, Check, Curl, aio
from tests.fakes import FakeClock

SECRET = "whsec_x"
UPDATED = "entitlements.active_entitlement_summary.updated"
HANG = 0


class Receiver:
    """What an application would be: takes events, or answers with the statuses that it was told to."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self.answers: list[int] = []

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in self.got]

    @property
    def signatures(self) -> list[str]:
        return [headers["Stripe-Signature"] for _, headers in self.got]

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((await request.read(), dict(request.headers)))
        status = self.answers.pop(0) if self.answers else 200
        if status == HANG:
            await asyncio.Event().wait()
        return web.Response(status=status, headers={"Location": self.url})

    async def received(self, count: int) -> None:
        while len(self.got) < count:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[Receiver]:
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def endpoint(fake: FakeStripe, receiver: Receiver) -> Endpoint:
    endpoint = fake.add_endpoint(receiver.url, SECRET)
    endpoint.first_delay = 0.001
    return endpoint


def seeded() -> random.Random:
    return random.Random(7)  # noqa: S311 -- the same disorder every time


class TestSignature:
    def test_the_check_vector_holds(self) -> None:
        """The header for a known body, secret and time is the known one."""
        digest = "be8cb8325f2202445260a855532f967e30ad2a9394ce28da66ee02880ddcb661"
        assert sign(b"{}", SECRET, 1700000000) == f"t=1700000000,v1={digest}"

    @pytest.mark.parametrize("body", [b"", b"{}", '{"name": "Zoë"}'.encode(), b"x" * 10_000])
    def test_it_is_the_sdks(self, body: bytes) -> None:
        """The official SDK makes the same header and accepts it."""
        now = int(datetime.now(UTC).timestamp())
        header = sign(body, SECRET, now)
        assert header == stripe.WebhookSignature.generate_signature_header(body.decode(), SECRET, now)
        assert stripe.WebhookSignature.verify_header(body, header, SECRET, tolerance=300)

    def test_several_secrets_sign_several_times(self) -> None:
        """Either secret alone verifies, and no third."""
        header = sign(b"{}", ["whsec_old", "whsec_new"], 1700000000)
        assert header.count("v1=") == 2
        for secret in ("whsec_old", "whsec_new"):
            assert stripe.WebhookSignature.verify_header(b"{}", header, secret)
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.WebhookSignature.verify_header(b"{}", header, SECRET)


class TestDelivery:
    async def test_the_sdk_takes_what_arrives(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint, check: Check
    ) -> None:
        """The raw body with its header is a verified event, that of the list, still pending when it was written."""
        fake.grant("cus_a", "sso")
        await fake.delivered()
        ((body, headers),) = receiver.got
        event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
        (listed,) = (await curl(EVENTS)).body["data"]
        assert event.to_dict() == listed | {"pending_webhooks": 1}
        assert listed["pending_webhooks"] == 0
        assert list(endpoint.deliveries) == [Delivery(event.id, 1, 200)]
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        assert headers["User-Agent"].startswith("Stripe/1.0")
        check(f"event.{UPDATED}", json.loads(body))

    async def test_a_secret_can_be_rotated(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """While two are active, the receiver may know either."""
        endpoint.secrets.append("whsec_new")
        fake.emit("a.b", {})
        await fake.delivered()
        ((body, headers),) = receiver.got
        for secret in (SECRET, "whsec_new"):
            assert stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret).type == "a.b"
        assert fake.add_endpoint(receiver.url, ("whsec_1", "whsec_2")).secrets == ["whsec_1", "whsec_2"]

    async def test_only_what_is_wanted_arrives(self, fake: FakeStripe, curl: Curl, receiver: Receiver) -> None:
        """An endpoint is for some types, and for the own account or for connected ones."""
        own = fake.add_endpoint(receiver.url, SECRET, types=["a.own", "a.both"])
        connected = fake.add_endpoint(receiver.url, SECRET, connect=True)
        deaf = fake.add_endpoint(receiver.url, SECRET, types=["b.c"])
        events = {
            (type_, account): fake.emit(type_, {}, account=account)["id"]
            for type_ in ("a.own", "a.both", "a.other")
            for account in (None, "acct_1")
        }
        await fake.delivered()
        wanted = [events["a.own", None], events["a.both", None]]
        assert sorted(delivery.event for delivery in own.deliveries) == sorted(wanted)
        theirs = [id_ for (_, account), id_ in events.items() if account]
        assert sorted(delivery.event for delivery in connected.deliveries) == sorted(theirs)
        assert not deaf.deliveries

    async def test_a_thin_event_arrives_where_it_is_wanted(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """The SDK's parser of notifications takes it; that of snapshots does not, and no snapshot gets there."""
        thin = fake.add_endpoint(receiver.url, "whsec_thin", thin=True)
        sent = fake.emit_thin(f"v1.{UPDATED}")
        await fake.delivered()
        ((body, headers),) = receiver.got
        parsed = aio(curl).parse_event_notification(body, headers["Stripe-Signature"], "whsec_thin")
        assert (parsed.id, parsed.type, parsed.livemode) == (sent["id"], f"v1.{UPDATED}", False)
        assert parsed.created == sent["created"]
        with pytest.raises(ValueError, match="thin event notification"):
            stripe.Webhook.construct_event(body, headers["Stripe-Signature"], "whsec_thin")
        fake.grant("cus_a", "sso")
        await fake.delivered()
        assert (len(thin.deliveries), len(endpoint.deliveries)) == (1, 1)
        assert (await curl(EVENTS)).body["data"][0]["type"] == UPDATED

    async def test_a_thin_event_may_say_more(self, fake: FakeStripe, curl: Curl, receiver: Receiver) -> None:
        """Whose it is, and what it is about."""
        fake.add_endpoint(receiver.url, SECRET, thin=True, connect=True)
        about = {"id": "cus_a", "type": "customer", "url": "/v1/customers/cus_a"}
        fake.emit_thin("v1.customer.updated", account="acct_1", related_object=about)
        await fake.delivered()
        ((body, headers),) = receiver.got
        parsed: Any = aio(curl).parse_event_notification(body, headers["Stripe-Signature"], SECRET)
        assert str(parsed.context) == "acct_1"
        assert parsed.related_object.id == "cus_a"

    async def test_what_happens_before_serving_is_sent_then(
        self, fake: FakeStripe, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """Nothing is lost while Stripe is away."""
        fake.emit("a.b", {})
        await fake.delivered()
        assert not receiver.got
        async with serving(fake):
            await fake.delivered()
        assert receiver.types == ["a.b"]

    async def test_leaving_ends_what_is_under_way(
        self, fake: FakeStripe, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """No task is left behind: neither one that waits for an answer nor one that waits for its time."""
        receiver.answers = [HANG]
        async with asyncio.TaskGroup() as group:
            async with serving(fake):
                hanging = fake.emit("a.b", {})
                await receiver.received(1)
                endpoint.latency = 3600
                waiting = fake.emit("a.c", {})
                waiter = group.create_task(fake.delivered())
                await asyncio.sleep(0)
                tasks = list(fake.webhooks._tasks)
            assert [task.cancelled() for task in tasks] == [True, True]
        assert waiter.result() is None
        assert (hanging["pending_webhooks"], waiting["pending_webhooks"]) == (1, 1)
        assert (receiver.types, list(endpoint.deliveries)) == (["a.b"], [])


class TestFailures:
    @pytest.mark.parametrize("status", [302, 400, 404, 410, 500, 503])
    async def test_everything_but_2xx_is_tried_again(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint, status: int
    ) -> None:
        """A redirect is not followed; the event stays pending until somebody takes it."""
        receiver.answers = [status, status, 202]
        event = fake.emit("a.b", {})
        await receiver.received(1)
        assert (await curl(f"{EVENTS}/{event['id']}")).body["pending_webhooks"] == 1
        await fake.delivered()
        assert list(endpoint.deliveries) == [
            Delivery(event["id"], n, s) for n, s in ((1, status), (2, status), (3, 202))
        ]
        assert (await curl(f"{EVENTS}/{event['id']}")).body["pending_webhooks"] == 0

    async def test_each_attempt_is_signed_anew(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """The body stays, the time and so the signature do not."""
        clock = FakeClock(1_790_000_000)
        fake.now = clock
        receiver.answers = [500, 500]
        fake.emit("a.b", {})
        while len(receiver.got) < 3:
            clock.advance(1)
            await asyncio.sleep(0.001)
        await fake.delivered()
        assert len({body for body, _ in receiver.got}) == 1
        times = [int(header.partition(",")[0].removeprefix("t=")) for header in receiver.signatures]
        assert times == sorted(set(times))
        for (body, _), header, time in zip(receiver.got, receiver.signatures, times, strict=True):
            assert header == sign(body, SECRET, time)

    async def test_an_endpoint_that_nobody_answers_at_is_given_up(self, fake: FakeStripe, curl: Curl) -> None:
        """After so many attempts it is over, and the events list can tell."""
        dead = fake.add_endpoint("http://127.0.0.1:1/", SECRET)
        dead.first_delay, dead.attempts = 0.0001, 3
        event = fake.emit("a.b", {})["id"]
        await fake.delivered()
        assert list(dead.deliveries) == [Delivery(event, attempt, None) for attempt in (1, 2, 3)]
        failed, succeeded = [
            (await curl(EVENTS, params={"delivery_success": text})).body["data"] for text in ("false", "true")
        ]
        assert ([item["id"] for item in failed], succeeded) == ([event], [])

    async def test_an_answer_that_does_not_come_is_none(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """Patience ends, and the next attempt is another chance."""
        receiver.answers, endpoint.timeout = [HANG], 0.05
        event = fake.emit("a.b", {})["id"]
        await receiver.received(1)
        endpoint.timeout = 5
        await fake.delivered()
        assert list(endpoint.deliveries) == [Delivery(event, 1, None), Delivery(event, 2, 200)]

    def test_pauses_double(self) -> None:
        """One second, two, four, eight."""
        endpoint = Endpoint("http://127.0.0.1/", [SECRET])
        assert [endpoint.pause(attempt) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 8]

    async def test_an_error_that_nobody_foresaw_is_raised(self, fake: FakeStripe, endpoint: Endpoint) -> None:
        """A secret that is none fails whoever waits, or else the end of serving."""
        wrong: Any = None
        endpoint.secrets = [wrong]
        for work in (fake.delivered, failing(fake)):
            with pytest.raises(AttributeError):
                await emitted(fake, work)


async def emitted(fake: FakeStripe, work: Callable[[], Awaitable[None]]) -> None:
    """Serve while an event happens and the work is done."""
    async with serving(fake):
        fake.emit("a.b", {})
        await work()


def failing(fake: FakeStripe) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        while not all(task.done() for task in fake.webhooks._tasks):
            await asyncio.sleep(0)

    return fail


class TestTheNetwork:
    async def test_events_get_lost(self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint) -> None:
        """So many are never sent and never tried again; the record knows of them."""
        endpoint.lose(2)
        ids = [fake.emit(f"a.{number}", {})["id"] for number in range(3)]
        await fake.delivered()
        assert receiver.types == ["a.2"]
        assert list(endpoint.deliveries) == [
            Delivery(ids[0], 0, None),
            Delivery(ids[1], 0, None),
            Delivery(ids[2], 1, 200),
        ]

    async def test_events_come_twice(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """The same id twice, and taken once."""
        endpoint.duplicate()
        event = fake.emit("a.0", {})
        await fake.delivered()
        fake.emit("a.1", {})
        await fake.delivered()
        assert receiver.types == ["a.0", "a.0", "a.1"]
        assert event["pending_webhooks"] == 0

    async def test_events_come_late(self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint) -> None:
        """What is delayed is passed by what is not, and comes in the end."""
        endpoint.delay(3600)
        fake.emit("a.0", {})
        fake.emit("a.1", {})
        await receiver.received(1)
        assert receiver.types == ["a.1"]
        endpoint.delay(0.001, times=2)
        fake.emit("a.2", {})
        fake.emit("a.3", {})
        await receiver.received(3)
        assert set(receiver.types) == {"a.1", "a.2", "a.3"}

    async def test_every_attempt_takes_its_time(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """The latency lies between signature and arrival."""
        clock, signed = FakeClock(1_790_000_000), asyncio.Event()

        def now() -> float:
            signed.set()
            return clock.now

        fake.now, endpoint.latency = now, 0.001
        fake.emit("a.0", {})
        signed.clear()
        await signed.wait()
        clock.advance(100)
        await fake.delivered()
        assert receiver.signatures[0].startswith("t=1790000000,")

    async def test_events_come_in_reverse(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """Three are held back until the third, then the order is the usual one again."""
        endpoint.reorder(3)
        for number in range(4):
            fake.emit(f"a.{number}", {})
            assert bool(fake.webhooks._tasks) == (number >= 2)
        await fake.delivered()
        assert [kind for kind in receiver.types if kind != "a.3"] == ["a.2", "a.1", "a.0"]
        assert "a.3" in receiver.types

    async def test_events_come_shuffled(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """A seed makes the same disorder again, retries do not stop the rest."""
        endpoint.reorder(8, seeded())
        receiver.answers = [500]
        types = [f"a.{number}" for number in range(8)]
        for type_ in types:
            fake.emit(type_, {})
        await fake.delivered()
        seeded().shuffle(types)
        assert [kind for kind in receiver.types if kind != types[0]] == types[1:]
        assert receiver.types.count(types[0]) == 2

    async def test_waiting_sends_what_is_held_back(
        self, fake: FakeStripe, curl: Curl, receiver: Receiver, endpoint: Endpoint
    ) -> None:
        """Too few to reorder are sent when somebody waits for them."""
        endpoint.reorder(10)
        for number in range(3):
            fake.emit(f"a.{number}", {})
        await fake.delivered()
        assert receiver.types == ["a.2", "a.1", "a.0"]
