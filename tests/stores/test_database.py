"""The tables of the file, for one thread."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.errors import StoreError, Unreadable
from sidecar.model import Customer, Dirty, Snapshot, Span, Spans, packed
from sidecar.stores.codec import Row, Sealed
from sidecar.stores.database import PRUNED, Batch, Database, Mark
from tests.stores.keeping import ADA, BOB, NOW, database, listed, nobody

NOBODY = Customer("cus_nobody")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lists.db"


@pytest.fixture
def file(path: Path) -> Database:
    found = database(path)
    found.open(NOW)
    return found


def batch(
    *lists: Snapshot,
    marks: dict[Customer, Mark] | None = None,
    spans: dict[str | None, Spans] | None = None,
    used: tuple[Customer, ...] = (),
) -> Batch:
    return Batch({one.customer: one for one in lists}, marks or {}, spans or {}, frozenset(used))


def kept(file: Database, customer: Customer = ADA) -> Snapshot | None:
    """Return what the file has of a customer."""
    (row,) = file.read([customer])
    assert not isinstance(row, Unreadable)
    return None if row is None else row.snapshot


def trouble(file: Database, now: float = NOW) -> StoreError:
    """Return why the file cannot be opened."""
    with pytest.raises(StoreError) as caught:
        file.open(now)
    return caught.value


class TestKeeping:
    def test_lists_come_back_from_another_process(self, file: Database, path: Path) -> None:
        """Of each customer the last one, in the order in which they are asked for."""
        file.apply(batch(listed(ADA, "a"), listed(BOB, "b")), NOW)
        file.apply(batch(listed(ADA, "c", taken_at=NOW + 1)), NOW + 1)
        file.close()
        again = database(path)
        again.open(NOW + 2)
        rows = again.read([BOB, NOBODY, ADA])
        hour = int(NOW // 3600)
        assert rows == [Row(listed(BOB, "b"), NOW, hour), None, Row(listed(ADA, "c", taken_at=NOW + 1), NOW + 1, hour)]

    def test_that_stripe_knew_nobody_is_kept_too(self, file: Database) -> None:
        """Or the list from before would come back."""
        file.apply(batch(listed(ADA, "a")), NOW)
        file.apply(batch(nobody()), NOW)
        assert kept(file) == nobody()

    def test_a_mark_makes_a_list_dirty(self, file: Database) -> None:
        """It is true up to where the spans vouched for it when the news came; a second mark changes that no more."""
        file.apply(batch(listed(ADA, "a")), NOW)
        spans = (Span(NOW - 10, NOW + 50),)
        file.apply(batch(marks={ADA: Mark(NOW + 60, spans), NOBODY: Mark(NOW + 60, spans)}), NOW + 60)
        file.apply(batch(marks={ADA: Mark(NOW + 90, (Span(NOW - 10, NOW + 80),))}), NOW + 90)
        assert kept(file) == listed(ADA, "a", dirty=Dirty(NOW + 90, NOW + 50))
        assert kept(file, NOBODY) is None

    def test_spans_come_back(self, file: Database, path: Path) -> None:
        """By account."""
        spans: dict[str | None, Spans] = {None: (Span(1.0, 2.0), Span(3.0, 4.0)), "acct_1": (Span(5.0, 6.0),)}
        file.apply(batch(spans=spans), NOW)
        file.close()
        again = database(path)
        again.open(NOW)
        assert again.spans == spans

    def test_all_of_a_batch_or_nothing(self, file: Database) -> None:
        """A batch that fails half-way has changed nothing."""
        broken = replace(listed(BOB, "b"), packed_ids=packed(["three", "for", "one"]))
        with pytest.raises(ValueError, match="zip"):
            file.apply(batch(listed(ADA, "a"), broken), NOW)
        assert kept(file) is None
        file.apply(batch(listed(ADA, "a")), NOW)
        assert kept(file) == listed(ADA, "a")

    def test_a_damaged_row_is_no_list(self, file: Database) -> None:
        """It is said; the others can be read; the next list takes its place."""
        file.apply(batch(listed(ADA, "a"), listed(BOB, "b")), NOW)
        file._db.execute("UPDATE lists SET body = x'01ff' WHERE name = ?", (file.codec.name(ADA),))
        damaged, whole = file.read([ADA, BOB])
        assert isinstance(damaged, Unreadable)
        assert isinstance(whole, Row)
        file.apply(batch(marks={ADA: Mark(NOW, ())}), NOW)
        file.apply(batch(listed(ADA, "c")), NOW)
        assert kept(file) == listed(ADA, "c")

    def test_the_file_is_for_its_owner_only(self, file: Database, path: Path) -> None:
        """It tells who bought what."""
        file.apply(batch(listed()), NOW)
        for one in path.parent.iterdir():
            assert one.stat().st_mode & 0o077 == 0, one

    def test_a_sealed_file_tells_nothing(self, path: Path) -> None:
        """Neither file has a customer's id or a key in it."""
        file = database(path, seal=Sealed(b"k" * 32))
        file.open(NOW)
        file.apply(batch(listed(ADA, "seats"), spans={"acct_1": (Span(1.0, 2.0),)}), NOW)
        assert kept(file) == listed(ADA, "seats")
        written = b"".join(one.read_bytes() for one in path.parent.iterdir())
        for secret in (b"cus_ada", b"seats", b"acct_1"):
            assert secret not in written


class TestSize:
    def test_the_least_recently_used_go(self, path: Path) -> None:
        """By the hour of their last use; what is left stays within the bound, about."""
        file = database(path, max_bytes=1 << 20)
        file.open(NOW)
        crowd = [listed(Customer(f"cus_{number:05}"), *"abcdefghij") for number in range(6 * PRUNED)]
        hour = 3600.0
        file.apply(batch(*crowd[: PRUNED + 1]), NOW)
        file.apply(batch(used=(crowd[0].customer,)), NOW + hour)
        at = PRUNED + 1
        while not file.pruned:
            file.apply(batch(*crowd[at : at + 250]), NOW + 2 * hour)
            at += 250
        assert file.pruned == PRUNED
        assert file.bytes <= file.max_bytes
        assert kept(file, crowd[0].customer) is not None, "used an hour later than its neighbours"
        assert kept(file, crowd[1].customer) is None
        assert kept(file, crowd[at - 1].customer) is not None
        for more in range(at, len(crowd), 250):
            file.apply(batch(*crowd[more : more + 250]), NOW + 2 * hour)
        assert file.bytes <= 1.3 * file.max_bytes
        assert path.stat().st_size <= 2 * file.max_bytes

    def test_opening_reads_no_lists(self, file: Database, path: Path) -> None:
        """Pages read do not grow with customers: of a file of megabytes, a few."""
        for at in range(0, 20_000, 5000):
            file.apply(batch(*(listed(Customer(f"cus_{at + number}"), *"abcde") for number in range(5000))), NOW)
        file.close()
        assert path.stat().st_size > 4e6
        again = database(path)
        statements: list[str] = []

        def connect() -> None:
            Database._connect(again)
            again._db.set_trace_callback(statements.append)

        again._connect = connect  # type: ignore[method-assign]
        again.open(NOW)
        assert statements
        assert not any("lists" in statement for statement in statements)


class TestTrouble:
    def test_one_process_at_a_time(self, file: Database, path: Path) -> None:
        """A second one is told so; when the first is gone it may."""
        other = database(path)
        error = trouble(other)
        assert (error.code, error.is_worthless) == ("in_use", False)
        other.abandon(error)
        file.apply(batch(listed(ADA, "a")), NOW)
        file.close()
        other.open(NOW)
        assert kept(other) == listed(ADA, "a")

    @pytest.mark.parametrize(
        "content",
        [b"this is no database at all, but long enough to look at", b"SQLite format 3\x00" + b"\xff" * 4096],
        ids=["text", "garbage"],
    )
    def test_what_is_no_database_is_put_aside(self, path: Path, content: bytes) -> None:
        """Nothing is lost: it stays, under another name."""
        path.write_bytes(content)
        file = database(path)
        error = trouble(file)
        assert (error.code, error.is_worthless) == ("corrupt", True)
        file.abandon(error)
        assert path.with_name("lists.db.set-aside").read_bytes() == content
        assert not path.exists()
        file.reopen(NOW)
        file.apply(batch(listed(ADA, "a")), NOW)
        assert kept(file) == listed(ADA, "a")

    def test_a_truncated_file_is_noticed(self, file: Database, path: Path) -> None:
        """At the opening or at the first list that is missing; never as an empty store."""
        file.apply(batch(*(listed(Customer(f"cus_{number}"), *"abcde") for number in range(2000))), NOW)
        file.close()
        os.truncate(path, path.stat().st_size // 2)
        again = database(path)

        def read_all() -> None:
            again.open(NOW)
            again.read([Customer(f"cus_{number}") for number in range(2000)])

        with pytest.raises(StoreError) as caught:
            read_all()
        assert caught.value.code == "corrupt"

    def test_a_newer_version_is_left_alone(self, file: Database, path: Path) -> None:
        """It is put aside whole, for whoever understands it."""
        file._db.execute("PRAGMA user_version=2")
        file.close()
        error = trouble(database(path))
        assert (error.code, error.is_worthless) == ("newer", True)

    def test_another_programs_database_is_not_touched(self, path: Path) -> None:
        """It stays where it is, and as it is."""
        with sqlite3.connect(path) as theirs:
            theirs.execute("CREATE TABLE orders (id)")
        theirs.close()
        before = path.read_bytes()
        file = database(path)
        error = trouble(file)
        assert (error.code, error.is_worthless) == ("not_ours", False)
        file.abandon(error)
        assert path.read_bytes() == before
        with sqlite3.connect(path) as theirs:
            assert theirs.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        theirs.close()

    def test_modes_are_kept_apart(self, file: Database, path: Path) -> None:
        """A customer of one is nobody in the other."""
        file.close()
        error = trouble(database(path, livemode=True))
        assert (error.code, error.is_worthless) == ("other_mode", True)
        assert "test mode" in error.detail

    def test_keys_are_kept_apart(self, path: Path) -> None:
        """With another key, or with none, a sealed file is of no use."""
        file = database(path, seal=Sealed(b"k" * 32))
        file.open(NOW)
        file.close()
        for other in (database(path, seal=Sealed(b"q" * 32)), database(path)):
            error = trouble(other)
            other.close()
            assert (error.code, error.is_worthless) == ("other_key", True)

    def test_whoever_has_a_key_wants_no_readable_copy(self, file: Database, path: Path) -> None:
        """A file from before encryption is removed, not put aside."""
        file.apply(batch(listed(ADA, "a")), NOW)
        file.close()
        sealed = database(path, seal=Sealed(b"k" * 32))
        error = trouble(sealed)
        assert error.code == "unsealed"
        sealed.abandon(error)
        assert list(path.parent.iterdir()) == []

    def test_a_file_from_the_future_cannot_be_aged(self, file: Database, path: Path) -> None:
        """The clock was set back: how old its lists are cannot be told. A little is what clocks differ by."""
        file.apply(batch(listed(ADA, "a")), NOW)
        file.close()
        again = database(path)
        again.open(NOW - 4)
        again.close()
        error = trouble(again, NOW - 60)
        assert (error.code, error.is_worthless) == ("from_the_future", True)
        assert "60 s from now" in error.detail

    def test_a_file_that_is_taken_away_is_missed(self, file: Database, path: Path) -> None:
        """What is written to it would be gone with the process."""
        path.rename(path.with_name("elsewhere"))
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                file.apply(batch(listed(ADA, "a")), NOW)
            assert caught.value.code == "gone"
            path.write_bytes(b"another file")

    def test_no_folder_no_file(self, tmp_path: Path) -> None:
        """The complaint names the path."""
        error = trouble(database(tmp_path / "missing" / "lists.db"))
        assert error.code == "gone"
        assert "missing/lists.db" in error.detail

    def test_a_closed_file_is_of_no_use(self, file: Database) -> None:
        """It can be closed twice."""
        file.close()
        file.close()
        with pytest.raises(StoreError):
            file.read([ADA])

    @pytest.mark.parametrize(
        "statement",
        ["DELETE FROM facts", "UPDATE facts SET value = 'soon' WHERE name = 'gap_at'", "UPDATE spans SET body = x'00'"],
    )
    def test_a_file_without_its_facts_is_corrupt(self, file: Database, path: Path, statement: str) -> None:
        """Somebody has been at it."""
        file.apply(batch(spans={None: (Span(1.0, 2.0),)}), NOW)
        file._db.execute(statement)
        file.close()
        assert trouble(database(path)).code == "corrupt"

    def test_an_opening_that_came_too_late_keeps_nobody_out(self, file: Database) -> None:
        """A lock of our own is no other process."""
        file.open(NOW)
        file.apply(batch(listed(ADA, "a")), NOW)
        assert kept(file) == listed(ADA, "a")

    def test_what_cannot_be_put_aside_is_said(self, path: Path) -> None:
        """In the system's words."""
        path.write_bytes(b"this is no database at all, but long enough to look at")
        path.with_name("lists.db.set-aside").mkdir()
        file = database(path)
        error = trouble(file)
        with pytest.raises(StoreError, match="directory"):
            file.abandon(error)

    def test_a_file_that_others_may_read_is_closed_to_them(self, path: Path) -> None:
        """Whoever made it."""
        path.touch(0o644)
        path.chmod(0o644)
        database(path).open(NOW)
        assert path.stat().st_mode & 0o077 == 0

    def test_only_what_our_process_may_write_is_of_use(self, file: Database) -> None:
        """SQLite's own words are kept."""
        file._db.execute("PRAGMA query_only=1")
        with pytest.raises(StoreError) as caught:
            file.apply(batch(listed()), NOW)
        assert caught.value.code == "read_only"


class TestAGap:
    def test_what_is_from_before_it_is_dirty(self, file: Database) -> None:
        """Marks may have been missed: each list is true up to where the file's own spans vouch for it."""
        file.apply(batch(listed(ADA, "a"), listed(BOB, "b"), spans={None: (Span(NOW - 5, NOW + 7),)}), NOW)
        file.close()
        file.reopen(NOW + 100)
        assert kept(file) == listed(ADA, "a", dirty=Dirty(NOW + 100, NOW + 7))
        assert kept(file, BOB) == listed(BOB, "b", dirty=Dirty(NOW + 100, NOW))
        assert file.spans == {None: (Span(NOW - 5, NOW + 7), Span(NOW + 100, NOW + 100))}

    def test_what_is_written_after_it_is_not(self, file: Database) -> None:
        """A list that memory held all the while is as good as ever, whenever it was taken; later marks count."""
        file.apply(batch(listed(ADA, "a"), listed(BOB, "b")), NOW)
        file.close()
        file.reopen(NOW + 100)
        file.apply(batch(listed(ADA, "a"), marks={BOB: Mark(NOW + 200, ())}), NOW + 200)
        assert kept(file) == listed(ADA, "a")
        assert kept(file, BOB) == listed(BOB, "b", dirty=Dirty(NOW + 200, NOW))

    def test_it_is_remembered(self, file: Database, path: Path) -> None:
        """The next process knows of it too."""
        file.apply(batch(listed(ADA, "a")), NOW)
        file.close()
        file.reopen(NOW + 100)
        file.close()
        again = database(path)
        again.open(NOW + 101)
        assert kept(again) == listed(ADA, "a", dirty=Dirty(NOW + 100, NOW))
