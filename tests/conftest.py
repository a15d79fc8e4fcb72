"""Fixtures for all: an upstream on a real port, a sidecar before it, clocks; and what every test must respect."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings as hypothesis_settings

from sidecar.demo import FakeStripe, serving
from tests.fakes import KEY, FakeClock, Running, running, way
from tests.reading import Toml

hypothesis_settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis_settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
hypothesis_settings.register_profile("few", max_examples=15, deadline=None, derandomize=True)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    """A call of ours that blocks the event loop fails the test that made it."""
    with blockbuster_ctx("sidecar") as blockbuster:
        for function in blockbuster.functions.values():
            function.can_block_in("prometheus_client/process_collector.py", "collect")  # /proc is memory, not a disk
            function.can_block_in("sidecar/app.py", "assembled")  # nothing is served yet
            function.can_block_in("sidecar/api/listening.py", "bind")  # the same, called by a test
            function.can_block_in("sidecar/settings.py", "meanings")  # for who asks for help, and the tables
        yield blockbuster


@pytest.fixture(autouse=True)
def _a_slow_machine_is_no_news() -> Iterator[None]:
    """In debug mode asyncio warns of each slow step; that is about the machine, and would stand among what we log."""
    logger = logging.getLogger("asyncio")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the machine that runs the tests change nothing."""
    for name in list(os.environ):
        if name.startswith("SIDECAR_") or name == "STRIPE_API_KEY":
            monkeypatch.delenv(name)


WAYS = {"with shortcuts": True} if os.environ.get("ONE_WAY") else {"with shortcuts": True, "aiohttp alone": False}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested holds whichever way requests are answered."""
    monkeypatch.setattr(way, "has_shortcuts", request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stripe() -> FakeStripe:
    return FakeStripe(key=KEY)


@pytest.fixture
async def upstream(stripe: FakeStripe) -> AsyncIterator[str]:
    async with serving(stripe) as url:
        yield url


@pytest.fixture
async def sidecar(upstream: str) -> AsyncIterator[Running]:
    async with running(upstream) as found:
        yield found


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    """Write a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "sidecar.toml"
        path.write_text(text)
        return path

    return write
