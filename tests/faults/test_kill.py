"""A process is killed at any moment, again and again, while it is asked and told of changes."""

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.settings import Settings
from tests.faults.processes import PATIENCE, Scene, Sidecar
from tests.faults.test_outages import healed
from tests.faults.truth import SLACK

RESTARTS = int(os.environ.get("RESTARTS", "20"))
CUSTOMERS = [f"cus_{number}" for number in range(30)]
LOST = 0.1
"""Part of the webhooks that nobody delivers; the list of events tells of them."""


@dataclass(frozen=True)
class Store:
    """What a sidecar keeps beyond its process: the settings for it, and a look at what a killed one left behind."""

    knobs: dict[str, str]
    sources: set[str]
    """Where an answer comes from that was learnt before a kill, while Stripe is away."""
    inspect: Callable[[], None] = lambda: None


def memory(_: Path) -> Store:
    """Keep nothing."""
    return Store({}, {"policy"})


def sqlite(directory: Path) -> Store:
    """Keep a file, which no kill may corrupt."""
    file = directory / "store.db"

    def inspect() -> None:
        if file.exists():  # it was killed before it had one
            with closing(sqlite3.connect(file)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    return Store({"store": f"sqlite:///{file}"}, {"store", "memory"}, inspect)


with_store = pytest.mark.skipif("store" not in Settings.model_fields, reason="there is no store")
STORES = [memory, pytest.param(sqlite, marks=with_store)]


@dataclass
class Load:
    """Questions, changes and news of them, at a sidecar that is not always there."""

    scene: Scene
    sidecar: Sidecar
    rng: random.Random
    goes_on: bool = True
    answers: int = 0
    acknowledged: int = 0

    async def ask(self) -> None:
        """Ask about one customer, or about all."""
        while self.goes_on:
            one = self.rng.choice(CUSTOMERS)
            try:
                if self.rng.random() < 0.8:
                    await self.sidecar.check(one, "a")
                else:
                    await self.sidecar.checks(*((customer, "a") for customer in CUSTOMERS))
                self.answers += 1
            except aiohttp.ClientError:  # it was killed
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.002)

    async def change(self) -> None:
        """Let customers win and lose, and tell of it."""
        truth = self.scene.truth
        while self.goes_on:
            customer = self.rng.choice(CUSTOMERS)
            changed_at = truth.change(customer, "a", held=not truth.is_held(customer, "a"))
            if self.rng.random() > LOST and await self.is_delivered(truth.last_event()):
                truth.acknowledged(customer, changed_at)
                self.acknowledged += 1
            await asyncio.sleep(self.rng.uniform(0, 0.03))

    async def is_delivered(self, event: dict[str, Any]) -> bool:
        """Post an event up to three times; tell whether it was answered 200."""
        for _ in range(3):
            try:
                if await self.sidecar.post(event) == 200:
                    return True
            except aiohttp.ClientError:
                await asyncio.sleep(0.03)
        return False


@asynccontextmanager
async def loaded(scene: Scene, sidecar: Sidecar, rng: random.Random) -> AsyncIterator[Load]:
    """Have a load; what it sees that must not be ends it, and the test."""
    load = Load(scene, sidecar, rng)
    async with asyncio.TaskGroup() as group:
        for work in (load.ask, load.ask, load.change):
            _ = group.create_task(work())
        yield load
        load.goes_on = False


@pytest.mark.timeout(60)
@pytest.mark.parametrize("store", STORES)
async def test_news_outlives_a_kill(scene: Scene, tmp_path: Path, store: Callable[[Path], Store]) -> None:
    """News was answered 200, Stripe cannot be asked, the process is killed: the old answer does not look new after it."""
    await killed_after_news(scene, store(tmp_path))


async def killed_after_news(scene: Scene, store: Store, *, without: str | None = None) -> None:
    """Tell of a change while Stripe is down, and kill the sidecar before it could read the list again."""
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(events_poll="0", deadline="1s", dirty_wait="100ms", without=without, **store.knobs)
    await healed(sidecar, "cus_1")
    await scene.down()
    await asyncio.sleep(2 * SLACK)  # so that what was read is from before the change beyond doubt
    changed_at = scene.truth.change("cus_1", "a", held=False)
    assert await sidecar.post(scene.truth.last_event()) == 200
    scene.truth.acknowledged("cus_1", changed_at)
    assert (await sidecar.check("cus_1", "a"))["stale"] is True
    await sidecar.kill()
    store.inspect()
    await sidecar.start()
    answer = await sidecar.check("cus_1", "a")
    assert answer["source"] in store.sources, answer
    await scene.up()
    await healed(sidecar, "cus_1")
    assert await sidecar.terminate() == 0


@pytest.mark.timeout(60 + 2 * RESTARTS)
@pytest.mark.parametrize("store", STORES)
async def test_kill_at_random_moments(scene: Scene, tmp_path: Path, store: Callable[[Path], Store]) -> None:
    """It starts again each time, nothing is corrupt, no age is a lie, and no news that was answered 200 is forgotten."""
    await killed_often(scene, store(tmp_path), RESTARTS)


async def killed_often(scene: Scene, store: Store, restarts: int, *, without: str | None = None) -> None:
    """Kill and restart a sidecar under load, and see at the end that it knows the truth."""
    rng = random.Random(9)  # noqa: S311 -- no secret
    for customer in CUSTOMERS:
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(
        events_poll="1s", events_lag="0s", rate=1000, burst=1000, deadline="5s", without=without, **store.knobs
    )
    async with loaded(scene, sidecar, rng) as load:
        for _ in range(restarts):
            await some_life(load, rng)
            await sidecar.kill()
            store.inspect()
            if rng.random() < 0.2:
                await sidecar.begin()
                await asyncio.sleep(rng.uniform(0, 0.05))
                await sidecar.kill()
                store.inspect()
            await sidecar.start()
            assert (await sidecar.status())["phase"] == "serving"
            assert await sidecar.health("/readyz") == 200
    assert min(load.answers, load.acknowledged) >= restarts
    for customer in CUSTOMERS:
        await healed(sidecar, customer)
    assert await sidecar.terminate() == 0
    store.inspect()


async def some_life(load: Load, rng: random.Random) -> None:
    """Wait for a few answers and acknowledgements, and then a random while."""
    answers, acknowledged = load.answers, load.acknowledged
    async with asyncio.timeout(PATIENCE):
        while load.answers < answers + 3 or load.acknowledged < acknowledged + 1:
            await asyncio.sleep(0.002)
    await asyncio.sleep(rng.uniform(0, 0.15))
