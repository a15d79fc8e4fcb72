"""The protocol of every connection: answers what has a shortcut, and passes all else on to aiohttp's.

aiohttp's protocol is made when there is something for it, and keeps what it was given: the rest of a head, a body. While
it has nothing under way, requests are looked at here again; so one question that memory cannot answer does not make
all that follow it slow.

How slow a connection may be, and how long idle, is looked after here for both. aiohttp bounds neither the time that a
head takes nor that of an answer nobody reads. One timer serves: it is set again when it fires, when a head came in
pieces and when an answer had to wait, not once in a request that is as it should be.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from sidecar.api.connections import HEAD_TOO_SLOW, TOO_MANY, Handler, Patience
from sidecar.api.shortcuts import Shortcuts
from sidecar.kit.door import Door
from sidecar.wire import Follower

log = logging.getLogger(__name__)


class Front(asyncio.Protocol):
    """One connection. ``handler`` makes aiohttp's protocol."""

    __slots__ = (
        "_door", "_handler", "_head_began", "_loop", "_make", "_moved_at", "_passed", "_patience", "_paused", "_shortcuts",
        "_since", "_timer", "_unsent", "_was_asked", "_wire",
    )  # fmt: skip

    def __init__(
        self,
        handler: Callable[[], Handler],
        shortcuts: Shortcuts,
        door: Door,
        patience: Patience,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._make = handler
        self._shortcuts = shortcuts
        self._door = door
        self._patience = patience
        self._loop = loop
        self._handler: Handler | None = None
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._was_asked = False
        self._head_began: float | None = None
        self._passed = Follower()
        self._paused = False
        self._unsent = 0
        self._moved_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._wire = wire = cast("asyncio.Transport", transport)
        if not self._door.admit(self):
            wire.write(TOO_MANY)
            wire.close()
            self._wire = None  # whatever comes is not read
            return
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._patience.head, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End; nothing of it stays."""
        if self._timer is not None:
            self._timer.cancel()
        self._wire = None
        self._door.left(self)
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once; pass on what cannot, and all that comes after it."""
        wire, handler = self._wire, self._handler
        if wire is None:
            return
        if not self._paused and (handler is None or (handler.is_idle and self._passed.is_between)):
            done = len(data)
            try:
                answer = self._shortcuts.answer(data)
                if answer is None:
                    answer, done = self._shortcuts.answers(data)
            except Exception:  # a defect of ours: aiohttp's handlers may still answer, and turn theirs into a 500
                log.exception("a shortcut failed, so the request takes the long way")
                answer, done = b"", 0
            if done:
                wire.write(answer)
                self._since = self._loop.time()
                self._was_asked = True
                if done == len(data):
                    return
                data = data[done:]
        self._pass_on(wire, data)

    def eof_received(self) -> None:
        """Close, once all is sent; nothing is asked any more."""

    def pause_writing(self) -> None:
        """Begin to watch whether the peer reads."""
        self._paused = True
        if self._handler is not None:
            self._handler.pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Note that it does."""
        self._paused = False
        if self._handler is not None:
            self._handler.resume_writing()
        self._unsent = 0

    def idle_since(self) -> float | None:
        """Return when the last answer, or before the first the connection, began to be all there is; loop time."""
        if self._wire is None or self._wire.get_write_buffer_size() or not self._awaits_head():
            return None
        return self._began()

    def leave(self, why: str) -> None:
        """Close at once, without regard for what was not sent; who sent half a head is told what was wrong."""
        if self._wire is None:
            return
        if why == "slow_head" and self._head_began is not None:
            self._wire.write(HEAD_TOO_SLOW)
            self._wire.close()
        else:
            self._wire.abort()

    def finish(self) -> None:
        """Close when what is under way is done."""
        if self._handler is not None:
            self._handler.close()
        elif self._wire is not None:
            self._wire.close()

    def _pass_on(self, wire: asyncio.Transport, data: bytes) -> None:
        """Give ``data`` to aiohttp's protocol, and note when a head has begun that is not there as a whole."""
        if self._handler is None:
            self._handler = self._make()
            self._handler.connection_made(wire)
            if self._paused:
                self._handler.pause_writing()
        self._passed.follow(data)
        self._handler.data_received(data)
        if self._awaits_head():
            if self._head_began is None:
                self._head_began = self._loop.time() if self._was_asked else self._since
                self._look()
        else:
            self._was_asked = True
            self._head_began = None

    def _began(self) -> float:
        handler = self._handler
        return self._since if handler is None else max(self._since, handler.idle_since)

    def _awaits_head(self) -> bool:
        return self._handler is None or self._handler.is_idle

    def _look(self) -> None:
        """Close the connection if it is overdue, else look again when it may be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is None:
            return
        now = self._loop.time()
        why, due = self._due(self._wire, now)
        if now < due:
            soon = now + self._patience.stalled / 3
            self._timer = self._loop.call_at(min(due, soon) if why == "stalled" else due, self._look)
            return
        self._timer = self._loop.call_later(self._patience.stalled, self._look)  # even a farewell may not be read
        self._door.show_out(self, why)

    def _due(self, wire: asyncio.Transport, now: float) -> tuple[str, float]:
        """Return what this connection could be closed for next, and when at the earliest."""
        unsent, patience = wire.get_write_buffer_size(), self._patience
        if not self._unsent or unsent < self._unsent:
            self._moved_at = now
        self._unsent = unsent
        if unsent or not self._awaits_head():  # in a request: look again, for little that is unread is not announced
            return "stalled", self._moved_at + patience.stalled
        if self._head_began is not None:
            return "slow_head", self._head_began + patience.head
        if not self._was_asked:
            return "slow_head", self._since + patience.head
        return "idle", self._began() + patience.idle
