"""The tables of the file, for one thread. SQLite's errors become ours here and nowhere else.

A transaction is on the disk when ``apply`` returns (``synchronous=FULL``), and the file is this process's alone
(``locking_mode=EXCLUSIVE``): two writers would vouch for each other's lists. Opening reads no lists, so that it takes
as long with a million customers as with none.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.errors import StoreError, Unreadable
from sidecar.model import Customer, Snapshot, Spans, begun, marked
from sidecar.stores.codec import Codec, Row

if TYPE_CHECKING:
    from sqlite3 import Connection

APPLICATION = 0x65737463
"""SQLite's ``application_id`` of our files: "estc"."""

VERSION = 1

SCHEMA = (
    "CREATE TABLE lists (name BLOB PRIMARY KEY, used INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX lists_by_use ON lists (used)",
    "CREATE TABLE spans (name BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id={APPLICATION}",
    f"PRAGMA user_version={VERSION}",
)

HOUR = 3600
"""Use is noted by the hour: a customer who is asked about all day costs a write for it only now and then."""

PRUNED = 1000
"""Rows that are dropped at least at a time when there are too many bytes; reads go on in between."""

FUTURE = 5.0
"""Seconds by which the last write may lie in the future: the clock was set back by more, so no age could be told."""

PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", f"journal_size_limit={8 << 20}")
SEAL = b"seal"
CODES = {
    "SQLITE_BUSY": "in_use",
    "SQLITE_CORRUPT": "corrupt",
    "SQLITE_FULL": "full",
    "SQLITE_NOTADB": "corrupt",
    "SQLITE_READONLY": "read_only",
    errno.EACCES: "read_only",
    errno.ENOENT: "gone",
    errno.ENOSPC: "full",
    errno.EROFS: "read_only",
}
"""What SQLite's and the system's errors mean for the store."""


class Mark(NamedTuple):
    """News of a customer: when it was heard, and by which spans the list was vouched for until then."""

    heard_at: float
    spans: Spans


class Batch(NamedTuple):
    """What is to be written together."""

    lists: Mapping[Customer, Snapshot]
    marks: Mapping[Customer, Mark]
    spans: Mapping[str | None, Spans]
    used: frozenset[Customer]


class Database:
    """One file. What raises ``StoreError`` has changed nothing in it; it is then to be abandoned, and opened again."""

    def __init__(self, path: Path, codec: Codec, *, max_bytes: int) -> None:
        from sqlite3 import Error, connect  # noqa: PLC0415 -- a megabyte, which who has no store need not load

        self._error: type[Exception] = Error
        self._open_file = connect
        self.path = path
        self.codec = codec
        self.max_bytes = max_bytes
        self.bytes = 0
        self.pruned = 0
        self.spans: dict[str | None, Spans] = {}
        self._gap_at = 0.0
        self._inode = 0
        self._connection: Connection | None = None

    def open(self, now: float) -> None:
        """Open the file, or make it; ``spans`` is then what its lists may be vouched for by.

        :raises StoreError: when it cannot be used.
        """
        with self._translated():
            self._connect()
            with self._transaction():  # takes the lock, which is kept
                if not self._number("PRAGMA schema_version"):
                    self._lay_out(now)
                try:
                    self._examine(now)
                    rows = self._db.execute("SELECT name, body FROM spans")
                    self.spans = dict(self.codec.decode_spans(body, name) for name, body in rows)
                except (Unreadable, KeyError, TypeError, ValueError) as error:  # what every file of ours has
                    raise StoreError("corrupt", f"{self.path}: {error}") from None
            self._measure()

    def reopen(self, now: float) -> None:
        """Open the file after it was of no use for a while: what it has from before may have missed news.

        :raises StoreError: when it cannot be used.
        """
        self.open(now)
        with self._translated(), self._transaction():
            self._gap_at = now
            self.spans = {account: begun(spans, now) for account, spans in self.spans.items()}
            self._write_spans(self.spans)
            self._note(gap_at=now)

    def read(self, customers: Sequence[Customer]) -> list[Row | Unreadable | None]:
        """Return what is kept of each customer.

        :raises StoreError: when the file cannot be read.
        """
        with self._translated():
            return [self._read(customer) for customer in customers]

    def apply(self, batch: Batch, now: float) -> None:
        """Write ``batch``, all or nothing; then see to the size.

        :raises StoreError: when nothing of it was written.
        """
        with self._translated():
            self._see_whether_it_is_there()
            with self._transaction():
                self._write(batch, now)
            self.spans.update(batch.spans)
            self._measure()
            if self.bytes > self.max_bytes:
                self._prune(max(PRUNED, 2 * len(batch.lists)))

    def abandon(self, error: StoreError) -> None:
        """Close the file that ``error`` is about; put it out of the way when it is worthless.

        :raises StoreError: when that is not possible.
        """
        self.close()
        aside = self.path.with_name(f"{self.path.name}.set-aside")
        with self._translated():
            if error.code == "unsealed":  # whoever has a key now does not want a readable copy
                for path in (*files_of(self.path), *files_of(aside)):
                    path.unlink(missing_ok=True)
            elif error.is_worthless:
                for path, away in zip(files_of(self.path), files_of(aside), strict=True):
                    with suppress(FileNotFoundError):
                        path.rename(away)

    def close(self) -> None:
        """Close the file, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._error):  # a last checkpoint that fails is made up for at the next opening
                connection.close()

    @property
    def _db(self) -> "Connection":
        if self._connection is None:
            raise StoreError("gone", f"{self.path} is not open")
        return self._connection

    def _connect(self) -> None:
        self.close()  # or our own lock, of an opening that came too late, would keep us out
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with suppress(PermissionError):  # somebody else's file, which we may use
            self.path.chmod(0o600)
        self._inode = self.path.stat().st_ino
        self._connection = self._open_file(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        if self._number("PRAGMA schema_version") and self._number("PRAGMA application_id") != APPLICATION:
            raise StoreError("not_ours", f"{self.path} is another program's database")
        for pragma in PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")

    def _see_whether_it_is_there(self) -> None:
        if self.path.stat().st_ino != self._inode:
            raise StoreError("gone", f"{self.path} was replaced")

    def _lay_out(self, now: float) -> None:
        for statement in SCHEMA:
            self._db.execute(statement)
        codec = self.codec
        seal = codec.seal.close(b"", codec.seal.name(SEAL))
        self._note(mode=codec.mode, sealed=codec.seal.is_secret, seal=seal, gap_at=0.0, written_at=now)

    def _examine(self, now: float) -> None:
        """See whether the file is ours, and of use."""
        if self._number("PRAGMA user_version") > VERSION:
            raise StoreError("newer", f"{self.path} was written by a newer version")
        facts = dict(self._db.execute("SELECT name, value FROM facts"))
        if facts["mode"] != self.codec.mode:
            raise StoreError("other_mode", f"{self.path} was written with an API key of {facts['mode']} mode")
        seal = self.codec.seal
        if seal.is_secret and not facts["sealed"]:
            raise StoreError("unsealed", f"{self.path} was written without a key")
        try:
            _ = seal.open(facts["seal"], seal.name(SEAL))
        except Unreadable:
            raise StoreError("other_key", f"{self.path} was written with another key") from None
        ahead = float(facts["written_at"]) - now
        if ahead > FUTURE:
            raise StoreError("from_the_future", f"{self.path} was written {ahead:.0f} s from now, so the clock was set")
        self._gap_at = float(facts["gap_at"])

    def _read(self, customer: Customer) -> Row | Unreadable | None:
        name = self.codec.name(customer)
        found = self._db.execute("SELECT body, used FROM lists WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        try:
            row = self.codec.decode(customer, found[0], name)._replace(used=found[1])
        except Unreadable as error:
            return error
        dirty = row.snapshot.dirty
        if row.written_at >= self._gap_at or (dirty is not None and dirty.heard_at >= self._gap_at):
            return row
        return row._replace(snapshot=marked(row.snapshot, self._gap_at, self.spans.get(customer.account, ())))

    def _write(self, batch: Batch, now: float) -> None:
        hour = int(now // HOUR)
        for customer, mark in batch.marks.items():
            row = self._read(customer)
            if isinstance(row, Row):
                self._put(Row(marked(row.snapshot, mark.heard_at, mark.spans), now), hour)
        for snapshot in batch.lists.values():
            self._put(Row(snapshot, now), hour)
        names = ((hour, self.codec.name(customer), hour) for customer in batch.used)
        self._db.executemany("UPDATE lists SET used = ? WHERE name = ? AND used < ?", names)
        self._write_spans(batch.spans)
        self._note(written_at=now)

    def _put(self, row: Row, hour: int) -> None:
        name = self.codec.name(row.snapshot.customer)
        self._db.execute("INSERT OR REPLACE INTO lists VALUES (?, ?, ?)", (name, hour, self.codec.encode(row, name)))

    def _write_spans(self, spans: Mapping[str | None, Spans]) -> None:
        for account, those in spans.items():
            name = self.codec.name(Customer("", account))
            body = self.codec.encode_spans(account, those, name)
            self._db.execute("INSERT OR REPLACE INTO spans VALUES (?, ?)", (name, body))

    def _note(self, **facts: Any) -> None:
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _prune(self, rows: int) -> None:
        """Drop the ``rows`` that were not used for longest."""
        oldest = "DELETE FROM lists WHERE name IN (SELECT name FROM lists ORDER BY used LIMIT ?)"
        with self._transaction():
            self.pruned += self._db.execute(oldest, (rows,)).rowcount
        self._measure()

    def _measure(self) -> None:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        self.bytes = pages * self._number("PRAGMA page_size")

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(pragma).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:  # whatever it is, nothing stays half done
            if self._db.in_transaction:  # SQLite has rolled back by itself after some errors
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])  # without the extended part
            raise StoreError(CODES.get(name, "failed"), f"{self.path}: {error}") from None
        except OSError as error:
            raise StoreError(CODES.get(error.errno, "failed"), f"{self.path}: {error.strerror}") from None


def files_of(path: Path) -> list[Path]:
    """Return the database at ``path`` and the log that belongs to it."""
    return [path, path.with_name(f"{path.name}-wal")]
