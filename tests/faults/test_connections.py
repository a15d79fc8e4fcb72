"""Thousands who connect and say nothing, or too slowly: those who ask are answered, and nothing of it stays."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.processes import PATIENCE, Scene, Sidecar
from tests.faults.test_outages import healed

CROWD = 2000
HEAD = b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: localhost\r\n"
ROOM = 24 << 20
"""Bytes that memory may keep of what it once needed: a connection takes some 20 KiB, 2,000 of them 40 MiB."""


@pytest.fixture(autouse=True)
def _enough_files() -> None:
    """This process has as many connections as the one it connects to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CROWD + 500:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def crowd(sidecar: Sidecar) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Connect so many times: a third says nothing, a third half a head, a third has asked once and stays."""
    address = urlsplit(sidecar.url)
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(CROWD):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(writer)
            if number % 3:
                writer.write(HEAD if number % 3 == 1 else HEAD + b"\r\n")
            if number % 3 == 2:
                _ = await reader.readuntil(b"}")
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()


def resident(sidecar: Sidecar) -> int:
    """Return the bytes that a process has in memory."""
    assert sidecar.started is not None
    pages = int(Path(f"/proc/{sidecar.started.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def connections(sidecar: Sidecar) -> float:
    return (await sidecar.metrics())['connections{listener="checks"}']


@pytest.mark.timeout(90)
async def test_a_crowd_that_says_nothing(scene: Scene) -> None:
    """Checks go on beside 2,000 idle and slow connections; when they are gone, so is what they took."""
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(events_poll="0")
    await healed(sidecar, "cus_1")
    before, files = resident(sidecar), (await sidecar.metrics())["process_open_fds"]
    async with crowd(sidecar):
        assert await connections(sidecar) >= CROWD - 1
        for _ in range(50):
            assert (await sidecar.check("cus_1", "a"))["source"] == "memory"
        assert await sidecar.health("/livez") == 200
    async with asyncio.timeout(PATIENCE):
        while await connections(sidecar) > 10:
            await asyncio.sleep(0.1)
    assert (await sidecar.metrics())["process_open_fds"] <= files + 10
    assert resident(sidecar) <= before + ROOM
    async with crowd(sidecar):  # the second crowd takes the place of the first
        assert resident(sidecar) <= before + 4 * ROOM
    assert await sidecar.terminate() == 0


@pytest.mark.timeout(90)
async def test_more_than_there_is_room_for(scene: Scene) -> None:
    """Those who are idle longest give way: a newcomer is answered, however many connections stay open."""
    scene.truth.change("cus_1", "a", held=True)
    sidecar = await scene.started(events_poll="0", max_connections=200)
    await healed(sidecar, "cus_1")
    async with crowd(sidecar):
        assert await connections(sidecar) <= 200
        for _ in range(20):
            assert (await sidecar.check("cus_1", "a"))["entitled"] is True
    assert await sidecar.terminate() == 0
