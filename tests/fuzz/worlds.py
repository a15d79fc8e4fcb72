"""Two sidecars that hear the same bytes: one whose connections try their shortcuts first, one of aiohttp's alone.

Nothing is sent anywhere: a connection's other side is a list of bytes. Both have a heart of their own, alike in all
they remember, a Stripe behind it, and one clock.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from sidecar.api.batches import Batches
from sidecar.api.changes import ChangeStream
from sidecar.api.checks import Checks
from sidecar.api.connections import Handler, Patience
from sidecar.api.front import Front
from sidecar.api.guards import Gate, head_limit
from sidecar.api.problems import problems
from sidecar.api.request_ids import identified
from sidecar.api.shortcuts import Shortcuts
from sidecar.api.stripe import Stripe
from sidecar.core.heart import Heart
from sidecar.kit.door import Door
from sidecar.listeners import application
from sidecar.metrics import Requests
from sidecar.model import Customer
from sidecar.parts import shortcuts_of
from sidecar.rotation import Rotation
from tests.api.wires import Wire
from tests.core.fetching import House, held, unknown
from tests.fakes import FakeClock

HOSTS = ("localhost", "127.0.0.1", "[::1]")
TOKEN = "s3cret"
FOR_EVER = Patience(head=1e9, idle=1e9, stalled=1e9)

FLIGHT = 0.02
"""Seconds that Stripe takes, so that what comes together is answered before anything is learnt."""

REMEMBERED: dict[str, float] = {
    "cus_1": 12.3456,
    "cus_new": 0.0,
    "cus_many": 89.9995,
    "cus_due": 280.0,
    "cus_stale": 1000.0,
    "cus_expired": 100_000.0,
    "cus_dirty": 10.0,
    "cus_unknown": 10.0,
    "cus_gone": 100.0,
}
"""Customers, and how many seconds ago each was read."""

speaker: ContextVar[list[str]] = ContextVar("speaker")
"""Where to note what is logged by the world that is spoken to."""


class Noting(Handler):
    """aiohttp's protocol, which says what it was given."""

    __slots__ = ("_note",)

    def __init__(self, note: Callable[[bytes], None], server: web.Server, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop)
        self._note = note

    def data_received(self, data: bytes) -> None:
        self._note(data)
        super().data_received(data)


class World:
    """One sidecar. ``is_fast`` when it has its shortcuts."""

    def __init__(self, clock: FakeClock, *, is_fast: bool, token: str | None = None) -> None:
        self.clock = clock
        self.is_fast = is_fast
        self.token = self._first_token = token
        self.said: list[str] = []
        self.passed = 0
        self.is_changed = False
        self.shortcuts = Shortcuts.none()
        self.requests = Requests()
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(HOSTS, None if token is None else lambda: self.token or "")

    async def open(self) -> None:
        """Make all parts, as ``app.assembled`` does."""
        heart = self._new_heart()
        self._checks, self._batches, self._stripe = Checks(heart), Batches(heart.checker), Stripe(heart.checker, CLIENT)
        self._stream = ChangeStream(heart.changes)
        surfaces = (self._checks, self._batches, self._stripe, self._stream)
        routes = [route for surface in surfaces for route in surface.routes()]
        passes = [identified, self.requests.middleware, problems, head_limit(), self._gate.guard]
        self._runner = web.AppRunner(application(routes, passes))
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = self._runner.server
        self._began(heart)

    async def renew(self) -> None:
        """Put another heart into it, which remembers what the first one did; the application stays, as it takes time."""
        await self.house.close()
        heart, self.token = self._new_heart(), self._first_token
        self._checks.__init__(heart)  # type: ignore[misc]
        self._batches.__init__(heart.checker)  # type: ignore[misc]
        self._stripe.__init__(heart.checker, CLIENT)  # type: ignore[misc]
        self._stream.__init__(heart.changes)  # type: ignore[misc]
        self._began(heart)

    async def close(self) -> None:
        """End it, with all that is under way."""
        await self._runner.cleanup()
        await self.house.close()

    def connected(self) -> Wire:
        """Return a new connection, by its other side."""
        protocol: asyncio.Protocol
        if self.is_fast:
            protocol = Front(self._handler, self.shortcuts, Door(10), FOR_EVER, self._loop)
        else:
            protocol = Handler(self._server, loop=self._loop)
        wire = Wire(protocol, self._loop)
        self._context = copy_context()
        self._context.run(speaker.set, self.said)
        self._context.run(protocol.connection_made, wire)
        return wire

    def tell(self, do: Callable[..., None], *args: object) -> None:
        """Do something to the connection that was made last; what is logged of it is noted."""
        self._context.run(do, *args)

    def happen(self, event: str) -> None:
        """Let one of ``cases.EVENTS`` happen: ``cus_1`` has changed, or what vouches for all lists, or the token."""
        match event:
            case "news":
                self.house.cache.mark(Customer("cus_1"), self.clock.now)
            case "list":
                self.house.remember(0.5, "b", customer=Customer("cus_1"))
            case "feed":
                self.house.watermarks.begin(None, self.clock.now - 50.0)
            case "watermark":
                self.house.vouch(lag=1.25)
            case _:
                self.token, self.is_changed = None if self.token is None else "changed", True
                self.shortcuts.distrust()

    def forget(self) -> None:
        """Forget what requests leave behind that is no list."""
        self._stripe._holders.clear()
        self.house.checker.accounts.clear()
        self.said.clear()

    @property
    def numbers(self) -> tuple[object, ...]:
        """What metrics would say, and what Stripe was asked."""
        checker, refresher = self.house.checker, self.house.refresher
        return (
            self.requests.counts,
            {key: count for key, count in checker.decisions.items() if count},
            list(checker.ages.counts),
            round(checker.ages.sum, 6),
            list(checker.durations.counts),
            dict(checker.policy_answers),
            {key: count for key, count in refresher.outcomes.items() if count},
            refresher.deferred,
            self.house.upstream.asked,
            sorted(checker.accounts),
        )

    def _handler(self) -> Handler:
        return Noting(self._note_passed, self._server, loop=self._loop)

    def _note_passed(self, data: bytes) -> None:
        self.passed += len(data)

    def _new_heart(self) -> Heart:
        self.house = House(self.clock)
        self.house.upstream.takes = FLIGHT
        return self.house.heart

    def _began(self, heart: Heart) -> None:
        self._remember()
        if self.is_fast:
            count = self.requests.count
            surfaces = (self._checks, self._batches, self._stripe)
            found = [part for surface in surfaces for part in surface.shortcuts(count)]
            self.shortcuts = shortcuts_of(found, self._gate, heart, Rotation([]), self.clock)
        self.is_changed = False
        heart.cache.then.append(self._note_change)
        heart.watermarks.then.append(self._note_change)

    def _note_change(self) -> None:
        self.is_changed = True

    def _remember(self) -> None:
        now, cache = self.clock.now, self.house.cache
        for name, age in REMEMBERED.items():
            keys = [f"feature-{place}" for place in range(12)] if name == "cus_many" else ["a", "b.c~d_e-f", "."]
            customer = Customer(name)
            is_unknown = name in ("cus_unknown", "cus_gone")
            cache.put(unknown(customer, now - age) if is_unknown else held(customer, now - age, *keys))
        cache.put(held(Customer("cus_1", "acct_1"), now - 5, "a"))
        cache.mark(Customer("cus_dirty"), now)


async def relay(path: str, query: str, account: str | None, **_: object) -> SimpleNamespace:
    """Answer for Stripe with what it was asked."""
    return SimpleNamespace(
        status=200, headers={"Content-Type": "text/plain"}, body=f"{account} {path}?{query}".encode()
    )


CLIENT: Any = SimpleNamespace(livemode=False, version="2026-10-28.dahlia", relay=relay)


class Listener(logging.Handler):
    """Notes what is logged, in the list of the world that it is about."""

    def emit(self, record: logging.LogRecord) -> None:
        said = speaker.get(None)
        if said is not None:
            said.append(f"{record.name} {record.levelname} {record.getMessage()}")
