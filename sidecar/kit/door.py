"""How many may be inside at once, and who leaves when one more comes: who has been idle longest, never who is busy."""

import asyncio
from typing import Final, Protocol

REASONS: Final = ("refused", "evicted", "slow_head", "idle", "stalled")
"""Why somebody was shown out: full of busy ones, idle longest when full, no request in time, idle for too long, does
not take what it asked for."""


class Guest(Protocol):
    """Who can be inside."""

    def idle_since(self) -> float | None:
        """Return since when nothing was under way, by a clock that all guests share; None while something is."""
        ...

    def finish(self) -> None:
        """Leave when what is under way is done, at once if nothing is."""
        ...

    def leave(self, why: str) -> None:
        """Leave at once: for one of the ``REASONS``, or because all have to."""
        ...


class Door:
    """Counts who is inside, up to ``most``; knows why those left who did not want to (``shown_out``)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.shown_out = dict.fromkeys(REASONS, 0)
        self._inside: set[Guest] = set()
        self._idle: list[tuple[float, Guest]] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._shut = False

    def __len__(self) -> int:
        return len(self._inside)

    def admit(self, guest: Guest) -> bool:
        """Let ``guest`` in, if need be for somebody who is idle; False when nobody is, or the door is shut."""
        if self._shut or (len(self._inside) >= self.most and not self._make_room()):
            self.shown_out["refused"] += 1
            return False
        self._inside.add(guest)
        self._empty.clear()
        return True

    def left(self, guest: Guest) -> None:
        """Note that ``guest`` is gone; to say so twice changes nothing."""
        self._inside.discard(guest)
        if not self._inside:
            self._empty.set()

    def show_out(self, guest: Guest, why: str) -> None:
        """Make ``guest`` leave, for one of the ``REASONS``."""
        self.shown_out[why] += 1
        self.left(guest)
        guest.leave(why)

    def shut(self) -> None:
        """Let nobody in any more, and have all leave who are done, now or later."""
        self._shut = True
        for guest in list(self._inside):
            guest.finish()

    async def emptied(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()

    def clear(self) -> None:
        """Make all leave who are still inside."""
        for guest in list(self._inside):
            self.left(guest)
            guest.leave("shutdown")

    def _make_room(self) -> bool:
        """Show out who has been idle longest.

        One look at all who are inside serves many that come: who turns idle after it was not idle before all others.
        """
        for _ in range(2):
            while self._idle:
                since, guest = self._idle.pop()
                if guest in self._inside and guest.idle_since() == since:
                    self.show_out(guest, "evicted")
                    return True
            seen = ((guest.idle_since(), guest) for guest in self._inside)
            idle = [(since, guest) for since, guest in seen if since is not None]
            self._idle = sorted(idle, key=lambda one: -one[0])
        return False
