"""A real Prometheus before real sidecars, each in a trouble of its own and a namespace that is called after it."""

import asyncio
import json
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sidecar.demo import FakeStripe, Fault, serving
from tests.fakes import KEY, Running, running
from tests.packaging.values import APPLICATION

RULES = APPLICATION / "files" / "rules.yaml"
EVERY = 0.2
"""Seconds between two scrapes."""


PATIENCE = 45.0
"""Seconds after which what should be seen is taken to be missing; much longer than it takes."""


@dataclass
class Case:
    """A sidecar, and the Stripe that is its own."""

    sidecar: Running
    stripe: FakeStripe

    async def ask(self, *customers: str, key: str = "a") -> None:
        """Ask about customers, all at once."""
        await asyncio.gather(*(self.sidecar.check(customer, key) for customer in customers))

    async def poll(self) -> None:
        """Read the events."""
        await self.sidecar.sidecar.feed.poll()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.sidecar.clock.advance(seconds)


async def calm(case: Case) -> None:
    """Answer about a customer who is known."""
    await case.ask("cus_1")


async def down(case: Case) -> None:
    """Ask what only Stripe could answer, which is down."""
    case.stripe.break_with(Fault.ERROR)
    await case.ask("cus_2", "cus_3")


async def rejected(case: Case) -> None:
    """Ask with a key that Stripe knows no longer."""
    case.stripe.key = "sk_test_another"
    await case.ask("cus_2")


async def deaf(case: Case) -> None:
    """Let a long time pass without the events."""
    case.advance(4000)


async def old(case: Case) -> None:
    """Answer from memory, which has grown old."""
    case.stripe.break_with(Fault.ERROR)
    case.advance(1000)
    await case.ask("cus_1")


async def poor(case: Case) -> None:
    """Ask for more than the budget has."""
    await case.ask(*(f"cus_{number}" for number in range(2, 30)))


async def broken(case: Case) -> None:
    """Nothing: the store was of no use from the start."""


async def misled(case: Case) -> None:
    """Let a list change without an event, be read again, and the feed go on past that."""
    await case.ask("cus_1")
    case.advance(100)
    await case.poll()
    case.stripe.accounts[None].grant("cus_1", "b", new_feature=False)
    case.advance(10)
    await case.sidecar.ask("POST", "/v1/customers/cus_1/refresh")
    case.advance(100)
    await case.poll()


Trouble = Callable[[Case], Awaitable[None]]

TROUBLES: dict[str, Trouble] = {
    "calm": calm,
    "down": down,
    "rejected": rejected,
    "deaf": deaf,
    "old": old,
    "poor": poor,
    "broken": broken,
    "misled": misled,
}
KNOBS: dict[str, dict[str, Any]] = {
    "poor": {"rate": 0.5, "burst": 2, "deadline": 0.2},
    "broken": {"store": "sqlite:///dev/null/lists.db"},
}


@asynccontextmanager
async def sidecars() -> AsyncIterator[dict[str, Case]]:
    """Have a sidecar for each trouble; it has read the events, and knows one customer."""
    async with AsyncExitStack() as stack:
        cases = {}
        for name in TROUBLES:
            stripe = FakeStripe(key=KEY)
            stripe.grant("cus_1", "a")
            for number in range(2, 30):
                stripe.add_customer(f"cus_{number}")
            upstream = await stack.enter_async_context(serving(stripe))
            case = Case(await stack.enter_async_context(running(upstream, **KNOBS.get(name, {}))), stripe)
            stripe.now = case.sidecar.clock
            await case.poll()
            await case.ask("cus_1")
            case.advance(100)
            await case.poll()
            cases[name] = case
        yield cases


@dataclass
class Prometheus:
    """A server that scrapes, and a client to ask it with."""

    url: str
    session: aiohttp.ClientSession

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression has now."""
        async with self.session.get(f"{self.url}/api/v1/query", params={"query": expression}) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    async def namespaces(self, expression: str) -> set[str]:
        """Return the namespaces of the samples."""
        return {sample["metric"].get("namespace", "") for sample in await self.query(expression)}

    async def wait_for(self, expression: str, *namespaces: str) -> None:
        """Wait until an expression has samples of these namespaces."""
        found: set[str] = set()
        for _ in range(round(PATIENCE / EVERY)):
            found = await self.namespaces(expression)
            if set(namespaces) <= found:
                return
            await asyncio.sleep(EVERY)
        raise AssertionError(f"{expression}: {sorted(found)}, not {sorted(namespaces)}")


@asynccontextmanager
async def prometheus(targets: dict[str, str], directory: Path) -> AsyncIterator[Prometheus]:
    """Have a server that scrapes ``targets``, by namespace, and evaluates the chart's rules."""
    scrape = [{"targets": [target], "labels": {"namespace": name}} for name, target in targets.items()]
    every = f"{EVERY * 1000:.0f}ms"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "entitlement-sidecar", "static_configs": scrape}],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "log").open("wb") as log, tempfile.TemporaryDirectory() as data:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            async with aiohttp.ClientSession() as session:
                found = Prometheus(f"http://{address}", session)
                await ready(found, process)
                yield found
        finally:
            process.kill()
            await process.wait()


async def ready(server: Prometheus, process: asyncio.subprocess.Process) -> None:
    """Wait until the server answers."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert process.returncode is None, "Prometheus has ended"
            try:
                async with server.session.get(f"{server.url}/-/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # not yet
            await asyncio.sleep(0.05)


def dashboard_queries() -> list[str]:
    """Return every query of the dashboard, as Grafana would ask it with everything selected."""
    dashboard = json.loads((APPLICATION / "files" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [with_variables(query) for query in queries]


def with_variables(query: str) -> str:
    """Return a query with Grafana's variables put in."""
    for name, value in {"$__rate_interval": "1m", "$namespace": ".*", "$job": ".*"}.items():
        query = query.replace(name, value)
    return query
