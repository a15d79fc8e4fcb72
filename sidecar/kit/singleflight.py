"""Many askers, one piece of work.

While work for a key is under way, whoever asks for the same key gets the same task. Awaiting it through
``asyncio.shield`` lets an asker leave without taking the others along.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from sidecar.kit.tasks import Tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """At most one task per key at a time."""

    def __init__(self, work: Callable[[K], Coroutine[Any, Any, V]], tasks: Tasks) -> None:
        self._work = work
        self._tasks = tasks
        self._flying: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def __contains__(self, key: K) -> bool:
        flight = self._flying.get(key)
        return flight is not None and not flight.done()

    def join(self, key: K) -> asyncio.Task[V]:
        """Return the task under way for ``key``, starting it when there is none. Never suspends."""
        flight = self._flying.get(key)
        if flight is None or flight.done():  # landed, but its callback has not run yet
            flight = self._tasks.start(self._work(key), name=f"flight {key}")
            self._flying[key] = flight
            flight.add_done_callback(lambda landed: self._clear(key, landed))
        return flight

    def start(self, key: K) -> None:
        """Start work for ``key`` unless it is under way; for those who do not wait for it."""
        _ = self.join(key)

    def _clear(self, key: K, landed: asyncio.Task[V]) -> None:
        if self._flying.get(key) is landed:
            del self._flying[key]
