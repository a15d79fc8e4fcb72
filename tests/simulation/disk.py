"""A disk that outlives the processes: the product's store on a database that a kill leaves as it was."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

from sidecar.errors import StoreError
from sidecar.stores.codec import Checksum, Codec
from sidecar.stores.database import Database
from sidecar.stores.sqlite import Sqlite
from tests.simulation.timing import Time

T = TypeVar("T")


class File(Database):
    """The file: SQLite's tables, but in memory, and there for every process of a run."""

    def __init__(self) -> None:
        super().__init__(Path("disk"), Codec(livemode=False, seal=Checksum()), max_bytes=1 << 30)
        self._tables = sqlite3.connect(":memory:", isolation_level=None)

    def _connect(self) -> None:
        self._connection = self._tables

    def _see_whether_it_is_there(self) -> None:
        """It is."""

    def close(self) -> None:
        """Leave it for the next process."""
        self._connection = None

    def destroy(self) -> None:
        """Give its memory back."""
        self._tables.close()


class Disk(Sqlite):
    """One process's store. It takes its time, and with a probability of ``trouble`` finds no room."""

    def __init__(self, file: File, time: Time, rng: Random, trouble: float) -> None:
        super().__init__(file, clock=time)
        self._rng = rng
        self._trouble = trouble
        self._turn = asyncio.Lock()

    async def _on_disk(self, work: Callable[..., T], *values: object) -> T:
        async with self._turn:
            slow = self._trouble and work == self.database.reopen
            await asyncio.sleep(self._rng.choice((0.0, 0.5, 2.0) if slow else (0.0, 0.001, 0.05)))
            fails = self._rng.random() < self._trouble
            if fails and self._rng.random() < 0.7:
                raise StoreError("full", "there is no room")
            found = work(*values)
            if fails:
                raise StoreError("too_slow", "it was done in the end, but nobody waited for it")
            await asyncio.sleep(self._rng.choice((0.0, 0.001, 0.05)))  # done, and nobody knows it yet
            return found

    async def kill(self) -> None:
        """End as the process does when it is killed: what was told and not written is lost."""
        await self._tasks.close()
        self.database.close()
