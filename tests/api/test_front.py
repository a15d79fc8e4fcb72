"""The protocol of every connection, without a network and in virtual time; and once over a socket."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from sidecar.api.connections import Handler, Patience
from sidecar.api.front import Front
from sidecar.api.guards import Gate
from sidecar.api.shortcuts import Lasting, Said, Shortcut, Shortcuts
from sidecar.demo import FakeStripe
from sidecar.kit.door import Door
from sidecar.kit.tally import Count, Tally
from sidecar.model import Reason, Source
from sidecar.wire import Heads
from tests.api.wires import HIGH, Wire
from tests.fakes import FakeClock, running
from tests.kit.virtual import play

PATIENCE = Patience(head=10, idle=75, stalled=30)


def ask(path: str, *fields: str, method: str = "GET", version: str = "HTTP/1.1", body: str = "") -> bytes:
    """Return a request; its answer ends in the path."""
    if body:
        fields = (*fields, f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} {version}", "Host: localhost", *fields, "", body]).encode()


PAD = {"Pad": "x" * 1000}
"""Makes an answer so long that a few of them are many."""

FAST, SLOW = ask("/fast/0"), ask("/slow/0")
POST = ask("/post", method="POST", body="hello")


class Place:
    """A server with a shortcut to ``/fast/…``, which its application would answer too, and what its handlers wait for."""

    def __init__(self, clock: FakeClock, most: int = 10) -> None:
        self.clock = clock
        self.door = Door(most)
        self.count = Count()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.loop = asyncio.get_running_loop()
        heads = Heads(lambda _: {"From": "shortcut", **PAD})

        def answer(match: re.Match[str], _: Said) -> Lasting:
            if self.error is not None:
                raise self.error
            return Lasting(heads, clock(), 0.0, -1.0, match[0].split()[1].encode())

        found = [Shortcut("/fast/[0-9]+", self.count, answer)]
        self.shortcuts = Shortcuts(found, Gate(["localhost"]), Tally([]), clock=clock)

    async def open(self) -> None:
        """Begin."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/{kind:fast|slow}/{number}", self._path),
                web.get("/hold", self._hold),
                web.post("/post", self._post),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()

    async def close(self) -> None:
        """End."""
        await self._runner.cleanup()

    async def drained(self) -> None:
        """Have all leave who are done, now or later, as ``Served.drain`` does, and wait until they have."""
        assert self._runner.server is not None
        self.door.shut()
        await self._runner.server.shutdown(None)
        await self.door.emptied()

    def connected(self) -> tuple[Front, Wire]:
        """Return a new connection, from both sides."""
        server = self._runner.server
        assert server is not None
        front = Front(partial(Handler, server, loop=self.loop), self.shortcuts, self.door, PATIENCE, self.loop)
        wire = Wire(front, self.loop)
        front.connection_made(wire)
        return front, wire

    async def _path(self, request: web.Request) -> web.Response:
        return web.Response(text=request.path, headers=PAD)

    async def _hold(self, _: web.Request) -> web.Response:
        await self.go_on.wait()
        return web.Response(text="held")

    async def _post(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())


Story = Callable[[Place], Coroutine[Any, Any, None]]


def told(story: Story) -> None:
    """Run ``story`` in a place of its own, whose time takes no time."""
    clock = FakeClock()

    async def whole() -> None:
        place = Place(clock)
        await place.open()
        await story(place)
        await place.close()

    play(clock, whole())


async def settled() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


ANSWER = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")


def said(wire: Wire) -> list[str]:
    """Return the bodies of the answers, or their status where that is not 200; with ``!`` when by the shortcut."""
    found, at, sent = [], 0, bytes(wire.sent)
    while at < len(sent):
        match = ANSWER.match(sent, at)
        assert match is not None, sent[at:]
        length = re.search(rb"Content-Length: (\d+)", match[2])
        assert length is not None
        at = match.end() + int(length[1])
        body = sent[match.end() : at].decode() if match[1] == b"200" else match[1].decode()
        found.append(body + "!" * (b"From: shortcut" in match[2]))
    return found


def knows_aiohttp(front: Front) -> bool:
    """Tell whether a protocol of aiohttp's was made."""
    return front._handler is not None


# --- which way -----------------------------------------------------------------------------------------------------


def test_what_has_a_shortcut_costs_no_protocol_of_aiohttps() -> None:
    """It is made when there is something for it."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        for _ in range(3):
            wire.hear(FAST)
        assert said(wire) == ["/fast/0!"] * 3
        assert not knows_aiohttp(front)
        assert place.count.n == 3
        wire.hear(SLOW)
        assert knows_aiohttp(front)
        await settled()
        assert said(wire)[3:] == ["/slow/0"]

    told(story)


@pytest.mark.parametrize(
    "slow", [SLOW, POST, ask("/post", method="POST", body="x" * 100_000), ask("/nowhere")], ids=range(4)
)
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_a_connection_comes_back_to_its_shortcuts(slow: bytes, size: int) -> None:
    """After a request that had none, with or without a body, in one piece or in many."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        for number in range(3):
            for place_ in range(0, len(slow), size):
                wire.hear(slow[place_ : place_ + size])
            await settled()
            wire.hear(FAST)
            assert place.count.n == number + 1
            assert said(wire)[-1] == "/fast/0!"
        assert len(said(wire)) == 6
        assert knows_aiohttp(front)

    told(story)


@pytest.mark.parametrize(
    "strange",
    [
        ask("/slow/0", "Connection: Keep-Alive, TE"),
        ask("/slow/0", "Connection: keep-alive", version="HTTP/1.0"),
        ask("/slow/0", "A:\tb"),
        ask("/slow/0", "A: b", "A: b"),
        ask("/slow/0", "A:  b"),
        b"\r\n" + SLOW,
        ask("/post", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
        ask("/slow/0", "A: " + "b" * 5000),
    ],
    ids=range(8),
)
def test_but_never_after_one_that_is_not_simple(strange: bytes) -> None:
    """Where that ends is for aiohttp to say; so all that follows is its own."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        wire.hear(FAST)
        wire.hear(strange)
        await settled()
        for _ in range(3):
            wire.hear(FAST)
            await settled()
        assert said(wire)[2:] == ["/fast/0"] * 3
        assert place.count.n == 1
        assert front._passed.is_lost

    told(story)


def test_in_the_midst_of_a_request_nothing_has_a_shortcut() -> None:
    """Neither of a head, nor of a body, nor of an answer; what looks like a request may be a part of one."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        wire.hear(SLOW[:-2])
        wire.hear(FAST)  # another field, and an empty line
        await settled()
        assert said(wire) == ["400"], "the field has a blank before its colon"
        _, wire = place.connected()
        wire.hear(ask("/post", f"Content-Length: {len(FAST)}", method="POST"))
        await settled()
        wire.hear(FAST)
        await settled()
        assert said(wire) == [FAST.decode()]
        _, wire = place.connected()
        wire.hear(ask("/hold"))
        await settled()
        wire.hear(FAST)
        place.go_on.set()
        await settled()
        assert said(wire) == ["held", "/fast/0"]
        assert place.count.n == 0
        wire.hear(FAST)
        assert place.count.n == 1

    told(story)


def test_a_request_in_the_body_of_another_is_none() -> None:
    """Neither with the head nor behind it."""

    async def story(place: Place) -> None:
        for method in ("GET", "POST"):
            _, wire = place.connected()
            wire.hear(
                ask("/post" if method == "POST" else "/slow/1", f"Content-Length: {len(FAST)}", method=method)
                + FAST
                + FAST
            )
            await settled()
            assert said(wire) == [FAST.decode() if method == "POST" else "/slow/1", "/fast/0"]
        assert place.count.n == 0

    told(story)


@pytest.mark.parametrize("size", [1, 10, 36, 37, 100, 10_000])
def test_answers_come_in_the_order_of_their_requests(size: int) -> None:
    """Whichever way each takes, and however they are cut."""
    kinds = [
        ask(f"/{kind}/{number}") for number, kind in enumerate(["fast", "fast", "slow", "fast", "slow", "slow", "fast"])
    ]
    stream = b"".join([*kinds[:4], POST, *kinds[4:], ask("/hold"), ask("/fast/9")])

    async def story(place: Place) -> None:
        place.go_on.set()
        _, wire = place.connected()
        for at in range(0, len(stream), size):
            wire.hear(stream[at : at + size])
            if at % 3:
                await asyncio.sleep(0)
        await settled()
        found = [body.removesuffix("!") for body in said(wire)]
        assert found == [
            "/fast/0",
            "/fast/1",
            "/slow/2",
            "/fast/3",
            "hello",
            "/slow/4",
            "/slow/5",
            "/fast/6",
            "held",
            "/fast/9",
        ]

    told(story)


def test_thousands_at_once_are_all_answered() -> None:
    """Some by shortcut, until there is much to be read; the others by aiohttp, in the same order."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        wire.hear(b"".join(ask(f"/fast/{number}") for number in range(300)))
        while not wire.sent.endswith(b"/fast/299"):
            await asyncio.sleep(0)
        assert [body.removesuffix("!") for body in said(wire)] == [f"/fast/{number}" for number in range(300)]
        assert 0 < place.count.n < 300

    told(story)


def test_a_shortcut_that_fails_is_logged_and_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    """The request takes the long way."""

    async def story(place: Place) -> None:
        place.error = ValueError("a defect")
        _, wire = place.connected()
        wire.hear(FAST)
        await settled()
        assert said(wire) == ["/fast/0"]
        place.error = None
        wire.hear(FAST)
        assert said(wire)[1:] == ["/fast/0!"]

    told(story)
    (record,) = [record for record in caplog.records if record.name.startswith("sidecar.")]
    assert record.message == "a shortcut failed, so the request takes the long way"
    assert record.exc_info


# --- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [ask("/fast/1", "Connection: close"), ask("/fast/1", version="HTTP/1.0")])
@pytest.mark.parametrize("before", [FAST, SLOW, b""], ids=["fast", "slow", "first"])
def test_who_wants_the_connection_closed_has_it_closed(before: bytes, last: bytes) -> None:
    """By aiohttp, after the answer; what is said after that is not answered."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        wire.hear(before + last)
        wire.hear(FAST)
        await settled()
        assert said(wire)[-1] == "/fast/1"
        assert len(said(wire)) == 1 + bool(before)
        assert wire.is_closing()
        assert len(place.door) == 0

    told(story)


@pytest.mark.parametrize(
    "asked", [None, FAST, SLOW, FAST + SLOW, FAST[:9]], ids=["nothing", "fast", "slow", "both", "half"]
)
def test_when_all_have_to_leave_who_is_idle_leaves_at_once(asked: bytes | None) -> None:
    """With or without a protocol of aiohttp's; and nothing looks after the connection any more."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        if asked is not None:
            wire.hear(asked)
        await settled()
        await place.drained()
        assert wire.is_closing()
        assert not wire.is_aborted
        assert len(place.door) == 0
        assert front._timer is not None
        assert front._timer.cancelled()

    told(story)


def test_when_all_have_to_leave_who_is_being_answered_stays_for_that() -> None:
    """Its connection is closed then."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        wire.hear(ask("/hold"))
        await settled()
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(place.drained())
            await settled()
            assert not wire.is_closing()
            place.go_on.set()
        assert said(wire) == ["held"]
        assert wire.is_closing()

    told(story)


@pytest.mark.parametrize("before", [None, SLOW], ids=["shortcuts only", "aiohttp too"])
def test_when_all_have_to_leave_what_was_answered_is_still_taken(before: bytes | None) -> None:
    """An answer that was written is not lost."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        if before is not None:
            wire.hear(before)
        await settled()
        wire.is_deaf = True
        wire.hear(FAST)
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(place.drained())
            await settled()
            assert len(place.door) == 1
            wire.take()
        assert said(wire)[-1] == "/fast/0!"
        assert len(place.door) == 0

    told(story)


def test_finishing_twice_or_after_the_end_changes_nothing() -> None:
    """Nor does leaving; and nobody looks for it any more."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        wire.abort()
        await settled()
        front.finish()
        front.leave("idle")
        front.data_received(FAST)
        front._look()
        assert said(wire) == []
        assert front.idle_since() is None
        closes = cast("Callable[[], object]", front.eof_received)
        assert not closes(), "or the transport would stay open"

    told(story)


def test_who_is_refused_at_the_door_is_told_so_and_not_heard() -> None:
    """Somebody else is busy in all the places that there are."""

    async def story(place: Place) -> None:
        place.door.most = 1
        _, busy = place.connected()
        busy.hear(ask("/hold"))
        await settled()
        front, wire = place.connected()
        front.data_received(FAST)
        front.pause_writing()
        front.resume_writing()
        await settled()
        assert said(wire) == ["503"]
        assert wire.is_closing()
        assert place.door.shown_out["refused"] == 1
        assert place.count.n == 0
        assert len(place.door) == 1

    told(story)


# --- time ----------------------------------------------------------------------------------------------------------


def shown_out(place: Place) -> dict[str, int]:
    return {why: count for why, count in place.door.shown_out.items() if count}


@pytest.mark.parametrize("kinds", [[FAST], [SLOW], [FAST, SLOW], [SLOW, FAST], [POST, FAST, FAST]])
def test_idle_is_who_asks_nothing_whichever_way_the_answers_took(kinds: list[bytes]) -> None:
    """The time counts from the last answer; then the connection is closed without a word."""

    async def story(place: Place) -> None:
        front, wire = place.connected()
        for request in kinds * 3:
            wire.hear(request)
            await asyncio.sleep(60)
        answers = said(wire)
        assert front.idle_since() == pytest.approx(place.loop.time() - 60, abs=0.01)
        await asyncio.sleep(14.9)
        assert not wire.is_closing()
        await asyncio.sleep(0.2)
        assert wire.is_closing()
        assert shown_out(place) == {"idle": 1}
        assert said(wire) == answers

    told(story)


@pytest.mark.parametrize("before", [b"", FAST, SLOW, FAST + SLOW], ids=["first", "fast", "slow", "both"])
def test_half_a_head_is_waited_for_only_so_long(before: bytes) -> None:
    """From its own first byte on, or from the connection's opening; then it is refused."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        if before:
            wire.hear(before)
            await settled()
            await asyncio.sleep(20)
        wire.hear(FAST[:10])
        await asyncio.sleep(5)
        wire.hear(FAST[10:-1])
        await asyncio.sleep(4.9)
        assert not wire.is_closing()
        await asyncio.sleep(0.2)
        assert said(wire)[-1] == "408"
        assert wire.is_closing()
        assert shown_out(place) == {"slow_head": 1}

    told(story)


def test_a_whole_head_is_no_half_one() -> None:
    """Once it is there, in two pieces, nothing is held against the connection."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        for _ in range(3):
            wire.hear(FAST[:10])
            await asyncio.sleep(5)
            wire.hear(FAST[10:])
            await asyncio.sleep(60)
            wire.hear(FAST)
        assert len(said(wire)) == 6
        assert not shown_out(place)

    told(story)


@pytest.mark.parametrize("is_known", [False, True], ids=["shortcuts only", "aiohttp too"])
@pytest.mark.parametrize("many", [1, 300], ids=["a little", "much"])
def test_who_takes_nothing_is_dropped(many: int, *, is_known: bool) -> None:
    """After a while without any progress, and what was for it is forgotten; progress is all that is asked for."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        if is_known:
            wire.hear(SLOW)
            await settled()
        wire.is_deaf = True
        for _ in range(many):
            wire.hear(FAST)
        for _ in range(10):  # slowly is good enough
            await asyncio.sleep(20)
            del wire.unsent[:10]
            assert not wire.is_closing()
        await asyncio.sleep(PATIENCE.idle + 2 * PATIENCE.stalled)
        assert wire.is_aborted
        assert shown_out(place) == {"stalled": 1}
        assert len(place.door) == 0

    told(story)


@pytest.mark.parametrize("size", [37, 1 << 16])
def test_who_asks_and_takes_nothing_costs_little_memory(size: int) -> None:
    """What is written is bounded, and then nothing more is read; later all is answered, in order, some by shortcut."""

    async def story(place: Place) -> None:
        _, wire = place.connected()
        wire.is_deaf = True
        stream = b"".join(ask(f"/fast/{number}") for number in range(400))
        for at in range(0, len(stream), size):
            wire.hear(stream[at : at + size])
            await asyncio.sleep(0)
        await settled()
        assert wire.is_paused
        assert HIGH < len(wire.unsent) < 3 * HIGH
        wire.take()
        while not wire.sent.endswith(b"/fast/399"):
            await asyncio.sleep(0)
        assert [body.removesuffix("!") for body in said(wire)] == [f"/fast/{number}" for number in range(400)]
        before = place.count.n
        await settled()
        wire.hear(FAST)
        await settled()
        assert place.count.n == before + 1

    told(story)


def test_the_idlest_makes_room() -> None:
    """Who was answered by shortcut as who was by aiohttp; not who has something to take, nor who is being answered."""

    async def story(place: Place) -> None:
        place.door.most = 4
        wires = [place.connected()[1] for _ in range(4)]
        wires[0].hear(ask("/hold"))
        wires[1].is_deaf = True
        wires[1].hear(FAST)
        wires[2].hear(SLOW)
        await asyncio.sleep(1)
        wires[3].hear(FAST)
        await asyncio.sleep(1)
        wires[2].hear(FAST)
        _ = place.connected()
        assert [wire.is_closing() for wire in wires] == [False, False, False, True]
        assert wires[3].is_aborted
        assert shown_out(place) == {"evicted": 1}

    told(story)


# --- sockets -------------------------------------------------------------------------------------------------------


async def test_over_a_unix_socket_too(upstream: str, stripe: FakeStripe, tmp_path: Path) -> None:
    """Fast, slow, fast, on one connection, which is closed when that is asked for."""
    stripe.grant("cus_1", "a")
    path = tmp_path / "s.sock"
    check = ask("/v1/customers/cus_1/entitlements/a")
    async with running(upstream, listen=f"unix:{path}") as sidecar:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(check)  # which memory does not know
        assert b'"source":"upstream"' in await reader.readuntil(b"}")
        writer.write(
            check + check + ask("/nowhere") + check + ask("/v1/customers/cus_1/entitlements/a", "Connection: close")
        )
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"200", b"404", b"200", b"200"]
        writer.close()
        await writer.wait_closed()
        assert sidecar.sidecar.heart.checker.decisions[Reason.ENTITLED, Source.MEMORY] == 4
