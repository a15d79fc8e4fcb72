"""Connections that are slow, silent or too many, over real sockets with little patience."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from sidecar.api.connections import Patience
from sidecar.api.listening import Served, bind
from sidecar.demo import FakeStripe
from sidecar.kit.address import Address
from sidecar.kit.door import Door
from tests.fakes import running

HUNDREDTHS = Patience(head=0.2, idle=0.6, stalled=0.3)
LONG = Patience(head=60, idle=60, stalled=60)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = b"x" * (16 << 20)


@dataclass
class Server:
    """A server, and what its handlers wait for."""

    port: int
    door: Door
    served: Served
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self, _: web.Request) -> web.Response:
        await self.go_on.wait()
        return web.Response(text="held")


async def small(_: web.Request) -> web.Response:
    return web.Response(text="small")


async def big(_: web.Request) -> web.Response:
    return web.Response(body=BIG)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 100_000)


@asynccontextmanager
async def serving(patience: Patience, most: int = 100) -> AsyncIterator[Server]:
    """Serve; in the end nothing is left of it, not even a task."""
    before = asyncio.all_tasks()
    app, door = web.Application(), Door(most)
    served = Served(app, door, patience=patience)
    with bind(Address("127.0.0.1", 0)) as bound:
        found = Server(bound.getsockname()[1], door, served)
        routes = {"/": small, "/big": big, "/endless": endless, "/hold": found.hold}
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        await served.open([bound])
        try:
            yield found
        finally:
            await served.close()
    await until(lambda: asyncio.all_tasks() <= before)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not is_so():
            await asyncio.sleep(0.01)


class Peer:
    """A connection that does what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, sent: bytes = GET) -> bytes:
        """Send a request and give its answer's first bytes, up to the body's end."""
        self.writer.write(sent)
        head = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith(b"Content-Length")]
        return head + await self.reader.readexactly(length)

    def deaf(self) -> None:
        """Stop reading."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    async def rest(self) -> bytes:
        """Return what comes until the other side closes, one way or another."""
        found = b""
        try:
            while chunk := await self.reader.read(1 << 16):
                found += chunk
        except ConnectionError:
            pass
        return found


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 16)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


async def test_half_a_head_is_waited_for_only_so_long() -> None:
    """Then it is refused with a problem document and the connection is closed."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        peer.writer.write(GET[:-2])
        answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"\r\nContent-Type: application/problem+json\r\n" in answer
        assert b'"code":"head_too_slow"' in answer
        assert server.door.shown_out["slow_head"] == 1


async def test_a_head_in_pieces_is_a_head() -> None:
    """It is answered when it is complete, and then nothing is held against the connection; first or second."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        for _ in range(2):
            for byte in range(len(GET) - 1):
                peer.writer.write(GET[byte : byte + 1])
                await asyncio.sleep(0)
            assert (await peer.ask(GET[-1:])).endswith(b"small")
            await asyncio.sleep(HUNDREDTHS.head + 0.1)
        assert not any(server.door.shown_out.values())


async def test_dripping_gains_no_time() -> None:
    """The head has its time from the connection's opening, or from its own first byte, whatever else comes."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        assert (await peer.ask()).endswith(b"small")
        peer.writer.write(GET[:-2] + b"A: ")
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(peer.rest())
            for _ in range(1000):
                if ending.done():
                    break
                peer.writer.write(b"a")
                await asyncio.sleep(0.01)
        assert ending.result().startswith(b"HTTP/1.1 408 ")
        assert server.door.shown_out["slow_head"] == 1


async def test_silence_is_answered_with_silence() -> None:
    """Somebody who has connected in advance has asked for nothing; 408 would be taken for the next answer."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        assert await peer.rest() == b""
        assert server.door.shown_out["slow_head"] == 1


async def test_between_requests_there_is_more_time() -> None:
    """An idle connection outlives the time of a head, and ends when its own is over."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        assert (await peer.ask()).endswith(b"small")
        await asyncio.sleep(HUNDREDTHS.head + 0.1)
        assert (await peer.ask()).endswith(b"small")
        assert await peer.rest() == b""
        assert {why: count for why, count in server.door.shown_out.items() if count} == {"idle": 1}


async def test_half_a_head_behind_a_request_ends_too() -> None:
    """It came before it was waited for."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        assert (await peer.ask(GET + b"GET / H")).endswith(b"small")
        assert await peer.rest() == b""
        assert server.door.shown_out["idle"] + server.door.shown_out["slow_head"] == 1


async def test_a_request_under_way_is_not_hurried() -> None:
    """However long its answer takes."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        peer.writer.write(GET.replace(b"/", b"/hold", 1))
        await asyncio.sleep(1.0)
        server.go_on.set()
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert not any(count for why, count in server.door.shown_out.items() if why != "idle")


@pytest.mark.parametrize("path", [b"/big", b"/endless"])
async def test_who_does_not_read_is_dropped(path: bytes) -> None:
    """After a while without any progress, in whatever kind of answer; its task and its memory go too."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        peer.deaf()
        peer.writer.write(GET.replace(b"/", path, 1))
        await until(lambda: server.door.shown_out["stalled"] == 1)
        assert len(server.door) == 0


async def test_who_reads_slowly_is_served() -> None:
    """Progress is all that is asked for: an answer may take many times what a standstill may."""
    async with serving(HUNDREDTHS) as server, connected(server) as peer:
        peer.writer.write(GET.replace(b"/", b"/big", 1))
        await peer.reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < len(BIG):
            await asyncio.sleep(0.05)
            got += len(await peer.reader.readexactly(min(1 << 20, len(BIG) - got)))
        assert server.door.shown_out["stalled"] == 0
        assert (await peer.ask()).endswith(b"small")


async def test_one_too_many_takes_the_place_of_the_idle() -> None:
    """Whoever has been so for longest; an open request is nobody's to take."""
    async with serving(LONG, most=3) as server, AsyncExitStack() as stack:
        busy, old, young = [await stack.enter_async_context(connected(server)) for _ in range(3)]
        busy.writer.write(GET.replace(b"/", b"/hold", 1))
        for peer in (young, old, young):
            await peer.ask()
            await asyncio.sleep(0.01)  # some loops count milliseconds
        another = await stack.enter_async_context(connected(server))
        assert (await another.ask()).endswith(b"small")
        assert await old.rest() == b""
        assert (await young.ask()).endswith(b"small")
        assert (len(server.door), server.door.shown_out["evicted"]) == (3, 1)
        server.go_on.set()
        assert b"held" in await busy.reader.read(1000)


async def test_half_a_head_is_idle() -> None:
    """Otherwise a few hundred bytes would keep everybody out."""
    async with serving(LONG, most=2) as server, AsyncExitStack() as stack:
        for _ in range(2):
            peer = await stack.enter_async_context(connected(server))
            peer.writer.write(b"GET / HT")
        await until(lambda: len(server.door) == 2)
        for _ in range(2):
            peer = await stack.enter_async_context(connected(server))
            assert (await peer.ask()).endswith(b"small")
        assert server.door.shown_out["evicted"] == 2


async def test_one_too_many_is_told_so() -> None:
    """When all are busy; afterwards there is room again."""
    async with serving(LONG, most=2) as server, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(connected(server)) for _ in range(2)]
        for peer in busy:
            peer.writer.write(GET.replace(b"/", b"/hold", 1))
        await until(lambda: len(server.door) == 2)
        await asyncio.sleep(0.05)  # the requests have arrived
        async with connected(server) as refused:
            answer = await refused.rest()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert b'"code":"too_many_connections"' in answer
        server.go_on.set()
        assert b"held" in await busy[0].reader.read(1000)
        async with connected(server) as another:
            assert (await another.ask()).endswith(b"small")
        assert server.door.shown_out["refused"] == 1


class TestDraining:
    async def test_waits_for_answers_under_way(self) -> None:
        """And closes what is idle, or only half a head, at once; nobody else is let in."""
        async with (
            serving(LONG) as server,
            connected(server) as busy,
            connected(server) as idle,
            connected(server) as slow,
        ):
            await idle.ask()
            slow.writer.write(GET[:-2])
            busy.writer.write(GET.replace(b"/", b"/hold", 1))
            await until(lambda: len(server.door) == 3)
            await asyncio.sleep(0.05)
            async with asyncio.TaskGroup() as group:
                draining = group.create_task(server.served.drain(asyncio.get_running_loop().time() + 60))
                assert await idle.rest() == b""
                assert await slow.rest() == b""
                with pytest.raises(OSError, match="onnect"):
                    await asyncio.open_connection("127.0.0.1", server.port)
                assert not draining.done()
                server.go_on.set()
                assert (await busy.rest()).endswith(b"held")
            assert not any(server.door.shown_out.values())

    @pytest.mark.parametrize("within", [0.0, 0.2])
    async def test_cuts_off_what_takes_too_long(self, within: float, caplog: pytest.LogCaptureFixture) -> None:
        """A handler that does not end, a reader that does not read; how many is said."""
        async with serving(LONG) as server, connected(server) as held, connected(server) as deaf:
            held.writer.write(GET.replace(b"/", b"/hold", 1))
            deaf.deaf()
            deaf.writer.write(GET.replace(b"/", b"/big", 1))
            await until(lambda: len(server.door) == 2)
            await asyncio.sleep(0.05)
            await server.served.drain(asyncio.get_running_loop().time() + within)
            assert await held.rest() == b""
            assert len(server.door) == 0
        ours = [record.message for record in caplog.records if record.name.startswith("sidecar.")]
        assert ours == ["cut off 2 connections whose answers were not done in time"]

    async def test_gives_an_answer_time_to_be_read(self) -> None:
        """It is not done when its handler is."""
        async with serving(LONG) as server, connected(server) as peer:
            peer.writer.write(GET.replace(b"/", b"/big", 1))
            await peer.reader.readuntil(b"\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                _ = group.create_task(server.served.drain(asyncio.get_running_loop().time() + 60))
                assert len(await peer.rest()) == len(BIG)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.timeout(120)
async def test_two_thousand_slow_ones_do_not_disturb_the_others(upstream: str, stripe: FakeStripe) -> None:
    """Idle, half a head, half a body: checks are answered, and afterwards all is as before."""
    asyncio.get_running_loop().set_debug(False)
    stripe.grant("cus_1", "a")
    kinds = [
        b"",
        b"GET /v1/customers/cus_1/entitlements/a HTTP/1.1\r\nHost: loc",
        b"POST /v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ]
    async with running(upstream) as sidecar:
        await sidecar.check("cus_1", "a")
        tasks, files = len(asyncio.all_tasks()), descriptors()
        door, (host, port) = sidecar.sidecar.checks.door, sidecar.sidecar.checks.addresses[0].split(":")
        inside = len(door)
        most, slow = 0, []
        for number in range(2000):
            peer = socket.create_connection((host, int(port)))
            slow.append(peer)
            peer.sendall(kinds[number % 3])
            if number % 100 == 99:
                for _ in range(3):
                    assert (await sidecar.check("cus_1", "a"))["entitled"] is True
                most = max(most, len(door))
        assert f'connections{{listener="checks"}} {len(door)}.0' in await sidecar.metrics()
        for peer in slow:
            peer.close()
        assert most > 1000, "all 2000, but on a machine that takes longer for this than they are waited for"
        await until(lambda: len(door) <= inside)
        await until(lambda: descriptors() <= files + 2)  # the ops listener's connection is kept by the session
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
        assert (await sidecar.check("cus_1", "a"))["entitled"] is True
        assert stripe.count("list") == 1


async def test_more_connections_than_allowed_are_served_in_turn(upstream: str, stripe: FakeStripe) -> None:
    """The setting bounds each listener by itself; health has room of its own."""
    stripe.grant("cus_1", "a")
    async with running(upstream, max_connections=5) as sidecar, AsyncExitStack() as stack:
        for _ in range(12):
            session = await stack.enter_async_context(aiohttp.ClientSession())
            async with session.get(f"{sidecar.url}/v1/customers/cus_1/entitlements/a") as response:
                assert (await response.json())["entitled"] is True
        assert (await sidecar.get("/readyz"))[0] == 200
        metrics = await sidecar.metrics()
    assert 'connections{listener="checks"} 5.0' in metrics
    assert 'connections_closed_total{listener="checks",reason="evicted"} 7.0' in metrics
    assert 'connections{listener="ops"} 1.0' in metrics
