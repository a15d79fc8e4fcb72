"""Stripe says that there are too many requests."""

import asyncio

import pytest

from sidecar.demo import Fault
from tests.faults.bounds import excess, lateness
from tests.faults.processes import PATIENCE, Scene, Sidecar

RATE, BURST = 40, 5
CUSTOMERS = [f"cus_{number}" for number in range(200)]


@pytest.mark.timeout(90)
async def test_a_storm_of_429(scene: Scene) -> None:
    """Many more questions than the budget has requests, before, during and after: in no window are there more."""
    await storm(scene)


async def storm(scene: Scene, *, without: str | None = None) -> None:
    """Ask about many customers while Stripe throttles, and count what it is asked."""
    for customer in CUSTOMERS:
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(
        fresh_for="50ms", stale_for="1h", deadline="200ms", events_poll="0", rate=RATE, burst=BURST, without=without
    )
    goes_on = True

    async def ask() -> None:
        while goes_on:
            await sidecar.checks(*((customer, "a") for customer in CUSTOMERS))
            await asyncio.sleep(0.02)

    async with lateness() as late, asyncio.TaskGroup() as group:
        _ = group.create_task(ask())
        await asyncio.sleep(1.5)
        scene.stripe.break_with(Fault.THROTTLED)
        await asyncio.sleep(2)
        assert (await sidecar.status())["stripe"]["state"] == "throttled"
        assert await sidecar.health("/readyz") == 200
        if without is None:
            await recovers(scene, sidecar)
        goes_on = False
    moments = [seen.at for seen in scene.stripe.requests]
    assert excess(moments, RATE) <= BURST + RATE * late.most, "more requests than the budget has"
    assert {429, 200} <= {seen.status for seen in scene.stripe.requests}
    assert await sidecar.terminate() == 0


async def recovers(scene: Scene, sidecar: Sidecar) -> None:
    """See that the budget has given way, and comes back bit by bit once Stripe does not mind any more."""
    slowed = await rate(sidecar)
    assert slowed <= RATE / 2
    before = len(scene.stripe.requests)
    await asyncio.sleep(1)
    during = len(scene.stripe.requests) - before
    assert during <= RATE / 2 + BURST, "as many as before the storm"
    scene.stripe.break_with(None)
    async with asyncio.timeout(PATIENCE):
        while await rate(sidecar) < slowed + 2:
            await asyncio.sleep(0.1)
        while list(scene.stripe.requests)[-1].status != 200:
            await asyncio.sleep(0.1)


async def rate(sidecar: Sidecar) -> float:
    """Return the requests a second that the budget allows by now."""
    return (await sidecar.metrics())["budget_rate_requests_per_second"]
