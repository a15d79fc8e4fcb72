"""Stripe's way in, on a real port: what it says is heard once it is known to be Stripe, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import stripe as official
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.listening import Served, bind
from sidecar.api.problems import problems
from sidecar.api.webhooks import OUTCOMES, Webhooks
from sidecar.kit.address import Address
from sidecar.kit.door import Door
from sidecar.model import Customer
from sidecar.stripe.events import NEWS
from tests.fakes import FakeClock

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stripe-entitlements.fixtures.json"

NOW = 1_790_000_000
OLD, NEW = "whsec_old_secret", "whsec_new_secret"
LIMIT = 1 << 20
SUMMARY = "v1.entitlements.active_entitlement_summary."


@dataclass
class Heard:
    """Who is told: remembers ids, as the feed does, and counts how often it was hurried."""

    news: list[tuple[str, Customer]] = field(default_factory=list)
    hurried: int = 0

    async def hear(self, event_id: str, customer: Customer) -> bool:
        if event_id in [known for known, _ in self.news]:
            return False
        self.news.append((event_id, customer))
        return True

    def hurry(self) -> None:
        self.hurried += 1


@dataclass
class Receiver:
    """The way in, and a Stripe to send what one likes through it."""

    webhooks: Webhooks
    heard: Heard
    clock: FakeClock
    port: int

    async def send(self, body: bytes, *fields: bytes) -> tuple[int, dict[str, Any]]:
        """Send raw header fields and a body; return the status and what came back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = [b"POST /webhooks/stripe HTTP/1.1", b"Host: localhost", b"Connection: close"]
        writer.write(b"\r\n".join([*head, b"Content-Length: %d" % len(body), *fields, b"", body]))
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        head_, _, answer = received.partition(b"\r\n\r\n")
        return int(head_.split()[1]), orjson.loads(answer)

    async def deliver(self, body: bytes, secret: str = OLD, at: int = NOW) -> tuple[int, str]:
        """Send what is signed as the SDK signs; return the status and the outcome, or the problem's code."""
        status, answer = await self.send(body, signed(body, secret, at))
        if status == 200:
            assert answer == {"received": True, "outcome": answer["outcome"]}
        return status, answer["outcome"] if status == 200 else answer["code"]

    def counted(self) -> dict[str, int]:
        """Return the outcomes that there have been."""
        assert tuple(self.webhooks.outcomes) == OUTCOMES
        return {outcome: count for outcome, count in self.webhooks.outcomes.items() if count}


@asynccontextmanager
async def receiving(*secrets: str, livemode: bool = False) -> AsyncIterator[Receiver]:
    """Serve the way in as the application does: errors are problems, bodies small, nothing decompressed."""
    heard, clock = Heard(), FakeClock(NOW)
    webhooks = Webhooks(lambda: secrets or (OLD,), livemode=livemode, hear=heard.hear, hurry=heard.hurry, clock=clock)
    app = web.Application(client_max_size=LIMIT, middlewares=[problems])
    app.add_routes(webhooks.routes())
    served, bound = Served(app, Door(100)), bind(Address("127.0.0.1", 0))
    try:
        await served.open([bound])
        yield Receiver(webhooks, heard, clock, bound.getsockname()[1])
    finally:
        await served.close()


def signed(body: bytes, secret: str = OLD, at: int = NOW) -> bytes:
    """Return the header field that Stripe would send, by the SDK's own scheme; only text can be signed."""
    signature = official.WebhookSignature._compute_signature(f"{at}.{body.decode()}", secret)
    return f"Stripe-Signature: t={at},v1={signature}".encode()


def news(event_id: str = "evt_1", customer: str = "cus_1", **changes: Any) -> bytes:
    """Say news; a change to None takes the field away."""
    item = {
        "id": event_id,
        "object": "event",
        "created": NOW,
        "livemode": False,
        "type": NEWS,
        "data": {"object": {"object": "entitlements.active_entitlement_summary", "customer": customer}},
    }
    return orjson.dumps({name: value for name, value in (item | changes).items() if value is not None})


def thin(type_: str, **changes: Any) -> bytes:
    return news(object="v2.core.event", type=type_, data=None, created="2026-11-01T10:00:00.000Z", **changes)


async def test_news_is_heard_before_the_answer() -> None:
    """A signed event marks its customer, of a connected account or our own, and is answered with 200."""
    async with receiving() as receiver:
        assert await receiver.deliver(news()) == (200, "news")
        assert await receiver.deliver(news("evt_2", account="acct_1")) == (200, "news")
        assert receiver.heard.news == [("evt_1", Customer("cus_1")), ("evt_2", Customer("cus_1", "acct_1"))]
        assert receiver.counted() == {"news": 2}
        assert receiver.heard.hurried == 0


async def test_an_answer_is_not_for_caches() -> None:
    """It is JSON and may not be stored."""
    async with receiving() as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        body = news()
        writer.write(
            b"POST /webhooks/stripe HTTP/1.0\r\nContent-Length: %d\r\n%s\r\n\r\n%s" % (len(body), signed(body), body)
        )
        received = (await reader.read()).lower()
        writer.close()
        await writer.wait_closed()
        assert b"cache-control: no-store" in received
        assert b"content-type: application/json" in received


async def test_a_replay_is_a_duplicate() -> None:
    """The same event again, signed anew or not, is answered with 200, so that Stripe stops, and does nothing."""
    async with receiving() as receiver:
        for outcome, at in [("news", NOW), ("duplicate", NOW), ("duplicate", NOW - 200)]:
            assert await receiver.deliver(news(), at=at) == (200, outcome)
        assert receiver.heard.news == [("evt_1", Customer("cus_1"))]
        assert receiver.counted() == {"news": 1, "duplicate": 2}


async def test_an_event_of_another_type_is_taken_and_let_be() -> None:
    """An endpoint that is subscribed to more than it must be is not worth Stripe's retries."""
    async with receiving() as receiver:
        assert await receiver.deliver(news(type="customer.updated", data=None)) == (200, "other_type")
        assert receiver.heard == Heard()
        assert receiver.counted() == {"other_type": 1}


@pytest.mark.parametrize("change", ["updated", "entitlement_added", "entitlement_removed"])
async def test_thin_news_hurries_the_feed(change: str) -> None:
    """It does not name the customer: whoever reads the list of events has to do so now."""
    async with receiving() as receiver:
        assert await receiver.deliver(thin(SUMMARY + change)) == (200, "thin")
        assert await receiver.deliver(thin("v1.customer.subscription.active")) == (200, "thin")
        assert receiver.heard == Heard(hurried=1)
        assert receiver.counted() == {"thin": 2}


@pytest.mark.parametrize("livemode", [True, False])
async def test_an_event_of_the_other_mode_is_taken_and_not_heard(
    caplog: pytest.LogCaptureFixture, *, livemode: bool
) -> None:
    """Its customer is not ours; the log says so."""
    async with receiving(livemode=livemode) as receiver:
        for number in range(3):
            body = news(f"evt_{number}", livemode=not livemode)
            assert await receiver.deliver(body) == (200, "other_mode")
        assert await receiver.deliver(thin(f"{SUMMARY}updated", livemode=not livemode)) == (200, "other_mode")
        assert await receiver.deliver(news(livemode=livemode)) == (200, "news")
        assert receiver.heard == Heard([("evt_1", Customer("cus_1"))])
        assert receiver.counted() == {"other_mode": 4, "news": 1}
        modes = ("test", "live") if livemode else ("live", "test")
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            "Stripe sent an event of {} mode, but the API key is of {} mode".format(*modes)
        ] * 4


async def test_a_rolled_secret_goes_on_working() -> None:
    """With both configured, events signed with either are heard; with one, those that bear both signatures are."""
    async with receiving(OLD, NEW) as receiver:
        for number, secret in enumerate([OLD, NEW]):
            assert await receiver.deliver(news(f"evt_{number}"), secret) == (200, "news")
        assert await receiver.deliver(news("evt_3"), "whsec_third") == (400, "bad_signature")
        assert receiver.counted() == {"news": 2, "bad_signature": 1}
    async with receiving(NEW) as receiver:
        both = signed(news(), OLD) + b"," + signed(news(), NEW).partition(b",")[2]
        assert await receiver.send(news(), both) == (200, {"received": True, "outcome": "news"})


BROKEN = {
    "not JSON": b"{",
    "no object": b"[]",
    "no event": b'{"object":"list"}',
    "no id": news(id=None),
    "no mode": news(livemode=None),
    "no customer": news(data={"object": {}}),
    "no account": news(account="me"),
    "no thin event": thin("", livemode=False),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_what_is_signed_and_no_event_is_malformed(body: bytes) -> None:
    """Stripe's signature under something else is counted apart: it should never happen."""
    async with receiving() as receiver:
        assert await receiver.deliver(body) == (400, "malformed_body")
        assert receiver.counted() == {"malformed": 1}
        assert receiver.heard == Heard()


BAD_FIELDS: dict[str, tuple[str, list[bytes]]] = {
    "none": ("no_signature", []),
    "empty": ("no_signature", [b"Stripe-Signature:"]),
    "of another name": ("no_signature", [signed(news()).replace(b"Stripe", b"X-Stripe")]),
    "no parts": ("malformed_signature", [b"Stripe-Signature: whatever"]),
    "not ASCII": ("malformed_signature", [b"Stripe-Signature: \xff\xfe"]),
    "of an old scheme": ("malformed_signature", [signed(news()).replace(b"v1", b"v0")]),
    "there twice": ("malformed_signature", [signed(news())] * 2),
    "of thousand parts": ("malformed_signature", [b"Stripe-Signature: " + b"v1=x," * 1000 + b"t=1"]),
    "of no time": ("malformed_signature", [signed(news()).replace(b"t=", b"t=x")]),
    "of another secret": ("bad_signature", [signed(news(), NEW)]),
    "of another time": ("bad_signature", [signed(news()).replace(b"t=1", b"t=2")]),
    "of another body": ("bad_signature", [signed(news("evt_2"))]),
    "of bytes": ("bad_signature", [b"Stripe-Signature: t=1790000000,v1=\xff"]),
    "expired": ("signature_too_old", [signed(news(), at=NOW - 301)]),
    "of 1970": ("signature_too_old", [signed(news(), at=0)]),
}


@pytest.mark.parametrize(("outcome", "fields"), BAD_FIELDS.values(), ids=BAD_FIELDS)
async def test_what_stripe_did_not_sign_is_refused(
    caplog: pytest.LogCaptureFixture, outcome: str, fields: list[bytes]
) -> None:
    """400 with a code, counted under the same name; neither answer nor log repeats the signature or the secret."""
    async with receiving() as receiver:
        status, answer = await receiver.send(news(), *fields)
        assert (status, answer["code"], answer["status"]) == (400, outcome, 400)
        assert receiver.counted() == {outcome: 1}
        assert receiver.heard == Heard()
        for secret in [OLD, *(one.partition(b"v1=")[2].decode("latin-1")[:64] for one in fields if b"v1=" in one)]:
            assert secret not in str(answer)
            assert len(secret) < 9 or secret not in caplog.text
        assert outcome in caplog.text


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, LIMIT + 100_000])
async def test_a_body_may_have_a_mebibyte(size: int) -> None:
    """One of exactly that size is read; a larger one is 413, whoever signed it."""
    body = news(padding="") + b" "
    body = news(padding="x" * (size - len(body) + 1))
    assert len(body) == size
    async with receiving() as receiver:
        if size == LIMIT:
            assert await receiver.deliver(body) == (200, "news")
        else:
            assert await receiver.deliver(body) == (413, "body_too_large")
            assert receiver.counted() == {"too_large": 1}
            assert receiver.heard == Heard()


async def test_a_body_that_is_encoded_is_refused() -> None:
    """A small body must not become a large one; Stripe sends none such."""
    async with receiving() as receiver:
        status, answer = await receiver.send(news(), signed(news()), b"Content-Encoding: gzip")
        assert (status, answer["code"]) == (415, "unsupported_encoding")
        assert receiver.counted() == {"refused": 1}
        assert receiver.heard == Heard()


async def test_only_post_is_taken() -> None:
    """Nothing else is at this path, and nothing is counted for it."""
    async with receiving() as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        writer.write(b"GET /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert received.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: POST\r\n" in received
        assert receiver.counted() == {}


async def test_refusals_are_logged_with_their_reason(caplog: pytest.LogCaptureFixture) -> None:
    """That anyone can provoke them is the log's business, which keeps back what repeats; the counts have all."""
    async with receiving() as receiver:
        await receiver.send(news())
        await receiver.deliver(news(), "forged")
        lines = [record.message.partition(":")[0] for record in caplog.records if record.levelname == "WARNING"]
        assert lines == ["refused a webhook's request (no_signature)", "refused a webhook's request (bad_signature)"]
        assert receiver.counted() == {"no_signature": 1, "bad_signature": 1}


async def test_a_defect_behind_it_is_not_answered_with_200(caplog: pytest.LogCaptureFixture) -> None:
    """Stripe shall come again when news could not be marked."""

    async def fail(_event_id: str, _customer: Customer) -> bool:
        raise ZeroDivisionError

    async with receiving() as receiver:
        receiver.webhooks._hear = fail
        assert await receiver.deliver(news()) == (500, "internal")
        assert receiver.counted() == {}
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.skipif(not FIXTURES.is_file(), reason="the fixtures are not on this machine")
async def test_what_stripe_sends_is_heard() -> None:
    """Granted, all revoked, cut at ten, thin: each in the documented shape, signed by the SDK."""
    said = orjson.loads(FIXTURES.read_bytes())["constructed"]
    async with receiving() as receiver:
        for name, item in said.items():
            if name.startswith(("event_", "thin_")):
                status, _ = await receiver.deliver(orjson.dumps(item))
                assert status == 200, name
        assert receiver.heard == Heard(
            [
                ("evt_test_0001", Customer("cus_test_A")),
                ("evt_test_0002", Customer("cus_test_A")),
                ("evt_test_0003", Customer("cus_test_B")),
            ],
            hurried=1,
        )
        assert receiver.counted() == {"news": 3, "thin": 1}


BODIES = st.sampled_from(
    [
        news(),
        news("evt_2", "cus_2", account="acct_1"),
        news(livemode=True),
        news(type="customer.updated"),
        thin(f"{SUMMARY}updated"),
        thin("v1.other"),
        b"x" * (LIMIT + 1),
        *BROKEN.values(),
    ]
)
SPOILS = st.none() | st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3))
VALUES = st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte > 31 and byte != 127))


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw a body and header fields: sound ones, spoilt ones, signed before or after the body was spoilt."""
    sound = body = draw(BODIES)
    spoil = draw(SPOILS)
    if spoil is not None:
        place, length, put = spoil
        body = body[:place] + put + body[place + length :]
    to_sign = draw(st.sampled_from([sound, body]))
    try:
        field_ = signed(
            to_sign,
            draw(st.sampled_from([OLD, OLD, NEW, "", "wrong"])),
            NOW + draw(st.sampled_from([0, 0, -301, 9999])),
        )
    except UnicodeDecodeError:  # the SDK signs text only
        field_ = signed(sound)
    name = b"Stripe-Signature: "
    fields = draw(
        st.sampled_from([[field_]] * 6 + [[], [field_, field_], [field_, b"Content-Encoding: gzip"]])
        | VALUES.map(lambda value: [name + value])
        | VALUES.map(lambda value: [field_ + b"," + value])
        | VALUES.map(lambda value: [name + value + b"," + field_.removeprefix(name)])
    )
    return body, fields


def is_genuine(body: bytes, fields: list[bytes]) -> bool:
    """Ask the official SDK whether Stripe signed this, with the secret that is configured."""
    if len(fields) != 1:
        return False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stripe._webhook.time", SimpleNamespace(time=lambda: float(NOW)))  # it asks the machine's clock
        try:
            header = fields[0].partition(b":")[2].decode("utf-8", "surrogateescape").strip(" ")
            return bool(official.WebhookSignature.verify_header(body, header, OLD, 300))
        except (official.SignatureVerificationError, UnicodeError, TypeError):  # in what is neither ASCII nor UTF-8
            return False


@given(sent=st.lists(deliveries(), min_size=1, max_size=8))
async def test_whatever_is_sent_only_signed_news_is_heard(sent: list[tuple[bytes, list[bytes]]]) -> None:
    """Each request gets 200, 400, 413 or 415 and is counted; who is marked stands in what the SDK calls genuine."""
    async with receiving() as receiver:
        for count, (body, fields) in enumerate(sent, 1):
            before = len(receiver.heard.news)
            status, answer = await receiver.send(body, *fields)
            assert status in (200, 400, 413, 415)
            assert sum(receiver.webhooks.outcomes.values()) == count
            genuine = is_genuine(body, fields) and len(body) <= LIMIT
            assert genuine or status != 200
            assert not genuine or status == 200 or answer["code"] == "malformed_body"
            heard = receiver.heard.news[before:]
            assert len(heard) == (answer.get("outcome") == "news")
            for event_id, customer in heard:
                said = orjson.loads(body)
                assert genuine
                assert (said["type"], said["livemode"], said["object"]) == (NEWS, False, "event")
                assert (said["id"], said["data"]["object"]["customer"]) == (event_id, customer.id)
