"""Changes as server-sent events, read over a socket as the standard says."""

import asyncio
import codecs
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.api.changes import CHANGES, ChangeStream
from sidecar.api.problems import problems
from sidecar.core.changes import Changes
from tests.core.fetching import ADA, BOB, held

AT = 1_790_000_000.0
OFTEN = 0.005


class Event(NamedTuple):
    """What an ``EventSource`` hands to its listeners."""

    type: str
    data: str
    last_event_id: str


@dataclass
class EventSource:
    """The standard's parser (WHATWG HTML §9.2.5 and §9.2.6), fed with bytes as they come."""

    last_event_id: str = ""
    retry: int | None = None
    comments: int = 0
    events: list[Event] = field(default_factory=list)
    _decode: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8-sig"))
    _text: str = ""
    _type: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str = ""

    def feed(self, sent: bytes) -> None:
        """Read what is complete; a CR at the end may be half of a line end."""
        *lines, self._text = re.split(r"\r\n|\n|\r(?!\Z)", self._text + self._decode.decode(sent))
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if re.fullmatch("[0-9]+", value):
                self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(Event(self._type or "message", "\n".join(self._data), self.last_event_id))
        self._data, self._type = [], ""


@dataclass
class Reader:
    """A client that reads a stream event by event."""

    response: aiohttp.ClientResponse
    source: EventSource = field(default_factory=EventSource)
    _taken: int = 0

    async def more(self) -> None:
        """Read what comes next; not for ever, and not at the end."""
        sent = await self.response.content.readany()
        assert sent, "the stream has ended"
        self.source.feed(sent)

    async def opened(self) -> str:
        """Return the id that a client has before the first event."""
        while not self.source.last_event_id:
            await self.more()
        return self.source.last_event_id

    async def event(self) -> Event:
        """Return the next event."""
        while len(self.source.events) == self._taken:
            await self.more()
        self._taken += 1
        return self.source.events[self._taken - 1]

    async def seen(self, count: int = 1) -> list[tuple[str, str]]:
        """Return the next events by type, with the lookup key or the reason."""
        found = [await self.event() for _ in range(count)]
        return [
            (event.type, [*orjson.loads(event.data).values()][0 if event.type == "reset" else -2]) for event in found
        ]

    async def rest(self) -> list[tuple[str, str]]:
        """Return the events up to the regular end of the stream."""
        while sent := await self.response.content.readany():
            self.source.feed(sent)
        return await self.seen(len(self.source.events) - self._taken)


@dataclass
class Served:
    """A server of this route alone, and a client."""

    changes: Changes
    runner: web.AppRunner
    address: tuple[str, int]
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return "http://{}:{}{}".format(*self.address, CHANGES)

    @asynccontextmanager
    async def reading(self, *last_event_ids: str) -> AsyncIterator[Reader]:
        """Open a stream, perhaps with ``Last-Event-ID`` fields."""
        fields = [("Last-Event-ID", one) for one in last_event_ids]
        async with self.session.get(self.url, headers=fields) as response:
            assert response.status == 200
            yield Reader(response)

    def grant(self, *lookup_keys: str, at: float = AT) -> None:
        """Note a list that has these and did not have them."""
        self.changes.note(held(ADA, at), held(ADA, at, *lookup_keys))

    async def nobody_reads(self) -> None:
        """Wait until every handler has noticed that its client left."""
        while self.changes.subscribers:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    *outer: Middleware, heartbeat: float = 60.0, size: int = 100, most: int = 1000, **options: Any
) -> AsyncIterator[Served]:
    """Serve on a socket whose buffers are small; what is still open afterwards is cut off after 5 seconds."""
    changes = Changes(size=size, boot="b00t")

    async def ended(_: web.Application) -> None:
        changes.close()

    app = web.Application(middlewares=[*outer, problems])
    stream = ChangeStream(changes, heartbeat=heartbeat, most=most)
    app.add_routes(stream.routes())
    app.on_shutdown.append(ended)
    runner = web.AppRunner(app, **{"shutdown_timeout": 5.0, **options})
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))  # the site closes it
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    address = bound.getsockname()
    await web.SockSite(runner, bound).start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Served(changes, runner, address, session)
        await runner.cleanup()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as found:
        yield found


class TestTheParser:
    """It is the standard's, by the standard's own examples."""

    def test_fields_comments_and_line_ends(self) -> None:
        """Any of three line ends, one space after the colon, data over several lines, and what is to be ignored."""
        source = EventSource()
        for (
            byte
        ) in b"\xef\xbb\xbf: test stream\n\ndata: first event\rid: 1\r\n\ndata:second event\nid\n\ndata:  third\n\n":
            source.feed(bytes([byte]))
        assert source.events == [
            Event("message", "first event", "1"),
            Event("message", "second event", ""),
            Event("message", " third", ""),
        ]
        assert source.comments == 1

    def test_data_and_the_lack_of_it(self) -> None:
        """Two empty data lines are a line end; an event without data is none, yet its id counts."""
        source = EventSource()
        source.feed(b"data\n\ndata\ndata\n\nevent: add\nid: 7\n\nid: \0\nretry: soon\nretry: 9\nother: x\n\ndata: lost")
        assert [event.data for event in source.events] == ["", "\n"]
        assert (source.last_event_id, source.retry) == ("7", 9)


class TestReading:
    async def test_a_stream_opens_with_the_way_back(self, served: Served) -> None:
        """Before any event a client knows when and with what id to come again; no cache and no proxy holds it up."""
        async with served.reading() as reader:
            assert await reader.opened() == "b00t-0"
            assert reader.source.retry == 2000
            assert not reader.source.events
            headers = reader.response.headers
            assert headers["Content-Type"] == "text/event-stream"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Accel-Buffering"] == "no"

    async def test_a_change_says_what_whose_and_when(self, served: Served) -> None:
        """The names are those of every other answer; the account is there when there is one."""
        async with served.reading() as reader:
            await reader.opened()
            served.changes.note(held(BOB, AT, "old"), held(BOB, AT + 0.25))
            served.grant("new")
            revoked, granted = await reader.event(), await reader.event()
        assert (revoked.type, revoked.last_event_id) == ("revoked", "b00t-1")
        assert orjson.loads(revoked.data) == {
            "customer": "cus_bob", "account": "acct_1", "lookup_key": "old", "as_of": "2026-09-21T14:13:20.250Z",
        }  # fmt: skip
        assert (granted.type, granted.last_event_id) == ("granted", "b00t-2")
        assert list(orjson.loads(granted.data)) == ["customer", "lookup_key", "as_of"]

    @pytest.mark.parametrize(
        "lookup_key",
        ['a "quoted" key', "a: b", ":", " ", "data: x", "\\n", "naïve ☃ \U0001f980", "\u2028\u0085\ufeff", "\r\n\n"],
    )
    async def test_every_lookup_key_arrives_as_it_is(self, served: Served, lookup_key: str) -> None:
        """Nothing in a key can end a line or an event, not even a line break that should not be in one."""
        async with served.reading() as reader:
            await reader.opened()
            served.grant(lookup_key)
            served.changes.close()
            assert await reader.rest() == [("granted", lookup_key)]

    async def test_all_readers_see_the_same(self, served: Served) -> None:
        """Each gets every change once, whenever it came relative to the others' reading."""
        async with served.reading() as one, served.reading() as two, served.reading() as three:
            for reader in (one, two, three):
                await reader.opened()
            assert served.changes.subscribers == 3
            served.grant("a", "b")
            assert await one.seen(2) == [("granted", "a"), ("granted", "b")]
            served.grant("c")
            served.changes.close()
            assert await one.rest() == [("granted", "c")]
            assert await two.rest() == await three.rest() == [("granted", key) for key in "abc"]

    async def test_silence_is_broken_by_comments(self) -> None:
        """They are no events, do not touch the id, and come again and again."""
        async with serving(heartbeat=OFTEN) as served, served.reading() as reader:
            while reader.source.comments < 3:
                await reader.more()
            assert not reader.source.events
            assert reader.source.last_event_id == "b00t-0"
            served.grant("a")
            assert await reader.seen() == [("granted", "a")]

    async def test_query_parameters_are_refused(self, served: Served) -> None:
        """A misspelt wish is not taken for none."""
        async with served.session.get(f"{served.url}?customer=cus_1") as response:
            assert response.status == 400
            assert (await response.json(content_type=None))["code"] == "unknown_parameter"

    async def test_head_has_an_end(self, served: Served) -> None:
        """The headers are GET's; nobody is left waiting for a body that never comes."""
        async with served.session.head(served.url) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream"
        assert served.changes.subscribers == 0


class TestResuming:
    async def test_a_client_goes_on_where_it_was(self, served: Served) -> None:
        """What came between its last event and its return comes first, then what happens; nothing twice."""
        served.grant("a")
        async with served.reading() as reader:
            came = await reader.opened()
        served.grant("b", "c")
        async with served.reading(came) as reader:
            first = await reader.event()
        served.grant("d")
        async with served.reading(first.last_event_id) as reader:
            assert await reader.seen(2) == [("granted", "c"), ("granted", "d")]
            served.grant("e")
            assert await reader.seen() == [("granted", "e")]

    async def test_a_long_absence_is_made_up_for_in_portions(self) -> None:
        """However much there is, it comes whole and in order, and others are served meanwhile."""
        async with serving(size=1000) as served, served.reading("b00t-0") as reader, served.reading() as other:
            await other.opened()
            keys = [f"key-{number:04}" for number in range(1000)]
            served.grant(*keys)
            assert await reader.seen(1000) == [("granted", key) for key in keys]
            assert await other.seen(1000) == [("granted", key) for key in keys]

    @pytest.mark.parametrize(
        "strange",
        [["b00t-0"], ["b00t-9"], ["gone-4"], [""], ["?"], ["9" * 8000], ["b00t-\u00fc"], ["b00t-3", "b00t-3"]],
        ids=["old", "future", "other run", "empty", "malformed", "long", "unicode", "two"],
    )
    async def test_what_cannot_be_resumed_begins_with_a_reset(self, strange: list[str]) -> None:
        """The client is told to list again, then gets what happens from now on; and its id is good from then on."""
        async with serving(size=2) as served:
            served.grant("a", "b", "c")
            async with served.reading(*strange) as reader:
                reset = await reader.event()
                assert reset == Event("reset", '{"reason":"not_resumable"}', "b00t-3")
                assert reader.source.retry == 2000
                served.grant("d")
                assert await reader.seen() == [("granted", "d")]

    @pytest.mark.parametrize(
        ("last_event_id", "start"),
        [
            ("b00t-1", b"retry: 2000\nid: b00t-1\n\nevent: granted\nid: b00t-2\ndata: {"),
            ("gone-4", b'retry: 2000\n\nevent: reset\nid: b00t-2\ndata: {"reason":"not_resumable"}\n\n'),
        ],
    )
    async def test_no_id_comes_before_what_it_stands_for(
        self, served: Served, last_event_id: str, start: bytes
    ) -> None:
        """Else a connection that breaks in between would resume as if nothing had been missed."""
        served.grant("a", "b")
        served.changes.close()
        async with served.reading(last_event_id) as reader:
            assert (await reader.response.read()).startswith(start)

    async def test_a_reader_that_falls_behind_is_reset(self) -> None:
        """More changes at once than the ring holds: what is left would be a half-truth, so it is not sent."""
        async with serving(size=2) as served, served.reading() as reader:
            await reader.opened()
            served.grant("a", "b", "c")
            assert await reader.event() == Event("reset", '{"reason":"fell_behind"}', "b00t-3")
            served.grant("d")
            assert await reader.seen() == [("granted", "d")]

    async def test_a_slow_reader_holds_up_nobody(self) -> None:
        """It is sent no more than the buffers take; the others get all; it is reset once it reads again."""
        async with serving(size=4) as served, served.reading() as fast:
            await fast.opened()
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, served.address)
                await loop.sock_sendall(slow, b"GET /v1/changes HTTP/1.0\r\n\r\n")  # 1.0: the body comes unchunked
                while served.changes.subscribers < 2:
                    await asyncio.sleep(0.001)
                keys = [f"{number:04}" + "x" * 4000 for number in range(200)]
                for key in keys:
                    served.grant(key)
                    assert await fast.seen() == [("granted", key)]
                served.changes.close()
                sent = b""
                while received := await loop.sock_recv(slow, 65536):
                    sent += received
        source = EventSource()
        source.feed(sent.partition(b"\r\n\r\n")[2])
        *granted, reset = source.events
        assert [orjson.loads(event.data)["lookup_key"] for event in granted] == keys[: len(granted)]
        assert reset == Event("reset", '{"reason":"fell_behind"}', "b00t-200")


class TestEnds:
    async def test_a_client_that_leaves_is_no_news(self, caplog: pytest.LogCaptureFixture) -> None:
        """Within a heartbeat it is noticed and counted no longer; nothing is logged."""
        async with serving(heartbeat=OFTEN) as served:
            for _ in range(5):
                async with served.reading() as reader:
                    await reader.opened()
            await served.nobody_reads()
        assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")]

    async def test_a_client_that_leaves_without_a_word(self, caplog: pytest.LogCaptureFixture) -> None:
        """A connection that is reset, before or while the answer begins, is none either."""
        async with serving(heartbeat=OFTEN) as served:
            for _ in range(20):
                _, writer = await asyncio.open_connection(*served.address)
                writer.write(b"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await asyncio.sleep(0)
                writer.transport.abort()
            await asyncio.sleep(OFTEN)
            await served.nobody_reads()
        assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")]

    async def test_a_shutdown_is_the_end_of_every_stream(self, served: Served) -> None:
        """What was noted before is sent, the end is a regular one, and the server need not wait for its grace."""
        async with served.reading() as one, served.reading() as two:
            await one.opened()
            await two.opened()
            served.grant("a")
            async with asyncio.timeout(2):
                await served.runner.cleanup()
            assert await one.rest() == await two.rest() == [("granted", "a")]
        assert served.changes.subscribers == 0

    async def test_a_client_that_comes_during_the_shutdown_is_sent_away_kindly(self, served: Served) -> None:
        """It gets what it missed, an id and the end: an ``EventSource`` then comes back, to whoever is there."""
        served.grant("a")
        served.changes.close()
        async with served.reading("b00t-0") as reader:
            assert await reader.rest() == [("granted", "a")]
            assert reader.source.last_event_id == "b00t-1"

    async def test_a_cancelled_stream_is_cancelled(self) -> None:
        """Whoever cancels the handler sees it end so; it is not taken for a client that left."""
        ends: list[BaseException] = []

        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except BaseException as end:
                ends.append(end)
                raise

        async with serving(watch, handler_cancellation=True) as served:
            async with served.reading() as reader:
                await reader.opened()
            await served.nobody_reads()
        assert [type(end) for end in ends] == [asyncio.CancelledError]


async def test_readers_are_bounded() -> None:
    """One too many is told so, and is let in once another has left."""
    async with serving(most=2, heartbeat=0.05) as served:
        url = "http://{}:{}/v1/changes".format(*served.address)
        first, _ = [await served.session.get(url) for _ in range(2)]
        async with served.session.get(url) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert (await refused.json(content_type=None))["code"] == "too_many_subscribers"
        first.close()
        async with asyncio.timeout(15):
            while served.changes.subscribers == 2:
                await asyncio.sleep(0.01)
        async with served.session.get(url) as another:
            assert another.status == 200
