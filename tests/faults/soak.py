"""``python -m tests.faults.soak``: one process under a mixed load for as long as one likes; nothing in it may grow.

The load is questions about few customers and about many, batches, Stripe's own surface, webhooks, readers of changes
that come and go, callers who hang up or talk nonsense, and a Stripe that is in trouble now and then.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp
from rich.console import Console
from rich.table import Table

from sidecar.demo import Fault
from tests.faults.processes import PATIENCE, Scene, Sidecar, incubated, staged

HOT = [f"cus_hot_{number}" for number in range(20)]
COLD, TOGETHER = 3000, 10
SAMPLES = 60
WARM_UP = 0.25
"""Part of the time in which caches fill and libraries set themselves up; nothing is compared with it."""

NONSENSE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    b"GET /v1/customers/cus_hot_1/entitlements/a HTTP/1.1\r\nHost: local",
    b"DELETE /v1/customers/cus_hot_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/customers/cus%2Fodd/entitlements/a HTTP/1.1\r\nHost: evil.example\r\n\r\n",
]


class Sample(NamedTuple):
    """What a process has at one moment; memory in MiB."""

    memory: float
    descriptors: float
    threads: float
    tasks: float

    @classmethod
    async def of(cls, sidecar: Sidecar) -> "Sample":
        """Take one: memory, descriptors and threads by /proc (proc(5)), tasks by its own metric."""
        assert sidecar.started is not None
        tasks = (await sidecar.metrics())["tasks"]
        return cls(*outside_view(Path(f"/proc/{sidecar.started.pid}")), tasks)


def outside_view(process: Path) -> tuple[float, int, int]:
    """Return the memory in MiB, the descriptors and the threads of a process."""
    pages = int((process / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, count_of(process / "fd"), count_of(process / "task")


def count_of(directory: Path) -> int:
    """Return how many entries a directory has."""
    return sum(1 for _ in directory.iterdir())


@dataclass
class Report:
    """What a soak has seen."""

    idle: Sample
    samples: list[Sample] = field(default_factory=list)
    after: Sample | None = None

    def thirds(self) -> list[Sample]:
        """Return the medians of the first, the second and the last third after warming up."""
        warm = self.samples[int(len(self.samples) * WARM_UP) :]
        size = len(warm) // 3
        parts = warm[:size], warm[size:-size], warm[-size:]
        return [Sample(*(median(values) for values in zip(*part, strict=True))) for part in parts]

    def complaints(self) -> list[str]:
        """Return what grew."""
        first, _, last = self.thirds()
        bounds = Sample(first.memory * 1.1 + 5, first.descriptors * 1.1 + 10, first.threads + 2, first.tasks * 1.5 + 20)
        grown = [name for name, value, bound in zip(Sample._fields, last, bounds, strict=True) if value > bound]
        return [f"{name} grew: {first} became {last}" for name in grown]

    def table(self) -> Table:
        """Return it for people."""
        found = Table("", *Sample._fields, title="A sidecar under load, in thirds")
        names = ("idle before", "first", "second", "last", "idle after")
        for name, sample in zip(names, [self.idle, *self.thirds(), self.after], strict=True):
            if sample is not None:
                found.add_row(name, *(f"{value:.1f}" for value in sample))
        return found


@dataclass
class Load:
    """Those who ask, each a loop of small steps; ``done`` counts the steps."""

    scene: Scene
    sidecar: Sidecar
    rng: random.Random
    goes_on: bool = True
    done: dict[str, int] = field(default_factory=dict)
    asked: int = 0

    def steps(self) -> list[tuple[Callable[[], Awaitable[object]], float]]:
        """Return each step, and how many seconds pass on average between two of them."""
        return [
            (self.ask_hot, 0.01),
            (self.ask_cold, 0.05),
            (self.ask_many, 0.1),
            (self.ask_as_stripe, 0.05),
            (self.change, 0.2),
            (self.listen, 0.1),
            (self.hang_up, 0.05),
            (self.give_up, 0.1),
            (self.talk_nonsense, 0.05),
            (self.break_stripe, 1.0),
        ]

    async def repeat(self, step: Callable[[], Awaitable[object]], every: float) -> None:
        """Take a step again and again."""
        name = getattr(step, "__name__", "")
        while self.goes_on:
            _ = await step()
            self.done[name] = self.done.get(name, 0) + 1
            await asyncio.sleep(self.rng.uniform(0, 2 * every))

    async def ask_hot(self) -> None:
        """Ask about one of few customers."""
        _ = await self.sidecar.check(self.rng.choice(HOT), "a")

    async def ask_cold(self) -> None:
        """Ask about some of more customers than memory has room for; Stripe knows none of them."""
        self.asked += TOGETHER
        numbers = range(self.asked, self.asked + TOGETHER)
        _ = await self.sidecar.checks(*((cold(number % COLD), "a") for number in numbers))

    async def ask_many(self) -> None:
        """Ask in a batch."""
        _ = await self.sidecar.checks(*((customer, "a") for customer in HOT))

    async def ask_as_stripe(self) -> None:
        """List as Stripe's SDK does."""
        url = f"{self.sidecar.url}/v1/entitlements/active_entitlements?customer={self.rng.choice(HOT)}"
        status, _ = await self.sidecar.ask("GET", url)
        assert status in (200, 429, 503), status

    async def change(self) -> None:
        """Let a customer win or lose, and tell of it."""
        truth, customer = self.scene.truth, self.rng.choice(HOT)
        changed_at = truth.change(customer, "a", held=not truth.is_held(customer, "a"))
        assert await self.sidecar.post(truth.last_event()) == 200
        truth.acknowledged(customer, changed_at)

    async def listen(self) -> None:
        """Read changes for a while."""
        async with self.sidecar.session.get(f"{self.sidecar.url}/v1/changes") as stream:
            assert stream.status == 200
            _ = await stream.content.readline()
            await asyncio.sleep(self.rng.uniform(0, 0.5))
            stream.close()

    async def hang_up(self) -> None:
        """Ask for something that takes a while, and do not wait."""
        await self.say(b"GET /v1/customers/cus_hot_0/entitlements/b?wait=2s HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def give_up(self) -> None:
        """Wait for a grant that does not come, and run out of patience."""
        url = f"{self.sidecar.url}/v1/customers/{self.rng.choice(HOT)}/entitlements/never?wait=3s"
        timeout = aiohttp.ClientTimeout(total=self.rng.uniform(0.01, 0.3))
        try:
            async with self.sidecar.session.get(url, timeout=timeout) as response:
                assert response.status == 200
        except TimeoutError:
            return

    async def talk_nonsense(self) -> None:
        """Say what is no request, or none that is answered."""
        await self.say(self.rng.choice(NONSENSE))

    async def say(self, said: bytes) -> None:
        """Send bytes, wait for some or no time, and leave."""
        host, _, port = self.sidecar.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        await asyncio.sleep(self.rng.choice([0, 0.01, 0.1]))
        writer.transport.abort()

    async def break_stripe(self) -> None:
        """Let Stripe be in trouble for a moment."""
        fault = self.rng.choice([Fault.ERROR, Fault.HANG, Fault.RESET, Fault.TORN, Fault.THROTTLED, Fault.HTML])
        self.scene.stripe.break_with(fault)
        await asyncio.sleep(0.1)
        self.scene.stripe.break_with(None)


def cold(number: int) -> str:
    """Return the name of one of the customers whom Stripe does not know; it is long, so that memory is full soon."""
    return f"cus_cold_{number:0200}"


@asynccontextmanager
async def loaded(scene: Scene, sidecar: Sidecar) -> AsyncIterator[Load]:
    """Have the load, on connections that are closed afterwards."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        load = Load(scene, replace(sidecar, session=session), random.Random(1))  # noqa: S311 -- no secret
        async with asyncio.TaskGroup() as group:
            for step, every in load.steps():
                _ = group.create_task(load.repeat(step, every))
            yield load
            load.goes_on = False


async def soak(scene: Scene, seconds: float) -> Report:
    """Load a sidecar for so long, taking samples; then let it be, until it has let go of everything."""
    for customer in HOT:
        scene.truth.change(customer, "a", held=True)
    sidecar = await scene.started(
        rate=1000, burst=1000, cache_bytes="1MiB", fresh_for="1s", deadline="5s", events_poll="1s", events_lag="0s"
    )
    report = Report(await Sample.of(sidecar))
    await fill_memory(sidecar)
    async with loaded(scene, sidecar) as load:
        for _ in range(SAMPLES):
            await asyncio.sleep(seconds / SAMPLES)
            report.samples.append(await Sample.of(sidecar))
    assert len(load.done) == len(load.steps()), load.done
    report.after = await at_rest(scene, sidecar, report.idle)
    assert await sidecar.terminate() == 0
    return report


async def fill_memory(sidecar: Sidecar) -> None:
    """Ask about the cold customers until some are forgotten for others."""
    async with asyncio.timeout(2 * PATIENCE):
        while not (await sidecar.metrics())["cache_evictions_total"]:
            for first in range(0, COLD, 500):
                _ = await sidecar.checks(*((cold(number), "a") for number in range(first, first + 500)))


async def at_rest(scene: Scene, sidecar: Sidecar, idle: Sample) -> Sample:
    """Wait until nothing is under way and nothing is open that was not before; connections to Stripe are cut."""
    async with asyncio.timeout(2 * PATIENCE):
        while (sample := await Sample.of(sidecar)).tasks:
            await asyncio.sleep(0.1)
        await scene.down()
        while (sample := await Sample.of(sidecar)).descriptors > idle.descriptors:
            await asyncio.sleep(0.1)
    return sample


async def main(minutes: float) -> int:
    """Soak, print the table, and return the exit status."""
    with tempfile.TemporaryDirectory() as directory, incubated(Path(directory)) as zygote:
        async with staged(zygote, Path(directory)) as scene:
            report = await soak(scene, 60 * minutes)
    console = Console()
    console.print(report.table())
    for complaint in report.complaints():
        console.print(complaint)
    return 1 if report.complaints() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="for how long (60)")
    sys.exit(asyncio.run(main(parser.parse_args().minutes)))
