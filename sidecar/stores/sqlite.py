"""A file on the local disk, told at once and written a moment later, on a thread of its own.

What was told and is not written yet is answered from here, so a list that was thrown out of memory never comes back
older than it was. When the file is of no use (full, gone, damaged) it is forgotten what was told, answers go on from
memory, and every few seconds the file is tried again; what it then has from before may have missed news and is dirty.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

from sidecar.errors import STORE_TROUBLES, StoreError, Unreadable
from sidecar.kit.clock import Clock
from sidecar.kit.tasks import Tasks
from sidecar.kit.worker import Worker
from sidecar.model import Customer, Snapshot, Spans, advanced, begun
from sidecar.stores.codec import Row
from sidecar.stores.database import FUTURE, HOUR, Database, Mark
from sidecar.stores.told import Told

T = TypeVar("T")

log = logging.getLogger(__name__)

READS = ("found", "missing", "unreadable")

BEHIND = 0.25
"""Seconds for which changes are collected before they are written together, unless somebody waits for that."""

AGAIN = 10.0
"""Seconds after which a store that was lost is tried again."""

AT_ONCE = 2000
"""Lists of all that is in memory which are written together: a few megabytes, some tenths of a second."""

PATIENCE = 5.0
"""Seconds for which the disk may keep us waiting: for opening, and for what has to be on it."""


class Sqlite:
    """Keeps lists in a file. Nothing it does waits on the event loop, and nothing it cannot do stops an answer.

    ``trouble`` is why the file is of no use at present; ``everything`` yields all that is in memory, each list as it is
    by then, which a file that comes back is told.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self.everything: Callable[[], Iterable[Snapshot]] = tuple
        self.reads = dict.fromkeys(READS, 0)
        self.losses = dict.fromkeys(STORE_TROUBLES, 0)
        self.written = 0
        self.trouble: StoreError | None = None
        self.since = clock()
        self.database = database
        self._clock = clock
        self._tasks = Tasks()
        self._worker = Worker("store")
        self._is_deaf = False
        self._told, self._being_written = Told(), Told()
        self._batches, self._lost = 0, 0
        self._readers: Counter[Customer] = Counter()
        self._rewritten: dict[Customer, int] = {}
        self._meanwhile: list[Callable[[], None]] = []
        self._spans: dict[str | None, Spans] = {}
        self._wanted: dict[Customer, asyncio.Future[Row | Unreadable | None]] = {}
        self._writing = False
        self._urgent = asyncio.Event()
        self._settled = asyncio.Event()
        self._return: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a list may be found there now."""
        return self.trouble is None

    @property
    def _is_coming_back(self) -> bool:
        """Whether the file is being opened again: what is told is not lost, but by which spans is not known yet."""
        return self.trouble is not None and not self._is_deaf

    @property
    def spans(self) -> Mapping[str | None, Spans]:
        """By what the lists in the file may be vouched for."""
        return self._spans

    @property
    def pending(self) -> int:
        """Return how many changes were told and are not on the disk yet."""
        return len(self._told) + len(self._being_written)

    @property
    def bytes(self) -> int:
        """Return the bytes that the file has in use."""
        return self.database.bytes

    @property
    def max_bytes(self) -> int:
        """Return the bytes beyond which the least recently used go."""
        return self.database.max_bytes

    @property
    def pruned(self) -> int:
        """Return how many customers went for lack of room."""
        return self.database.pruned

    async def open(self) -> None:
        """Open the file; when that cannot be, go on without it and try again now and then."""
        try:
            await self._on_disk(self.database.open, self._clock())
        except StoreError as error:
            self._lose(error)
            if error.is_worthless and self._return is not None:  # it is out of the way at once
                _ = await asyncio.wait([self._return], timeout=PATIENCE)
        else:
            self._spans = dict(self.database.spans)

    async def close(self) -> None:
        """Write what is left, and close the file."""
        await self.flush()
        await self._tasks.close()
        with suppress(StoreError):
            await self._on_disk(self.database.close)
        self._worker.stop()

    async def read(self, customer: Customer) -> Snapshot | None:
        """Return what was told of ``customer`` last, if it is kept."""
        lost, row = self._lost, await self._row_of(customer)
        if isinstance(row, Unreadable):
            self.reads["unreadable"] += 1
            log.warning("what the store kept of a customer cannot be used: it is %s", row)
            return None
        kept = None if row is None or lost != self._lost else row.snapshot  # marks are lost with the store
        found = self._overlaid(customer, kept)
        if found is not None and found.taken_at > self._clock() + FUTURE:
            found = None
        self.reads["missing" if found is None else "found"] += 1
        return found

    async def _row_of(self, customer: Customer) -> Row | Unreadable | None:
        """Return what the file has of ``customer``; read again when that was written anew meanwhile."""
        if customer in self._told.lists or customer in self._being_written.lists:
            return None  # it is known better
        self._readers[customer] += 1
        try:
            while True:
                version = self._rewritten.get(customer)
                row = await asyncio.shield(self._row(customer))
                if version == self._rewritten.get(customer):
                    break
        finally:
            self._readers[customer] -= 1
            if not self._readers[customer]:
                del self._readers[customer]
                self._rewritten.pop(customer, None)
        if isinstance(row, Row) and row.used < self._clock() // HOUR and not self._is_deaf:
            self._told.used.add(customer)
            self._write_soon()
        return row

    def _overlaid(self, customer: Customer, found: Snapshot | None) -> Snapshot | None:
        """Return what was ``found`` in the file as it will be once all that was told is written."""
        for told in (self._being_written, self._told):
            found = told.overlay(customer, found)
        return found

    def write(self, snapshot: Snapshot) -> None:
        """Keep ``snapshot`` in place of what is kept of its customer. Never suspends."""
        if not self._is_deaf:
            self._told.write(snapshot)
            self._write_soon()

    def mark(self, customer: Customer, heard_at: float, spans: Spans) -> None:
        """Keep in mind that there was news of ``customer``, up to which ``spans`` vouched for it. Never suspends."""
        if not self._is_deaf:
            self._told.mark(customer, Mark(heard_at, spans))
            self._write_soon()

    def begin(self, account: str | None, since: float) -> None:
        """Keep in mind that the account's feed reads on from ``since``, having missed what was before."""
        if self._is_coming_back:
            self._meanwhile.append(partial(self.begin, account, since))
            return
        spans = self._spans.get(account, ())
        *older, last = begun(spans, max(since, spans[-1].since) if spans else since)  # not before a gap of ours
        # Up to when is still to be told, by Stripe's time: the clock that says since when may be ahead of it.
        self._vouch(account, (*older, last._replace(until=spans[-1].until if spans else 0.0)))

    def advance(self, account: str | None, until: float) -> None:
        """Keep in mind that the account's feed has told of every change up to ``until``."""
        if self._is_coming_back:
            self._meanwhile.append(partial(self.advance, account, until))
            return
        spans = self._spans.get(account) or begun((), self._clock())  # the file missed the beginning
        self._vouch(account, advanced(spans, until))

    def _vouch(self, account: str | None, spans: Spans) -> None:
        if not self._is_deaf:
            self._spans[account] = self._told.spans[account] = spans
            self._write_soon()

    async def flush(self) -> None:
        """Return once all that was told so far is on the disk, or the store is lost."""
        told = [told for told in (self._being_written, self._told) if len(told)]
        while any(one is self._being_written or one is self._told for one in told):
            self._urgent.set()
            self._settled.clear()
            await self._settled.wait()

    def _row(self, customer: Customer) -> asyncio.Future[Row | Unreadable | None]:
        """Return a row to come; those that are asked for in one turn of the loop are read together."""
        row = self._wanted.get(customer)
        if row is None:
            if not self._wanted:
                _ = self._tasks.start(self._read_wanted(), name="read lists")
            row = self._wanted[customer] = asyncio.get_running_loop().create_future()
        return row

    async def _read_wanted(self) -> None:
        wanted, self._wanted = self._wanted, {}
        try:
            rows = await self._on_disk(self.database.read, list(wanted))
        except StoreError as error:
            self._lose(error)
            rows = [None] * len(wanted)
        for future, row in zip(wanted.values(), rows, strict=True):
            future.set_result(row)

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            _ = self._tasks.start(self._write_behind(), name="write lists behind")

    async def _write_behind(self) -> None:
        try:
            while len(self._told):
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEHIND):
                        await self._urgent.wait()
                await self._write_told()
        finally:
            self._writing = False

    async def _write_told(self) -> None:
        told = self._being_written = self._told
        self._told = Told()
        self._urgent.clear()
        try:
            await self._on_disk(self.database.apply, told.batch(), self._clock())
            self.written += len(told)
        except StoreError as error:
            self._lose(error)
        finally:
            self._being_written = Told()
            self._batches += 1
            for customer in self._readers.keys() & (told.lists.keys() | told.marks.keys()):
                self._rewritten[customer] = self._batches
            self._settled.set()

    def _lose(self, error: StoreError) -> None:
        """Go on without the file: forget what was told, and see to its coming back."""
        if self.trouble is not None:
            return
        self._note(error)
        self._is_deaf = True
        self._told = Told()
        self._lost += 1
        self._settled.set()
        self._return = self._tasks.start(self._come_back(error), name="reopen the store")

    def _note(self, error: StoreError) -> None:
        if self.trouble is None or self.trouble.code != error.code:
            self.since = self._clock()
            self.losses[error.code] += 1
            aside = ", which is put aside" if error.is_worthless else ""
            log.warning("the store is of no use (%s): %s%s; answers go on from memory", error.code, error.detail, aside)
        self.trouble = error

    async def _come_back(self, error: StoreError) -> None:
        pause = 0.0 if error.is_worthless else AGAIN
        while self.trouble is not None:
            with suppress(StoreError):  # what cannot be put aside is met again
                await self._on_disk(self.database.abandon, self.trouble)
            await asyncio.sleep(pause)
            pause = AGAIN
            await self._reopen()
        await self._tell_everything()

    async def _reopen(self) -> None:
        self._is_deaf, self._meanwhile = False, []  # what is told from here on is not missed, should this succeed
        try:
            await self._on_disk(self.database.reopen, self._clock())
        except StoreError as error:
            self._note(error)
            self._is_deaf, self._told = True, Told()
            self._settled.set()
            return
        self._spans = dict(self.database.spans)
        log.info("the store is of use again, after %.1f s", self._clock() - self.since)
        self.trouble, self.since = None, self._clock()
        for tell in self._meanwhile:
            tell()

    async def _tell_everything(self) -> None:
        """Write all that is in memory, a part at a time, unless the store is lost meanwhile."""
        everything = iter(self.everything())
        while self.is_open and (some := list(islice(everything, AT_ONCE))):
            for snapshot in some:
                self.write(snapshot)
            await self.flush()

    async def _on_disk(self, work: Callable[..., T], *values: object) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._worker.run(partial(work, *values))
        except TimeoutError:
            raise StoreError("too_slow", f"{self.database.path}: no answer within {PATIENCE:g} s") from None
        except StoreError:
            raise
        except Exception as error:  # a defect of ours: what was told must not be taken for written
            log.exception("the store failed in a way that nobody expected")
            raise StoreError("failed", "a defect; the log has the traceback") from error
