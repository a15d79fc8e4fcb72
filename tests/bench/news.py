"""How long after a change at Stripe the answer is another: the built-in Stripe signs and sends a webhook for each.

The time runs from the change until a check has the new answer; who asks does so again and again. Beside it stands one
round trip to the same Stripe, taken just before.
"""

import asyncio
import math
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from sidecar.demo import Endpoint, FakeStripe, serving
from tests.bench.measuring import Effort
from tests.bench.processes import Failed, pinned
from tests.bench.questions import LIST, check_of
from tests.bench.servers import Stage, free_port
from tests.bench.table import Section
from tests.bench.upstream import CROWD, KEY, LOOKUP_KEYS, filled

SECRET = "whsec_bench"
CHANGES = 100
"""For each round of an effort."""
PATIENCE = 5.0
"""Seconds after which news counts as lost."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Changes what customers hold and watches what the sidecar says."""

    stripe: FakeStripe
    upstream: str
    sidecar: str
    session: aiohttp.ClientSession

    async def round_trip(self, customer: str) -> float:
        """Return the seconds in which Stripe lists what a customer holds."""
        began = perf_counter()
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.session.get(f"{self.upstream}{LIST}?customer={customer}", headers=headers) as response:
            response.raise_for_status()
            _ = await response.read()
        return perf_counter() - began

    async def is_entitled(self, customer: str, key: str) -> bool:
        """Ask the sidecar."""
        async with self.session.get(f"{self.sidecar}{check_of(customer, key)}") as response:
            response.raise_for_status()
            return bool((await response.json())["entitled"])

    async def change(self, customer: str, key: str) -> float:
        """Let a customer win or lose, and return the seconds until the answer says so."""
        wanted = not await self.is_entitled(customer, key)
        began = perf_counter()
        _ = self.stripe.grant(customer, key) if wanted else self.stripe.revoke(customer, key)
        async with asyncio.timeout(PATIENCE):
            while await self.is_entitled(customer, key) is not wanted:
                pass
        return perf_counter() - began


async def watched(stage: Stage, changes: int) -> tuple[list[float], list[float]]:
    """Return the seconds of round trips, and of changes."""
    stripe, port, webhooks, upstream = filled(), free_port(), free_port(), free_port()
    variables = {
        "SIDECAR_STRIPE_API_KEY": KEY,
        "SIDECAR_STRIPE_API_BASE": f"http://127.0.0.1:{upstream}",
        "SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_OPS_LISTEN": "127.0.0.1:0",
        "SIDECAR_WEBHOOK_LISTEN": f"127.0.0.1:{webhooks}",
        "SIDECAR_WEBHOOK_SECRET": SECRET,
        "SIDECAR_RATE": "10000",
        "SIDECAR_BURST": "1000",
    }
    command = [sys.executable, "-m", "sidecar", "serve"]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(stripe, port=upstream))
        stripe.webhooks.endpoints.append(Endpoint(f"http://127.0.0.1:{webhooks}/webhooks/stripe", [SECRET]))
        _ = await asyncio.to_thread(stage.start, "news", command, port, variables=variables)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        watch = Watch(stripe, url, f"http://127.0.0.1:{port}", session)
        trips, waits = [], []
        for number in range(changes):
            customer = CROWD[number % 100]
            trips.append(await watch.round_trip(customer))
            waits.append(await watch.change(customer, LOOKUP_KEYS[2]))
        return trips, waits


def measured(stage: Stage, effort: Effort, say: Callable[[str], None]) -> Section:
    """Measure.

    :raises Failed: when news did not become an answer.
    """
    changes = CHANGES * effort.rounds
    say(f"{changes} changes at Stripe")
    try:
        with pinned(stage.cores.load):
            trips, waits = asyncio.run(watched(stage, changes))
    except (TimeoutError, aiohttp.ClientError) as error:
        raise Failed(f"news did not become an answer: {error!r}") from error
    lines = {
        "a round trip to the built-in Stripe": trips,
        "a change at Stripe, until a check says so": waits,
        "the one less the other": [wait - trip for trip, wait in zip(trips, waits, strict=True)],
    }
    numbers = {name: {f"p{share:g}_ms": at(share, values) for share in (50, 99, 100)} for name, values in lines.items()}
    rows = [[name, *(f"{value:.2f}" for value in found.values())] for name, found in numbers.items()]
    columns = [f"{changes} changes", "p50, ms", "p99, ms", "slowest, ms"]
    return Section("news", "From a change at Stripe to the new answer", columns, rows, [], numbers)


def at(share: float, values: list[float]) -> float:
    """Return a percentile, in milliseconds."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * share / 100) - 1] * 1e3
