"""Many callers at once."""

import asyncio
import random
import re
import string

import pytest

from sidecar.demo import FakeStripe, Fault
from tests.fakes import Running


async def test_five_hundred_first_questions_cost_one_read(sidecar: Running, stripe: FakeStripe) -> None:
    """All of them share one flight, and one that hangs up does not cancel it."""
    asyncio.get_running_loop().set_debug(False)  # it makes each of many tasks slow
    stripe.grant("cus_1", "a")
    stripe.break_with(Fault.SLOW, delay=0.5)
    host, port = sidecar.sidecar.checks.addresses[0].split(":")
    _, leaver = await asyncio.open_connection(host, int(port))
    leaver.write(b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not stripe.count():
        await asyncio.sleep(0.001)
    leaver.transport.abort()
    answers = await asyncio.gather(*(sidecar.check("cus_1", "a") for _ in range(500)))
    assert all(answer["entitled"] for answer in answers)
    assert len({answer["as_of"] for answer in answers}) == 1
    assert stripe.count() == 1


async def test_the_only_caller_hangs_up(sidecar: Running, stripe: FakeStripe) -> None:
    """Its flight lands all the same, and the next caller is answered from memory."""
    stripe.grant("cus_1", "a")
    stripe.break_with(Fault.SLOW, delay=0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await sidecar.check("cus_1", "a")
    while sidecar.sidecar.heart.refresher.in_the_air():
        await asyncio.sleep(0.005)
    assert (await sidecar.check("cus_1", "a"))["source"] == "memory"
    assert stripe.count() == 1


def series(metrics: str) -> set[str]:
    """Return the names of all series of ours, labels included."""
    return {line.rpartition(" ")[0] for line in metrics.splitlines() if line.startswith("entitlement_sidecar")}


class Stranger:
    """A caller that asks about anybody, by any path."""

    def __init__(self, sidecar: Running) -> None:
        self._sidecar = sidecar
        self._chance = random.Random(7)  # noqa: S311 -- any will do

    def odd(self) -> str:
        return "".join(self._chance.choices(LETTERS, k=self._chance.randrange(1, 40)))

    async def ask(self, count: int) -> None:
        """Ask ``count`` odd paths, pipelined on one connection."""
        host, port = self._sidecar.sidecar.checks.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count):
            path = self._chance.choice(SHAPES).format(self.odd())
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCache-Control: only-if-cached\r\n\r\n".encode())
        for _ in range(count):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
        writer.close()
        await writer.wait_closed()

    async def batch(self, count: int) -> None:
        """Ask about ``count`` strangers in one batch."""
        checks = [{"customer": f"cus_{self._chance.getrandbits(64):x}", "lookup_key": self.odd()} for _ in range(count)]
        headers = {"Cache-Control": "only-if-cached"}
        status, _ = await self._sidecar.ask("POST", "/v1/checks", json={"checks": checks}, headers=headers)
        assert status == 200


LETTERS = string.ascii_letters + string.digits + "-._~%/?=&"
SHAPES = ("/{}", "/v1/{}", "/v1/customers/{}/entitlements", "/v1/customers/cus_1/entitlements/{}")
ROUTES = {
    "other",
    "/metrics",
    "/v1/checks",
    "/v1/customers/{customer}/entitlements",
    "/v1/customers/{customer}/entitlements/{lookup_key}",
}


@pytest.mark.timeout(120)
async def test_a_hundred_thousand_customers_and_paths_add_no_series(sidecar: Running) -> None:
    """No label comes from a caller: only known pairs of route and status are added to what is there from the start."""
    asyncio.get_running_loop().set_debug(False)  # it would take a minute
    before = series(await sidecar.metrics())
    stranger = Stranger(sidecar)
    for _ in range(90):
        await stranger.batch(1000)
    for _ in range(100):
        await stranger.ask(100)
    added = series(await sidecar.metrics()) - before
    pairs = [
        re.fullmatch(r'entitlement_sidecar_http_requests_total\{route="(.*)",status="(.*)"\}', name) for name in added
    ]
    assert all(pairs), added
    assert {pair[1] for pair in pairs if pair} <= ROUTES
    assert {pair[2] for pair in pairs if pair} <= {"200", "400", "404", "504"}
