"""Stand-ins that behave: clocks that obey, and a sidecar in this process on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from sidecar.api.shortcuts import Shortcuts
from sidecar.app import Sidecar, assembled, loop_forever
from sidecar.kit.clock import steady_clock
from sidecar.kit.lifecycle import Phase
from sidecar.listeners import Listener, listening
from sidecar.settings import Settings

KEY = "sk_test_51PlantedKeyThatMustNeverBeShown"
SECRET = "whsec_PlantedSecretThatMustNeverBeShown"


class FakeClock:
    """Time that stands still until it is advanced."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ShiftedClock:
    """Real time, plus what it was advanced by: for parts that also wait in real time."""

    def __init__(self) -> None:
        self._clock = steady_clock()
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@dataclass
class Running:
    """A sidecar that answers, and a client to ask it with."""

    sidecar: Sidecar
    session: aiohttp.ClientSession
    clock: ShiftedClock

    @property
    def url(self) -> str:
        return f"http://{self.sidecar.checks.addresses[0]}"

    @property
    def ops_url(self) -> str:
        return f"http://{self.sidecar.ops.addresses[0]}"

    @property
    def webhook_url(self) -> str:
        """The listener that Stripe posts to; there is one only with a ``webhook_secret``."""
        return f"http://{self.sidecar.webhooks.addresses[0]}"

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON body; ``Cache_Control`` stands for ``Cache-Control``."""
        return await self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        base = self.ops_url if path in ("/livez", "/startupz", "/readyz", "/status") else self.url
        async with self.session.request(method, base + path, **options) as response:
            return response.status, await response.json(content_type=None)

    async def check(self, customer: str, lookup_key: str, query: str = "", **headers: str) -> dict[str, Any]:
        """Return the decision (or problem) for one check."""
        return (await self.get(f"/v1/customers/{customer}/entitlements/{lookup_key}{query}", **headers))[1]

    async def metrics(self) -> str:
        async with self.session.get(f"{self.ops_url}/metrics") as response:
            return await response.text()


def settings_for(upstream: str, **knobs: Any) -> Settings:
    """Return settings for tests: any port, a generous budget; ``knobs`` change them."""
    defaults = {
        "stripe_api_key": KEY,
        "listen": "127.0.0.1:0",
        "ops_listen": "127.0.0.1:0",
        "webhook_listen": "127.0.0.1:0",
        "rate": 10_000,
        "burst": 10_000,
    }
    if "stripe_api_key_file" in knobs:
        del defaults["stripe_api_key"]
    return Settings(stripe_api_base=upstream, **{**defaults, **knobs})


class Way:
    """How requests are answered: by shortcut where there is one, or by aiohttp alone. The fixture ``each_way`` tries both."""

    def __init__(self) -> None:
        self.has_shortcuts = True

    def taken(self, sidecar: Sidecar) -> list[Listener]:
        """Return the sidecar's listeners, without their shortcuts if need be."""
        if self.has_shortcuts:
            return sidecar.listeners
        return [replace(listener, shortcuts=Shortcuts.none()) for listener in sidecar.listeners]


way = Way()


@asynccontextmanager
async def running(upstream: str, *, loops: bool = False, **knobs: Any) -> AsyncIterator[Running]:
    """Serve a sidecar in this process, in front of ``upstream``; without ``loops``, events are polled by the test.

    Its connections have their shortcuts as long as ``way.has_shortcuts``.
    """
    clock = ShiftedClock()
    async with (
        assembled(settings_for(upstream, **knobs), clock=clock) as sidecar,
        looping(sidecar) if loops else nullcontext(),
        listening(*way.taken(sidecar)),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        sidecar.lifecycle.enter(Phase.SERVING)
        yield Running(sidecar, session, clock)
        sidecar.lifecycle.enter(Phase.DRAINING)


@asynccontextmanager
async def looping(sidecar: Sidecar) -> AsyncIterator[None]:
    """Run the loops, as ``app.serve`` does."""
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(loop_forever(loop)) for loop in sidecar.loops]
        yield
        for loop in loops:
            loop.cancel()
