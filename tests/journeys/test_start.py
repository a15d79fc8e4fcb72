"""A key that may not do what it should is known from the start, before a customer is asked about."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo import FakeStripe, Fault
from sidecar.stripe.client import NOBODY
from tests.fakes import KEY, Running, running

RESTRICTED = "rk_test_51Narrow"
READ, READ_EVENTS = "rak_entitlement_read", "rak_event_read"


async def status_once(sidecar: Running, *, known: int = 2) -> dict[str, Any]:
    """Return the status once so many permissions are known."""
    while True:
        _, found = await sidecar.get("/status")
        if sum(state != "unknown" for state in found["key"]["permissions"].values()) == known:
            return found
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("granted", "lines"),
    [
        ({READ, READ_EVENTS}, []),
        (
            {READ},
            ["the key lacks the permission rak_event_read; until it works, ages count from each customer's own list"],
        ),
        (
            {READ_EVENTS},
            ["the key lacks the permission rak_entitlement_read; until it works, what is not in memory is"],
        ),
    ],
)
async def test_what_the_key_may_do_is_known(
    stripe: FakeStripe, upstream: str, caplog: pytest.LogCaptureFixture, granted: set[str], lines: list[str]
) -> None:
    """By one request each; what is missing is named in the status and in one line, with what follows."""
    caplog.set_level(logging.WARNING, "sidecar")
    stripe.key, stripe.permissions = RESTRICTED, frozenset(granted)
    async with running(upstream, loops=True, stripe_api_key=RESTRICTED) as sidecar:
        status = await status_once(sidecar)
    states = {name: "granted" if name in granted else "missing" for name in (READ, READ_EVENTS)}
    assert status["key"] == {"mode": "test", "permissions": states}
    assert (stripe.count("list"), stripe.count("events")) == (1, 1)
    assert [seen.query["customer"] for seen in stripe.requests if seen.operation == "list"] == [NOBODY]
    said = [message for message in caplog.messages if "from Stripe fails" in message]
    assert len(said) == len(lines)
    assert all(line in message for line, message in zip(lines, said, strict=True))


async def test_a_key_that_is_rejected_is_known_at_once(stripe: FakeStripe, upstream: str) -> None:
    """And asked with no more."""
    async with running(upstream, loops=True, stripe_api_key="sk_test_another", events_poll=0) as sidecar:
        while sidecar.sidecar.client.health.state == "untried":
            await asyncio.sleep(0.005)
        _, status = await sidecar.get("/status")
    assert status["stripe"]["state"] == "key_rejected"
    assert status["key"]["permissions"][READ] == "unknown"
    assert stripe.count() == 1


async def test_nothing_waits_for_the_check(stripe: FakeStripe, upstream: str) -> None:
    """While Stripe hangs, the sidecar is ready and answers by policy; nobody is forgotten for it afterwards."""
    stripe.break_with(Fault.HANG)
    async with running(upstream, loops=True, deadline=0.05, events_poll=0) as sidecar:
        while not stripe.count():
            await asyncio.sleep(0.005)
        assert (await sidecar.get("/readyz"))[0] == 200
        assert (await sidecar.check("cus_1", "a"))["reason"] == "unavailable"
        stripe.break_with(None)
        await status_once(sidecar, known=1)
        assert (await sidecar.get("/status"))[1]["cache"]["customers"] <= 1, "nobody that a caller did not ask about"


async def test_a_new_key_is_checked_as_well(stripe: FakeStripe, upstream: str, tmp_path: Path) -> None:
    """As soon as it is in use."""
    file = tmp_path / "key"
    file.write_text(KEY)
    async with running(upstream, loops=True, stripe_api_key_file=file, events_poll=0) as sidecar:
        assert (await status_once(sidecar, known=1))["key"]["permissions"][READ] == "granted"
        stripe.key = RESTRICTED
        await asyncio.to_thread(file.write_text, RESTRICTED)
        for _ in range(2):
            await sidecar.sidecar.rotation.look()
        assert (await status_once(sidecar, known=1))["key"]["permissions"][READ] == "missing"
    assert stripe.count() == 2
