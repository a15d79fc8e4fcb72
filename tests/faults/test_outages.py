"""Stripe is away, for a while, for long, now and then, or at the wrong end of a broken network."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sidecar.demo import Fault
from tests.faults.bounds import excess, lateness
from tests.faults.processes import PATIENCE, Scene, Sidecar
from tests.faults.truth import wall

LATE = 5.0
"""Seconds after its deadline at which an answer waited for Stripe instead, which is given ten; no machine is so slow."""

HASTY = {"fresh_for": "100ms", "deadline": "300ms", "events_poll": "0"}


async def asked_in_time(sidecar: Sidecar, customer: str, query: str = "", deadline: float = 0.3) -> dict[str, object]:
    """Return an answer that did not wait for Stripe."""
    began = wall()
    answer = await sidecar.check(customer, "a", query)
    assert wall() - began < deadline + LATE
    return answer


async def healed(sidecar: Sidecar, customer: str) -> None:
    """Ask until the answer is what is true now, and is not stale."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await sidecar.check(customer, "a")
            known = answer["source"] != "policy" and not answer["stale"]
            if known and answer["entitled"] is sidecar.truth.is_held(customer, "a"):
                return
            await asyncio.sleep(0.02)


@pytest.mark.timeout(60)
class TestStripeIsDown:
    async def test_at_the_start(self, scene: Scene) -> None:
        """Without a store nothing is known: the policy answers and says why, and every probe is green."""
        scene.truth.change("cus_1", "a", held=True)
        await scene.down()
        sidecar = await scene.started(deadline="300ms")
        denied = await asked_in_time(sidecar, "cus_1")
        allowed = await asked_in_time(sidecar, "cus_1", "?default=allow")
        assert (denied["entitled"], allowed["entitled"]) == (False, True)
        assert [await sidecar.health(path) for path in ("/livez", "/startupz", "/readyz")] == [200, 200, 200]
        assert (await sidecar.status())["stripe"]["state"] == "unreachable"
        await scene.up()
        await healed(sidecar, "cus_1")
        assert (await sidecar.status())["stripe"]["state"] == "ok"
        assert await sidecar.terminate() == 0

    async def test_for_longer_than_stale_for(self, scene: Scene) -> None:
        """What is known is answered stale, older and older, and after `stale_for` no longer."""
        await down_for_long(scene)


async def down_for_long(scene: Scene, *, without: str | None = None) -> None:
    """Let Stripe be down for longer than an answer may be stale."""
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(**HASTY, stale_for="2s", without=without)
    first = await sidecar.check("cus_1", "a")
    await scene.down()
    scene.truth.change("cus_1", "a", held=False)
    ages = []
    while (answer := await asked_in_time(sidecar, "cus_1"))["source"] != "policy":
        age = answer["age"]
        assert isinstance(age, float)
        assert age <= 2.001, "older than stale_for"
        assert (answer["entitled"], answer["as_of"]) == (True, first["as_of"]), (
            "nothing was learnt, and yet it is newer"
        )
        ages.append(age)
        await asyncio.sleep(0.05)
    assert ages == sorted(ages)
    assert wall() - scene.truth.moment(first) >= 2, "given up before its time"
    assert (await sidecar.health("/readyz"), (await sidecar.status())["stripe"]["state"]) == (200, "unreachable")
    await scene.up()
    await healed(sidecar, "cus_1")
    assert await sidecar.terminate() == 0


@asynccontextmanager
async def busy(scene: Scene, sidecar: Sidecar, customers: list[str]) -> AsyncIterator[None]:
    """Keep asking about customers while what they hold changes."""
    rng, goes_on = random.Random(4), True  # noqa: S311 -- no secret

    async def ask() -> None:
        while goes_on:
            await sidecar.checks(*((customer, "a") for customer in customers), ("cus_nobody", "a"))
            await asyncio.sleep(0.01)

    async def change() -> None:
        while goes_on:
            customer = rng.choice(customers)
            scene.truth.change(customer, "a", held=not scene.truth.is_held(customer, "a"))
            await asyncio.sleep(0.15)

    async with asyncio.TaskGroup() as group:
        for work in (ask, ask, change):
            _ = group.create_task(work())
        yield
        goes_on = False


@pytest.mark.timeout(60)
async def test_flapping(scene: Scene) -> None:
    """Up, down and broken every few hundred milliseconds: what is said is true of its time, and within the budget."""
    customers, rate, burst = [f"cus_{number}" for number in range(5)], 40, 5
    for customer in customers:
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(
        fresh_for="200ms", stale_for="30s", deadline="200ms", events_poll="1s", events_lag="0s", rate=rate, burst=burst
    )
    async with lateness() as late, busy(scene, sidecar, customers):
        for trouble in [None, Fault.ERROR, "down", None, Fault.RESET, "down", Fault.TORN, None, "down", None]:
            if trouble == "down":
                await scene.down()
            else:
                scene.stripe.break_with(Fault(trouble) if trouble else None)
            await asyncio.sleep(0.3)
            if trouble == "down":
                await scene.up()
    for customer in customers:
        await healed(sidecar, customer)
    assert {"stale", "fresh", "memory"} <= set(scene.truth.counts), scene.truth.counts
    assert excess([seen.at for seen in scene.stripe.requests], rate) <= burst + rate * late.most
    assert await sidecar.terminate() == 0


async def down(scene: Scene) -> Callable[[], Awaitable[None]]:
    """Let nobody listen where Stripe was."""
    await scene.down()
    return scene.up


async def silent(scene: Scene) -> Callable[[], Awaitable[None]]:
    """Let connections be accepted, by the system, where Stripe was, and nobody read from them."""
    await scene.down()
    listener = socket.create_server(("127.0.0.1", scene.port))

    async def mend() -> None:
        listener.close()
        await scene.up()

    return mend


def broken(fault: Fault, **how: float) -> Callable[[Scene], Awaitable[Callable[[], Awaitable[None]]]]:
    """Let Stripe answer badly."""

    async def break_(scene: Scene) -> Callable[[], Awaitable[None]]:
        scene.stripe.break_with(fault, after=int(how.get("after", 0)), delay=how.get("delay", 0.0))

        async def mend() -> None:
            scene.stripe.break_with(None)

        return mend

    return break_


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "break_",
    [
        pytest.param(down, id="refused"),
        pytest.param(silent, id="silent"),
        pytest.param(broken(Fault.DRIP, delay=0.5), id="drip"),
        pytest.param(broken(Fault.RESET), id="reset"),
        pytest.param(broken(Fault.TORN), id="torn"),
        pytest.param(broken(Fault.TORN, after=1), id="torn-on-the-second-page"),
    ],
)
async def test_the_network_fails(
    scene: Scene, break_: Callable[[Scene], Awaitable[Callable[[], Awaitable[None]]]]
) -> None:
    """Answers come within their deadline: the known one from memory at its true age, the other by policy."""
    await network_fails(scene, break_)


async def network_fails(
    scene: Scene,
    break_: Callable[[Scene], Awaitable[Callable[[], Awaitable[None]]]],
    *,
    without: str | None = None,
) -> None:
    """Break the network and mend it again. What a customer is asked about is on the last of two pages."""
    for customer in ("cus_known", "cus_new"):
        scene.truth.change(customer, "a", held=True)
        for number in range(110):
            scene.stripe.grant(customer, f"more-{number}")
    sidecar = await scene.started(**HASTY, stale_for="1h", without=without)
    await healed(sidecar, "cus_known")
    mend = await break_(scene)
    known, new = await asked_in_time(sidecar, "cus_known"), await asked_in_time(sidecar, "cus_new")
    assert (known["entitled"], known["source"]) == (True, "memory")
    assert new["source"] == "policy", "a part of a list was taken for all of it"
    while not (await asked_in_time(sidecar, "cus_known"))["stale"]:
        await asyncio.sleep(0.02)
    assert await sidecar.health("/readyz") == 200
    await mend()
    await healed(sidecar, "cus_known")
    await healed(sidecar, "cus_new")
    assert (await sidecar.metrics())["tasks"] < 10
    assert await sidecar.terminate() == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("base", ["https://stripe.invalid", "https://127.0.0.1:{port}"], ids=["no-such-name", "no-tls"])
async def test_stripe_is_not_there_at_all(scene: Scene, base: str) -> None:
    """A name that does not resolve, a port that does not speak TLS: the policy answers, and the status says why."""
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(**HASTY, stripe_api_base=base.format(port=scene.port))
    for _ in range(2):
        assert (await asked_in_time(sidecar, "cus_1"))["source"] == "policy"
    async with asyncio.timeout(PATIENCE):
        while (await sidecar.status())["stripe"]["state"] != "unreachable":
            await asyncio.sleep(0.02)
    assert await sidecar.health("/readyz") == 200
    assert scene.stripe.count() == 0
    assert await sidecar.terminate() == 0
