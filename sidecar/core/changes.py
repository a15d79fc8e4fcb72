"""What came and went: the differences between two lists of one customer, numbered, in a bounded ring.

Readers keep only a cursor, the number of the last change that they have seen; nothing is kept for any of them. One
that the ring has left behind is told so, and has to list again.
"""

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, NamedTuple

from sidecar.model import Customer, Snapshot

NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
"""A number as ``Changes.id_of`` writes it; a billion changes a second take thirty years to need a digit more."""

MOST: Final = 100
"""Changes that one reading returns: a fraction of a millisecond's work, then others may have the event loop."""


class Kind(StrEnum):
    """What happened to a customer's lookup key."""

    GRANTED = "granted"
    REVOKED = "revoked"


class Change(NamedTuple):
    """A lookup key that came or went; ``as_of`` is the moment, in Unix seconds, of the list that showed it.

    ``number`` grows by one from change to change, whatever their customers; ``as_of`` need not grow with it.
    """

    number: int
    kind: Kind
    customer: Customer
    lookup_key: str
    as_of: float


class Reading(NamedTuple):
    """What a reader gets: the next changes, and the number to go on from.

    When some were ``missed`` there are no changes, and the reader goes on from now: listing again shows it the rest.
    """

    changes: list[Change]
    cursor: int
    missed: bool


class Changes:
    """The last ``size`` changes, numbered from 1; ``last`` is the number of the last one, 0 before the first.

    A change takes some 360 bytes by tracemalloc, where its customer is remembered nowhere else.

    ``boot`` names this run of the process, in letters and digits: the ids of another run mean nothing in this one.
    """

    def __init__(self, *, size: int = 10_000, boot: str) -> None:
        self.counts = dict.fromkeys(Kind, 0)
        self.subscribers = 0
        self.closed = False
        self.last = 0
        self._boot = boot
        self._ring: deque[Change] = deque(maxlen=size)
        self._more = asyncio.Event()

    def note(self, old: Snapshot | None, new: Snapshot) -> None:
        """Add what differs between a customer's list and the one that takes its place: first what went, by name.

        Without an ``old`` one there is nothing to compare with. An unknown customer's list is empty. Two features
        with one lookup key are one: it went when the last of them did.
        """
        if old is None or old.plan is new.plan or old.plan == new.plan:
            return
        before, now = old.plan.lookup_keys, new.plan.lookup_keys
        for kind, lookup_keys in ((Kind.REVOKED, before - now), (Kind.GRANTED, now - before)):
            for lookup_key in sorted(lookup_keys):
                self.last += 1
                self._ring.append(Change(self.last, kind, new.customer, lookup_key, new.taken_at))
            self.counts[kind] += len(lookup_keys)
        self._wake()

    def id_of(self, number: int) -> str:
        """Return a change's number as an id that also names this run."""
        return f"{self._boot}-{number}"

    def last_id(self) -> str:
        """Return the id of the last change, or the one that comes before all."""
        return self.id_of(self.last)

    def after(self, last_event_id: str | None) -> int | None:
        """Return the number to go on from for a reader that saw ``last_event_id`` last; now, if it saw none.

        None says that what came next is not at hand: the id is another run's, malformed, too old, or yet to come.
        """
        if last_event_id is None:
            return self.last
        boot, _, number = last_event_id.rpartition("-")
        if boot != self._boot or not NUMBER.fullmatch(number) or not self._goes_on_from(int(number)):
            return None
        return int(number)

    def since(self, number: int, *, most: int = MOST) -> Reading:
        """Return up to ``most`` changes that came after ``number``, or that some of them are no longer at hand."""
        if not self._goes_on_from(number):
            return Reading([], self.last, missed=True)
        start = number - self.last + len(self._ring)
        # By place: what is asked for is at an end of the ring, as a rule, and a deque is fast there.
        changes = [self._ring[place] for place in range(start, min(start + most, len(self._ring)))]
        return Reading(changes, number + len(changes), missed=False)

    async def wait(self, number: int) -> None:
        """Wait for a change after ``number``, or until the ring is closed."""
        while self.last <= number and not self.closed:
            await self._more.wait()

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """Count a reader for as long as it reads."""
        self.subscribers += 1
        try:
            yield
        finally:
            self.subscribers -= 1

    def close(self) -> None:
        """Let nobody wait any more: the process is shutting down. What is in the ring can still be read."""
        self.closed = True
        self._wake()

    def _goes_on_from(self, number: int) -> bool:
        return self.last - len(self._ring) <= number <= self.last

    def _wake(self) -> None:
        self._more.set()  # wakes all who wait now, although it is
        self._more.clear()  # taken back at once for those who come later
