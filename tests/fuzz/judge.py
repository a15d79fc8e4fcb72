"""Lets two worlds hear the same, and tells whether they answer the same.

Answers are the same when status, fields and body are, in the same order, and the connection is closed or not at the same
piece. Not compared are ``Date``, the order of fields, and how JSON is written.

One thing is better with shortcuts: when aiohttp reads what is not HTTP it drops the requests that it read in the same
piece. So what had shortcuts is a piece of its own for aiohttp alone, as it well might be.
"""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import orjson

from tests.api.wires import Wire
from tests.fakes import FakeClock
from tests.fuzz.cases import Case, case
from tests.fuzz.worlds import FLIGHT, TOKEN, Listener, World
from tests.kit.virtual import play

BEGIN = re.compile(rb"(?=HTTP/\d\.\d \d{3} )")
DATE = re.compile(rb"\r\nDate: [^\r]*")

Answer = tuple[bytes, list[bytes], Any]


def read(sent: bytes) -> list[Answer]:
    """Return the answers in ``sent``, each as its first line, its fields in order of the alphabet, and its body."""
    found: list[Answer] = []
    for part in BEGIN.split(DATE.sub(b"", sent)):
        head, _, body = part.partition(b"\r\n\r\n")
        first, *fields = head.split(b"\r\n")
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            found.append((first, sorted(fields), body))
            continue
        fields.remove(b"Content-Length: %d" % len(body))  # which differs, as 2.0 and 2.000 do
        found.append((first, sorted(fields), content))
    return found


class Different(AssertionError):
    """The two worlds did not do the same."""


YOUNG = 100.0
"""Seconds for which what was remembered at first is young enough for most shortcuts."""


class Judge:
    """Two worlds, and what they were told last."""

    def __init__(self, clock: FakeClock, token: str | None = None) -> None:
        self.clock = clock
        self.token = token
        self.shortcuts = 0
        self.answers = 0
        self.worlds: tuple[World, ...] = ()
        self._opened_at = 0.0

    async def open(self) -> None:
        """Make both worlds."""
        self.worlds = tuple(World(self.clock, is_fast=is_fast, token=self.token) for is_fast in (True, False))
        for world in self.worlds:
            await world.open()
        self._opened_at = self.clock.now

    async def renew(self) -> None:
        """Let both worlds remember what they did at first."""
        for world in self.worlds:
            await world.renew()
        self._opened_at = self.clock.now

    async def close(self) -> None:
        """End both worlds."""
        for world in self.worlds:
            await world.close()

    async def hear(self, said: Case) -> list[Answer]:
        """Let both worlds hear it; return what they answered.

        :raises Different: when that is not the same.
        """
        if self.clock.now > self._opened_at + YOUNG or any(world.is_changed for world in self.worlds):
            await self.renew()
        wires = [world.connected() for world in self.worlds]
        for before, piece in said.pieces:
            self._happen(before)
            for part in self._parts(piece, wires[0]):
                self.worlds[1].tell(wires[1].hear, part)
                await settled()
            await self._landed()
            alike("closed at a piece", *(wire.is_closing() for wire in wires))
            alike("answered at a piece", *(wire.sent.count(b"\r\n\r\n") for wire in wires))
        if said.waits:
            await asyncio.sleep(said.waits)
            alike("closed in the end", *(wire.is_closing() for wire in wires))
        for world, wire in zip(self.worlds, wires, strict=True):
            world.tell(wire.close)
        await self._landed()
        found = [read(bytes(wire.sent)) for wire in wires]
        alike("answers", *found)
        alike("numbers", *(world.numbers for world in self.worlds))
        alike("log", *(world.said for world in self.worlds))
        for world in self.worlds:
            world.forget()
        self.answers += len(found[0])
        return found[0]

    def _happen(self, what: float | str) -> None:
        """Let so many seconds go by, or let something happen in both worlds."""
        if isinstance(what, float):
            self.clock.advance(what)
        else:
            for world in self.worlds:
                world.happen(what)

    async def _landed(self) -> None:
        """Let everything happen that can, flights included."""
        await settled()
        while any(world.house.refresher.in_the_air() for world in self.worlds):
            await asyncio.sleep(FLIGHT)
            await settled()

    def _parts(self, piece: bytes, wire: Wire) -> list[bytes]:
        """Let the world with shortcuts hear ``piece``; return it in the parts that the other is to hear."""
        fast = self.worlds[0]
        waited, fast.passed = sum(map(len, wire.unheard)), 0
        fast.tell(wire.hear, piece)
        if wire.is_closing() or wire.unheard or waited:
            return [piece]
        taken = len(piece) - fast.passed
        self.shortcuts += taken > 0
        return [part for part in (piece[:taken], piece[taken:]) if part]


def alike(what: str, fast: object, slow: object) -> None:
    """See that both are the same.

    :raises Different: saying how they differ.
    """
    if fast != slow:
        raise Different(f"{what}:\n  with shortcuts {fast!r}\n  aiohttp alone  {slow!r}")


async def settled() -> None:
    """Let everything happen that can happen without time passing."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:
        await asyncio.sleep(0)


@contextmanager
def listening() -> Iterator[None]:
    """Note what is logged in the lists of the worlds."""
    listener, logger = Listener(), logging.getLogger()
    loggers = [logging.getLogger(name) for name in ("sidecar", "aiohttp", "asyncio")]
    levels = [logger.level for logger in loggers]
    for each in loggers:
        each.setLevel(logging.INFO)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


PER_SEED = 500
"""Cases that are heard by the same two worlds, one after the other."""


def judge_seed(seed: int, cases: int = PER_SEED) -> tuple[Judge, tuple[Case, Different] | None]:
    """Hear the cases of a seed; return who judged, and the first case that differs."""
    clock, random = FakeClock(1_790_000_000.0 + seed % 1000 / 1000), Random(seed)  # noqa: S311 -- for tests
    judge = Judge(clock, TOKEN if seed % 4 == 3 else None)

    async def story() -> tuple[Case, Different] | None:
        await judge.open()
        for _ in range(cases):
            said = case(random)
            try:
                _ = await judge.hear(said)
            except Different as different:
                return said, different
        await judge.close()
        return None

    with listening():
        return judge, play(clock, story())
