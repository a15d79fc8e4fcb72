"""A process is told to end while it works."""

import asyncio
import signal
from dataclasses import dataclass, field

import aiohttp
import pytest

from sidecar.demo import Fault
from tests.faults.processes import Scene, Sidecar, execute
from tests.faults.truth import wall

CALLERS, CUSTOMERS = 8, 1000
BEGUN = 0.1
"""Seconds after which a question that was sent has arrived, on a machine however busy."""

DRAINED = 15.0
"""Seconds after which a process has ended that was told to; it gives answers under way five."""


@dataclass
class Callers:
    """Those who ask about one customer after the other whom nobody has asked about yet."""

    sidecar: Sidecar
    answered: list[tuple[float, float]] = field(default_factory=list)
    unanswered: list[float] = field(default_factory=list)

    async def call(self, first: int) -> None:
        """Ask until nobody answers any more."""
        for number in range(first, CUSTOMERS, CALLERS):
            asked_at = wall()
            try:
                await self.sidecar.check(f"cus_{number}", "a")
            except aiohttp.ClientError:
                self.unanswered.append(asked_at)
                return
            self.answered.append((asked_at, wall()))


@pytest.mark.timeout(60)
async def test_term_under_load(scene: Scene) -> None:
    """What was begun is answered in full, who waits for news is let go, and the process ends with 0."""
    scene.stripe.break_with(Fault.SLOW, delay=0.4)
    for number in range(CUSTOMERS):
        scene.stripe.add_customer(f"cus_{number}")
    sidecar = await scene.started(launch=execute, rate=1000, burst=1000, deadline="10s", dirty_wait="10s")
    waiting = asyncio.get_running_loop().create_task(sidecar.check("cus_0", "a", "?wait=30s"))
    callers = Callers(sidecar)
    async with sidecar.session.get(f"{sidecar.url}/v1/changes") as stream, asyncio.TaskGroup() as group:
        for first in range(CALLERS):
            _ = group.create_task(callers.call(first))
            await asyncio.sleep(0.05)  # so that there is always somebody half-way
        while len(callers.answered) < 2 * CALLERS:
            await asyncio.sleep(0.01)
        told_at = wall()
        sidecar.signal(signal.SIGTERM)
        await stream.content.read()
    assert await sidecar.ended() == 0
    assert wall() - told_at < DRAINED
    assert (await waiting)["reason"] == "not_entitled"
    assert [asked_at for asked_at in callers.unanswered if asked_at < told_at - BEGUN] == [], "begun and not answered"
    assert any(asked_at < told_at < got_at for asked_at, got_at in callers.answered), "nothing was under way"
    assert len(callers.unanswered) == CALLERS
